/* Count what a process does to the files in a folder, and kill it or let a call fail at a number.
 *
 * Loaded with LD_PRELOAD. Nothing happens until failpoints_arm is called. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { WRITES = 1, SYNCS = 2, OPENS = 4, NAMES = 8, READS = 16 };

static char folder[PATH_MAX];
static int kinds, failure;
static long first, last;
static atomic_long count;

/* Act on the calls number `at` to `until` of some kinds on files below a path: fail with an errno,
 * or kill the process if it is 0. */
void failpoints_arm(const char *path, int which, long at, long until, int error) {
    kinds = 0;
    snprintf(folder, sizeof folder, "%s", path);
    first = at, last = until, failure = error;
    count = 0;
    kinds = which;
}

long failpoints_disarm(void) {
    kinds = 0;
    return count;
}

static int inside(const char *path) {
    char whole[PATH_MAX];
    if (path[0] != '/') {
        char current[PATH_MAX / 2];
        if (getcwd(current, sizeof current) == NULL) return 0;
        snprintf(whole, sizeof whole, "%s/%.2000s", current, path);
        path = whole;
    }
    return strncmp(path, folder, strlen(folder)) == 0;
}

static int fails(void) {
    long number = atomic_fetch_add(&count, 1) + 1;
    if (number < first || number > last) return 0;
    if (failure == 0) kill(getpid(), SIGKILL);
    errno = failure;
    return 1;
}

static int path_fails(int kind, const char *path) {
    return (kinds & kind) && path != NULL && inside(path) && fails();
}

static int file_fails(int kind, int file) {
    if (!(kinds & kind)) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return inside(path) && fails();
}

static int open_fails(int flags, const char *path) {
    int writes = flags & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC);
    return path_fails(writes ? OPENS | READS : READS, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define ON_FILE(kind, result, name, parameters, ...)                                     \
    result name parameters {                                                             \
        static result(*real) parameters;                                                 \
        if (!real) real = REAL(name);                                                    \
        return file_fails(kind, file) ? -1 : real(__VA_ARGS__);                          \
    }

#define ON_PATH(kind, result, name, parameters, ...)                                     \
    result name parameters {                                                             \
        static result(*real) parameters;                                                 \
        if (!real) real = REAL(name);                                                    \
        return path_fails(kind, path) ? -1 : real(__VA_ARGS__);                          \
    }

ON_FILE(WRITES, ssize_t, write, (int file, const void *data, size_t size), file, data, size)
ON_FILE(WRITES, ssize_t, pwrite, (int file, const void *data, size_t size, off_t at), file, data, size, at)
ON_FILE(WRITES, ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t at), file, data, size, at)
ON_FILE(WRITES, ssize_t, writev, (int file, const struct iovec *parts, int n), file, parts, n)
ON_FILE(WRITES, int, ftruncate, (int file, off_t size), file, size)
ON_FILE(WRITES, int, ftruncate64, (int file, off64_t size), file, size)
ON_FILE(SYNCS, int, fsync, (int file), file)
ON_FILE(SYNCS, int, fdatasync, (int file), file)
ON_PATH(NAMES, int, unlink, (const char *path), path)
ON_PATH(NAMES, int, mkdir, (const char *path, mode_t mode), path, mode)
ON_PATH(NAMES, int, rmdir, (const char *path), path)
ON_PATH(NAMES, int, rename, (const char *path, const char *to), path, to)
ON_PATH(NAMES, int, link, (const char *path, const char *to), path, to)

/* These return the error instead of setting errno. */
#define RESERVES(name, offset)                                                           \
    int name(int file, offset at, offset size) {                                         \
        static int (*real)(int, offset, offset);                                         \
        if (!real) real = REAL(name);                                                    \
        return file_fails(WRITES, file) ? errno : real(file, at, size);                  \
    }

RESERVES(posix_fallocate, off_t)
RESERVES(posix_fallocate64, off64_t)

#define OPENING(name)                                                                    \
    int name(const char *path, int flags, ...) {                                         \
        static int (*real)(const char *, int, ...);                                      \
        if (!real) real = REAL(name);                                                    \
        va_list rest;                                                                    \
        va_start(rest, flags);                                                           \
        mode_t mode = va_arg(rest, mode_t);                                              \
        va_end(rest);                                                                    \
        return open_fails(flags, path) ? -1 : real(path, flags, mode);                   \
    }

OPENING(open)
OPENING(open64)

#define OPENING_AT(name)                                                                 \
    int name(int at, const char *path, int flags, ...) {                                 \
        static int (*real)(int, const char *, int, ...);                                 \
        if (!real) real = REAL(name);                                                    \
        va_list rest;                                                                    \
        va_start(rest, flags);                                                           \
        mode_t mode = va_arg(rest, mode_t);                                              \
        va_end(rest);                                                                    \
        return open_fails(flags, path) ? -1 : real(at, path, flags, mode);               \
    }

OPENING_AT(openat)
OPENING_AT(openat64)
