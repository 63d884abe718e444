"""Describe the versions and hardware of a run, without names of people, hosts or paths."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from greentrain._about import DISTRIBUTION, VERSION

_DRIVER = Path("/proc/driver/nvidia/version")
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_PACKAGES = ("torch", "pytorch-lightning", "lightning", "codecarbon", "nvidia-ml-py", "mlflow")


def environment() -> dict[str, object]:
    """Return versions, platform, cores, the current commit, and a hash of the host's name.

    ``nvidia_driver`` and ``git_commit`` are ``None`` if they cannot be read.
    """
    return {
        "versions": dict(_VERSIONS),
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "host": host_hash(),
        "nvidia_driver": nvidia_driver(),
        "git_commit": git_commit(Path.cwd()),
    }


def host_hash() -> str:
    """Return a hash of the host's name, which distinguishes hosts without naming them."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def nvidia_driver(path: Path = _DRIVER) -> str | None:
    """Return the version of the loaded NVIDIA driver; ``None`` if there is none."""
    try:
        found = re.search(r"Module\b.*?(\d+\.\d+(?:\.\d+)*)", path.read_text())
    except (OSError, UnicodeDecodeError):
        return None
    return found[1] if found else None


def git_commit(folder: Path) -> str | None:
    """Return the commit that is checked out in a folder or in a parent of it; ``None`` if none.

    It is read from git's files, because a subprocess would be slow. Uncommitted changes do not
    show.
    """
    for place in (folder, *folder.parents):
        git = place / ".git"
        if git.exists():
            try:
                return _checked_out(git)
            except (OSError, UnicodeDecodeError):
                return None
    return None


def _checked_out(git: Path) -> str | None:
    if git.is_file():  # a worktree or a submodule: the file holds the path of the rest
        git = (git.parent / git.read_text().removeprefix("gitdir:").strip()).resolve()
    head = (git / "HEAD").read_text().strip()
    if not head.startswith("ref:"):
        return head if _COMMIT.fullmatch(head) else None
    ref = head.removeprefix("ref:").strip()
    common = git / "commondir"
    shared = (git / common.read_text().strip()).resolve() if common.exists() else git
    for base in (git, shared):
        if (base / ref).is_file():
            return (base / ref).read_text().strip()
    packed = shared / "packed-refs"
    lines = packed.read_text().splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {ref}")), None)


def _versions() -> dict[str, str]:
    versions = {DISTRIBUTION: VERSION, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


# Read at import, so that opening a run is fast: each version takes a millisecond.
_VERSIONS = _versions()
