"""Read the current commit from the files of git, which other users may have written.

Only regular files of a ``.git`` folder are read, and only texts that look like a commit are
returned. Links that lead out of the folder, pipes and devices are ignored.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REF = re.compile(r"ref: *(refs/[^\s\0]{1,500})")
_SHORT = 4096
"""Largest size in bytes of a file that holds one commit, name or path."""
_LONG = 64 * 2**20
"""Largest size in bytes of the file of packed references."""


def checked_out(git: Path) -> str | None:
    """Return the commit that is checked out; ``None`` if the files name none.

    Args:
        git: A folder ``.git``, or the file of this name in a worktree or a submodule.

    Raises:
        OSError: If a file cannot be read.
        ValueError: If a file holds no text, or a path that is none.
    """
    if not git.is_dir():
        pointer = _text(git)
        if pointer is None or not pointer.startswith("gitdir:"):
            return None
        git = git.parent / pointer.removeprefix("gitdir:").strip()
    git = git.resolve(strict=True)
    shared = _shared(git)
    if shared is None or not (shared / "objects").is_dir():
        return None
    head = _inside(git, "HEAD")
    if head is None or _COMMIT.fullmatch(head):
        return head
    named = _REF.fullmatch(head)
    return None if named is None else _resolved(named[1], git, shared)


def _shared(git: Path) -> Path | None:
    """Return the folder that the worktrees of a repository share: a parent of each of them."""
    common = _inside(git, "commondir")
    if common is None:
        return git
    shared = (git / common).resolve(strict=True)
    return shared if git.is_relative_to(shared) else None


def _resolved(ref: str, git: Path, shared: Path) -> str | None:
    for folder in (git, shared):
        found = _inside(folder, ref)
        if found is not None:
            return found if _COMMIT.fullmatch(found) else None
    for line in _lines(shared / "packed-refs"):
        commit, _, name = line.rstrip("\n").partition(" ")
        if name == ref:
            return commit if _COMMIT.fullmatch(commit) else None
    return None


def _inside(folder: Path, name: str) -> str | None:
    """Return the text of a file in a folder; ``None`` if it is missing or outside the folder."""
    path = (folder / name).resolve()
    return _text(path) if path.is_relative_to(folder) else None


def _text(path: Path) -> str | None:
    """Return the stripped text of a short file; ``None`` if it is missing or no such file."""
    descriptor = _opened(path, _SHORT)
    if descriptor is None:
        return None
    with os.fdopen(descriptor, encoding="utf-8") as file:
        return file.read(_SHORT).strip()


def _lines(path: Path) -> Iterator[str]:
    descriptor = _opened(path, _LONG)
    if descriptor is not None:
        with os.fdopen(descriptor, encoding="utf-8", errors="replace") as file:
            yield from file


def _opened(path: Path, most_bytes: int) -> int | None:
    """Open a regular file without waiting, and return its descriptor."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        if not stat.S_ISREG(path.lstat().st_mode):  # opening a device may have an effect
            return None
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        return None
    held = os.fstat(descriptor)
    if stat.S_ISREG(held.st_mode) and held.st_size <= most_bytes:
        return descriptor
    os.close(descriptor)
    return None
