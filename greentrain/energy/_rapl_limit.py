"""Read the power limit of CPU packages from the kernel."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def rapl_limit_w(zones: Sequence[Path]) -> float | None:
    """Return the power limit of CPU packages, which the kernel's powercap files give.

    A package may use more than its long-term limit for a while, so its highest limit counts.

    Args:
        zones: The folder of each package.

    Returns:
        Watts of all packages; ``None`` if the limits of one are off or cannot be read.
    """
    total_w = 0.0
    for zone in zones:
        try:
            enabled = zone / "enabled"
            if enabled.exists() and enabled.read_text().strip() == "0":
                return None
            limits = [float(file.read_text()) for file in zone.glob("constraint_*_power_limit_uw")]
        except (OSError, ValueError):
            return None
        if not any(limit > 0 for limit in limits):
            return None
        total_w += max(limits) / 1e6
    return total_w or None
