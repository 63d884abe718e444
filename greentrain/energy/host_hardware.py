"""Detect a host's cards, counters and virtualisation without any driver's library."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Literal

ROOT = Path("/")
"""Root of the file system."""

NVIDIA, AMD = "0x10de", "0x1002"
"""PCI vendor numbers."""

Rapl = Literal["readable", "forbidden", "absent"]


def cards(vendor: str, root: Path | None = None) -> tuple[str, ...]:
    """Return the graphics cards of a vendor that the kernel drives, such as ``("card0",)``."""
    folders = sorted(((root or ROOT) / "sys/class/drm").glob("card[0-9]*"))
    return tuple(
        card.name
        for card in folders
        if "-" not in card.name and _text(card / "device/vendor") == vendor
    )


def rapl(root: Path | None = None) -> Rapl:
    """Return the state of the CPU's energy counters: readable, forbidden or absent."""
    counters = list(((root or ROOT) / "sys/class/powercap").glob("intel-rapl*/energy_uj"))
    if not counters:
        return "absent"
    return "readable" if any(os.access(counter, os.R_OK) for counter in counters) else "forbidden"


def container(root: Path | None = None) -> bool:
    """Return ``True`` if a file or variable shows that this process runs in a container."""
    files = (".dockerenv", "run/.containerenv")
    variables = ("container", "KUBERNETES_SERVICE_HOST")
    return any(name in os.environ for name in variables) or any(
        ((root or ROOT) / name).exists() for name in files
    )


def virtual_machine(root: Path | None = None) -> bool:
    """Return ``True`` if the kernel reports a hypervisor."""
    root = root or ROOT
    cpuinfo = _text(root / "proc/cpuinfo")
    flags = (line for line in cpuinfo.splitlines() if line.startswith("flags"))
    return "hypervisor" in next(flags, "").split() or _text(root / "sys/hypervisor/type") != ""


def apple_silicon() -> bool:
    """Return ``True`` on a Mac with an Apple chip."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
