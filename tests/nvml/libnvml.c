/*
 * A simulated libnvidia-ml.so.1: the few functions of NVML that greentrain, torch and their like
 * call through the real bindings, over cards whose power follows a script and whose energy is
 * therefore known exactly.
 *
 * Everything is read from a file that NVML_SIMULATION names, mapped as `struct node`, which
 * tests/nvml/simulation.py writes: the clock, the cards and their faults. Several processes may
 * map one file. Without it the library says that the driver is not loaded.
 *
 * Power is a square wave (constant where low and high are the same), so its integral is exact; the
 * energy counter shows that integral as of its last tick.
 */
#include <fcntl.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define CARDS 8
#define PIDS 8

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4,
    NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, UNKNOWN = 999
};
enum { FIELD_TOTAL_ENERGY = 83, FIELD_AVERAGE = 185, FIELD_INSTANT = 186, FIELD_ENERGY = 191 };
enum { SCOPE_GPU = 0, SCOPE_MODULE = 1 };
enum { TYPE_UINT = 1, TYPE_ULONGLONG = 3 };
enum { ARCH_PASCAL = 4, ARCH_AMPERE = 7 };

/* Every member has 8 bytes or is a text of a multiple of 8, so that C and ctypes agree. */
struct card {
    char name[64], uuid[64];
    double low_w, high_w, period_s, duty, phase_s; /* high for the first `duty` of each period */
    double tick_s, tick_phase_s;                   /* when the counter moves on */
    double base_j, gain;                           /* the counter at time 0, and its error */
    double restart_s, lost_s;                      /* when; negative is never */
    double cpu_w, average_s, limit_w;              /* a negative limit is not supported */
    int64_t handle_result, counter_result, power_result, instant_result;
    int64_t module_power_result, module_energy_result, counter_is_module;
    int64_t mig, mig_old_names;    /* instances (0: MIG is off, -1: not known), and their naming */
    int64_t pid_count, pids[PIDS]; /* -1: not told */
    int64_t share_result, sm_util[PIDS]; /* percent of each process, in each second */
};

struct node {
    double now_s, origin_s; /* the fake clock, and where the real one counts from */
    int64_t real_clock, init_result, count, reads;
    struct card cards[CARDS];
};

struct handle { int card, instance; }; /* instance -1: the whole card */

typedef struct {
    uint32_t field, scope;
    int64_t timestamp, latency_us;
    uint32_t type, result;
    union { double d; uint32_t ui; uint64_t ull; } value;
} field_value;

typedef struct { uint32_t pid; uint64_t memory; uint32_t gpu_instance, compute_instance; } process;

typedef struct { uint64_t total, free, used; } memory;

typedef struct { uint32_t gpu, memory; } utilization;

typedef struct { uint32_t version, sensor; int32_t celsius; } temperature;

typedef struct {
    char legacy[16];
    uint32_t domain, bus, device, pci_device, subsystem;
    char bus_id[32];
} pci_info;

static struct node *node;
static char mapped[4096];
static struct handle handles[CARDS][PIDS + 1];

int simulation_size(void) { return (int)sizeof(struct node); }

/* ---- the script ---- */

static double now(void) {
    struct timespec t;
    if (!node->real_clock) return node->now_s;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec - node->origin_s;
}

static double power_w(const struct card *c, double t) {
    if (c->period_s <= 0) return c->high_w;
    double x = fmod(t + c->phase_s, c->period_s);
    return x < c->duty * c->period_s ? c->high_w : c->low_w;
}

/* Joules from phase 0 to x seconds later. */
static double integral_j(const struct card *c, double x) {
    if (c->period_s <= 0) return c->high_w * x;
    double high_s = c->duty * c->period_s, low_s = c->period_s - high_s;
    double whole = floor(x / c->period_s), rest = x - whole * c->period_s;
    return whole * (high_s * c->high_w + low_s * c->low_w)
        + (rest < high_s ? rest * c->high_w : high_s * c->high_w + (rest - high_s) * c->low_w);
}

static double energy_j(const struct card *c, double from, double to) {
    return integral_j(c, to + c->phase_s) - integral_j(c, from + c->phase_s);
}

static double counter_mj(const struct card *c, int scope) {
    double t = now(), from = 0, base = c->base_j;
    if (c->tick_s > 0) { /* a hair more, so that 3 * 0.1 s is the third tick */
        t = floor((t - c->tick_phase_s) / c->tick_s + 1e-6) * c->tick_s + c->tick_phase_s;
        if (t < 0) t = 0;
    }
    if (c->restart_s >= 0 && now() >= c->restart_s) {
        from = c->restart_s;
        base = 0;
        if (t < from) t = from;
    }
    double watts_beside = scope == SCOPE_MODULE ? c->cpu_w : 0;
    return 1e3 * (base + c->gain * (energy_j(c, from, t) + watts_beside * (t - from)));
}

/* ---- handles ---- */

static int find(const struct handle *h, struct card **card) {
    if (!node) return UNINITIALIZED;
    if (!h) return INVALID_ARGUMENT;
    *card = &node->cards[h->card];
    return (*card)->lost_s >= 0 && now() >= (*card)->lost_s ? GPU_IS_LOST : SUCCESS;
}

/* The same, for what only a whole card can tell. */
static int find_whole(const struct handle *h, struct card **card) {
    int result = find(h, card);
    return result == SUCCESS && h->instance >= 0 ? NOT_SUPPORTED : result;
}

static struct handle *handle_of(int card, int instance) {
    struct handle *h = &handles[card][instance + 1];
    h->card = card;
    h->instance = instance;
    return h;
}

static void write_uuid(const struct handle *h, char *text, size_t size) {
    const struct card *c = &node->cards[h->card];
    if (h->instance < 0)
        snprintf(text, size, "%s", c->uuid);
    else if (c->mig_old_names)
        snprintf(text, size, "MIG-%s/%d/0", c->uuid, h->instance + 1);
    else
        snprintf(text, size, "MIG-%d%d000000-0000-5000-8000-000000000000", h->card,
                 h->instance + 1);
}

/* ---- NVML: library and system ---- */

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *path = getenv("NVML_SIMULATION");
    if (!path || !*path) {
        node = NULL;
        mapped[0] = 0;
        return DRIVER_NOT_LOADED;
    }
    if (!node || strcmp(path, mapped) != 0) {
        int file = open(path, O_RDWR);
        if (file < 0) return DRIVER_NOT_LOADED;
        /* The map before is left: a thread may still be reading it. */
        void *map = mmap(NULL, sizeof(struct node), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        close(file);
        if (map == MAP_FAILED) return DRIVER_NOT_LOADED;
        node = map;
        snprintf(mapped, sizeof mapped, "%s", path);
    }
    return (int)node->init_result;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlInit(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return node ? SUCCESS : UNINITIALIZED; }

const char *nvmlErrorString(int result) {
    return result == SUCCESS ? "Success" : "an error of the simulated NVML";
}

int nvmlSystemGetDriverVersion(char *text, unsigned size) {
    snprintf(text, size, "600.00");
    return SUCCESS;
}

int nvmlSystemGetNVMLVersion(char *text, unsigned size) {
    snprintf(text, size, "13.600.00");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    if (!node) return UNINITIALIZED;
    if (node->count < 0) return UNKNOWN;
    *count = (unsigned)node->count;
    return SUCCESS;
}

/* ---- NVML: which card ---- */

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct handle **h) {
    struct card *c;
    if (!node) return UNINITIALIZED;
    if (index >= (unsigned)node->count) return INVALID_ARGUMENT;
    *h = handle_of((int)index, -1);
    if (node->cards[index].handle_result) return (int)node->cards[index].handle_result;
    return find(*h, &c);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, struct handle **h) {
    char text[96];
    if (!node) return UNINITIALIZED;
    for (int card = 0; card < node->count; card++)
        for (int instance = -1; instance < 0 || instance < node->cards[card].mig; instance++) {
            *h = handle_of(card, instance);
            write_uuid(*h, text, sizeof text);
            if (strcmp(uuid, text) == 0) return SUCCESS;
        }
    return NOT_FOUND;
}

int nvmlDeviceGetUUID(struct handle *h, char *text, unsigned size) {
    struct card *c;
    int result = find(h, &c);
    if (result == SUCCESS) write_uuid(h, text, size);
    return result;
}

int nvmlDeviceGetName(struct handle *h, char *text, unsigned size) {
    struct card *c;
    int result = find(h, &c);
    if (result == SUCCESS) snprintf(text, size, "%s", c->name);
    return result;
}

int nvmlDeviceGetIndex(struct handle *h, unsigned *index) {
    struct card *c;
    int result = find(h, &c);
    if (result == SUCCESS) *index = (unsigned)(h->instance < 0 ? h->card : h->instance);
    return result;
}

int nvmlDeviceGetPciInfo_v3(struct handle *h, pci_info *info) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result != SUCCESS) return result;
    memset(info, 0, sizeof *info);
    info->bus = (uint32_t)h->card + 1;
    snprintf(info->legacy, sizeof info->legacy, "0000:%02X:00.0", info->bus);
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", info->bus);
    return SUCCESS;
}

/* ---- NVML: MIG ---- */

int nvmlDeviceGetMigMode(struct handle *h, unsigned *current, unsigned *pending) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result == SUCCESS && c->mig < 0) return NOT_SUPPORTED;
    if (result == SUCCESS) *current = *pending = c->mig > 0;
    return result;
}

int nvmlDeviceGetMaxMigDeviceCount(struct handle *h, unsigned *count) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result == SUCCESS) *count = c->mig > 0 ? 7 : 0; /* slots, of which some are empty */
    return result;
}

int nvmlDeviceGetMigDeviceHandleByIndex(struct handle *h, unsigned index, struct handle **mig) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result != SUCCESS) return result;
    if ((int)index >= c->mig) return NOT_FOUND;
    *mig = handle_of(h->card, (int)index);
    return SUCCESS;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(struct handle *h, struct handle **whole) {
    struct card *c;
    int result = find(h, &c);
    if (result == SUCCESS) *whole = handle_of(h->card, -1);
    return result;
}

int nvmlDeviceGetGpuInstanceId(struct handle *h, unsigned *id) {
    *id = (unsigned)h->instance + 1;
    return h->instance < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceGetComputeInstanceId(struct handle *h, unsigned *id) {
    *id = 0;
    return h->instance < 0 ? NOT_SUPPORTED : SUCCESS;
}

int nvmlDeviceIsMigDeviceHandle(struct handle *h, unsigned *mig) {
    *mig = h->instance >= 0;
    return SUCCESS;
}

/* ---- NVML: energy, power and who draws it ---- */

static int counter_scope(const struct card *c) {
    return c->counter_is_module ? SCOPE_MODULE : SCOPE_GPU;
}

int nvmlDeviceGetTotalEnergyConsumption(struct handle *h, unsigned long long *mj) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result == SUCCESS) result = (int)c->counter_result;
    if (result != SUCCESS) return result;
    __atomic_add_fetch(&node->reads, 1, __ATOMIC_RELAXED);
    *mj = (unsigned long long)counter_mj(c, counter_scope(c));
    return SUCCESS;
}

static double average_w(const struct card *c) {
    double t = now(), window = c->average_s < t ? c->average_s : t;
    return window > 0 ? energy_j(c, t - window, t) / window : power_w(c, t);
}

int nvmlDeviceGetPowerUsage(struct handle *h, unsigned *mw) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result == SUCCESS) result = (int)c->power_result;
    if (result != SUCCESS) return result;
    __atomic_add_fetch(&node->reads, 1, __ATOMIC_RELAXED);
    *mw = (unsigned)(1e3 * average_w(c));
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(struct handle *h, unsigned *mw) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result != SUCCESS) return result;
    if (c->limit_w < 0) return NOT_SUPPORTED;
    *mw = (unsigned)(1e3 * c->limit_w);
    return SUCCESS;
}

int nvmlDeviceGetPowerManagementLimit(struct handle *h, unsigned *mw) {
    return nvmlDeviceGetEnforcedPowerLimit(h, mw);
}

int nvmlDeviceGetPowerManagementDefaultLimit(struct handle *h, unsigned *mw) {
    return nvmlDeviceGetEnforcedPowerLimit(h, mw);
}

int nvmlDeviceGetPowerManagementLimitConstraints(struct handle *h, unsigned *low, unsigned *high) {
    *low = 100000;
    return nvmlDeviceGetEnforcedPowerLimit(h, high);
}

static void answer(const struct card *c, field_value *v) {
    int module = v->scope == SCOPE_MODULE;
    double watts_beside = module ? c->cpu_w : 0;
    int energy = v->field == FIELD_ENERGY || v->field == FIELD_TOTAL_ENERGY;
    int power = v->field == FIELD_INSTANT || v->field == FIELD_AVERAGE;
    v->timestamp = (int64_t)(1e6 * now());
    if ((!energy && !power) || v->scope > SCOPE_MODULE)
        v->result = NOT_SUPPORTED;
    else if (energy)
        v->result = (uint32_t)(module ? c->module_energy_result : c->counter_result);
    else
        v->result = (uint32_t)(module ? c->module_power_result : c->instant_result);
    if (v->result != SUCCESS) return;
    __atomic_add_fetch(&node->reads, 1, __ATOMIC_RELAXED);
    v->type = energy ? TYPE_ULONGLONG : TYPE_UINT;
    if (energy)
        v->value.ull = (uint64_t)counter_mj(c, module ? SCOPE_MODULE : counter_scope(c));
    else if (v->field == FIELD_AVERAGE)
        v->value.ui = (uint32_t)(1e3 * (average_w(c) + watts_beside));
    else
        v->value.ui = (uint32_t)(1e3 * (power_w(c, now()) + watts_beside));
}

int nvmlDeviceGetFieldValues(struct handle *h, int count, field_value *values) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result != SUCCESS) return result;
    for (int i = 0; i < count; i++) answer(c, &values[i]);
    return SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(struct handle *h, unsigned *count, process *list) {
    struct card *c;
    (void)list;
    *count = 0;
    return find(h, &c);
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct handle *h, unsigned *count, process *list) {
    struct card *c;
    int result = find(h, &c);
    if (result == SUCCESS && c->pid_count < 0) result = NO_PERMISSION;
    if (result != SUCCESS) return result;
    unsigned room = *count;
    *count = (unsigned)c->pid_count;
    if (room < *count || (!list && *count)) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) {
        list[i].pid = (uint32_t)c->pids[i];
        list[i].memory = 1 << 30;
        list[i].gpu_instance = list[i].compute_instance = 0xFFFFFFFFu;
    }
    return SUCCESS;
}

typedef struct {
    uint32_t pid;
    uint64_t timestamp_us;
    uint32_t sm, memory, encoder, decoder;
} process_sample;

/* One sample of each process at each whole second, kept for 5 s as real drivers keep few. */
int nvmlDeviceGetProcessUtilization(
    struct handle *h, process_sample *list, unsigned *count, unsigned long long seen_us) {
    struct card *c;
    int result = find(h, &c);
    if (result == SUCCESS && c->share_result) result = (int)c->share_result;
    if (result != SUCCESS) return result;
    int64_t last = (int64_t)floor(now() + 1e-6), first = (int64_t)(seen_us / 1000000) + 1;
    if (first < last - 4) first = last - 4;
    if (first < 1) first = 1;
    int64_t seconds = last - first + 1, pids = c->pid_count > 0 ? c->pid_count : 0;
    if (seconds <= 0 || pids == 0) return NOT_FOUND;
    unsigned room = *count;
    *count = (unsigned)(seconds * pids);
    if (room < *count || !list) return INSUFFICIENT_SIZE;
    for (unsigned i = 0; i < *count; i++) {
        int64_t one = i % pids;
        list[i].pid = (uint32_t)c->pids[one];
        list[i].timestamp_us = (uint64_t)(first + i / pids) * 1000000;
        list[i].sm = (uint32_t)c->sm_util[one];
        list[i].memory = list[i].encoder = list[i].decoder = 0;
    }
    return SUCCESS;
}

/* ---- NVML: what other tools ask beside energy, and what no figure here rests on ---- */

int nvmlDeviceGetArchitecture(struct handle *h, unsigned *architecture) {
    struct card *c;
    int result = find(h, &c);
    /* Energy counters came with Volta, and some tools go by that alone. */
    if (result == SUCCESS) *architecture = c->counter_result ? ARCH_PASCAL : ARCH_AMPERE;
    return result;
}

int nvmlDeviceGetMemoryInfo(struct handle *h, memory *info) {
    struct card *c;
    int result = find(h, &c);
    if (result != SUCCESS) return result;
    info->total = 80ull << 30;
    info->used = (uint64_t)c->pid_count << 30;
    info->free = info->total - info->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(struct handle *h, utilization *rates) {
    struct card *c;
    int result = find_whole(h, &c);
    if (result != SUCCESS) return result;
    rates->gpu = power_w(c, now()) > c->low_w || c->period_s <= 0 ? 100 : 0;
    rates->memory = rates->gpu / 2;
    return SUCCESS;
}

int nvmlDeviceGetTemperature(struct handle *h, int sensor, unsigned *celsius) {
    struct card *c;
    (void)sensor;
    *celsius = 55;
    return find(h, &c);
}

int nvmlDeviceGetTemperatureV(struct handle *h, temperature *t) {
    struct card *c;
    t->celsius = 55;
    return find(h, &c);
}

int nvmlDeviceGetComputeMode(struct handle *h, int *mode) {
    struct card *c;
    *mode = 0;
    return find(h, &c);
}

int nvmlDeviceGetPersistenceMode(struct handle *h, int *mode) {
    struct card *c;
    *mode = 1;
    return find_whole(h, &c);
}

int nvmlDeviceGetC2cModeInfoV(struct handle *h, void *info) {
    struct card *c;
    int result = find(h, &c);
    (void)info;
    return result == SUCCESS ? NOT_SUPPORTED : result;
}
