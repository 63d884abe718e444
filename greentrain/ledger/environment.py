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
    versions = {DISTRIBUTION: VERSION, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "versions": versions,
        "platform": sys.platform,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "host": hashlib.sha256(socket.gethostname().encode()).hexdigest()[:12],
    }
