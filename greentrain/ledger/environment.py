"""Describe the versions and hardware of a run, without names of people or paths.

Hosts have names in a cluster only: see :mod:`greentrain.ledger.placement`. Nothing here raises an
error or waits for long, because it describes a run and must not end it.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import socket
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Thread
from typing import TypeVar

from greentrain._about import DISTRIBUTION, VERSION
from greentrain.ledger.git_files import checked_out
from greentrain.ledger.placement import placement

_DRIVER = Path("/proc/driver/nvidia/version")
_WAIT_S = 2.0
"""Longest wait for the files of git: a folder may be on a server that does not respond."""
_PACKAGES = ("torch", "pytorch-lightning", "lightning", "codecarbon", "nvidia-ml-py", "mlflow")


_Fact = TypeVar("_Fact")


def environment() -> dict[str, object]:
    """Return versions, platform, cores, the current commit, and a hash of the host's name.

    Facts that cannot be read are ``None``. The commit is that of the current folder. In a cluster,
    ``where`` has the places of :func:`greentrain.ledger.placement.placement`.
    """
    where = placement()
    return {
        "versions": dict(_VERSIONS),
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "host": host_hash(),
        **({"where": where} if where else {}),
        "nvidia_driver": nvidia_driver(),
        "git_commit": _within_seconds(lambda: git_commit(Path.cwd())),
    }


def host_hash(name: str | None = None) -> str:
    """Return a hash of a host's name, which distinguishes hosts without naming them.

    Args:
        name: The name; that of this host unless given.
    """
    name = socket.gethostname() if name is None else name
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:12]


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
    show. Any user may put a ``.git`` into a parent such as ``/tmp``, so its files are not trusted:
    see :mod:`greentrain.ledger.git_files`.
    """
    try:
        for place in (folder, *folder.parents):
            if (place / ".git").exists():
                return checked_out(place / ".git")
    except Exception:  # such as NUL in a name; a run needs no commit
        return None
    return None


def _within_seconds(read: Callable[[], _Fact | None]) -> _Fact | None:
    """Return the result of a function; ``None`` if it fails or takes too long."""
    found: list[_Fact | None] = []

    def run() -> None:
        try:
            found.append(read())
        except Exception:  # such as a current folder that was deleted
            found.append(None)

    thread = Thread(target=run, name="greentrain-environment", daemon=True)
    thread.start()
    thread.join(_WAIT_S)
    return found[0] if found else None


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
