"""Where a run took place: versions and hardware, nothing that names a person or a path."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
from importlib.metadata import PackageNotFoundError, version

from greentrain._about import DISTRIBUTION, VERSION

_PACKAGES = ("torch", "pytorch-lightning", "lightning", "codecarbon", "nvidia-ml-py", "mlflow")


def environment() -> dict[str, object]:
    """Return versions, platform, cores and a hash of the host's name."""
    return {
        "versions": dict(_VERSIONS),
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "host": host_hash(),
    }


def host_hash() -> str:
    """Return a hash of the host's name, which tells hosts apart and names none."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12]


def _versions() -> dict[str, str]:
    versions = {DISTRIBUTION: VERSION, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


# Looked up when this is imported, and not while training waits: each takes a millisecond.
_VERSIONS = _versions()
