"""What the operating system tells about this host without any driver's library."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Literal

ROOT = Path("/")
"""Where the file system begins."""

NVIDIA, AMD = "0x10de", "0x1002"
"""PCI numbers of those who make cards."""

Rapl = Literal["readable", "forbidden", "absent"]


def cards(vendor: str, root: Path | None = None) -> tuple[str, ...]:
    """Return the graphics cards of a maker that the kernel drives, such as ``("card0",)``."""
    root = ROOT if root is None else root
    found = []
    for card in sorted((root / "sys/class/drm").glob("card[0-9]*")):
        if "-" not in card.name and _text(card / "device/vendor") == vendor:
            found.append(card.name)
    return tuple(found)


def rapl(root: Path | None = None) -> Rapl:
    """Tell whether the CPU's energy counters can be read, are there but forbidden, or are not."""
    root = ROOT if root is None else root
    counters = list((root / "sys/class/powercap").glob("intel-rapl*/energy_uj"))
    if not counters:
        return "absent"
    return "readable" if any(os.access(counter, os.R_OK) for counter in counters) else "forbidden"


def container(root: Path | None = None) -> bool:
    """Tell whether this process runs in a container, as far as containers say so."""
    root = ROOT if root is None else root
    marks = (root / ".dockerenv", root / "run/.containerenv")
    told = "container" in os.environ or "KUBERNETES_SERVICE_HOST" in os.environ
    return told or any(mark.exists() for mark in marks)


def virtual_machine(root: Path | None = None) -> bool:
    """Tell whether the kernel knows of a hypervisor below it."""
    root = ROOT if root is None else root
    cpuinfo = _text(root / "proc/cpuinfo")
    flags = (line for line in cpuinfo.splitlines() if line.startswith("flags"))
    return "hypervisor" in next(flags, "").split() or _text(root / "sys/hypervisor/type") != ""


def apple_silicon() -> bool:
    """Tell whether this is a Mac with a chip of Apple's own."""
    return sys.platform == "darwin" and platform.machine() == "arm64"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
