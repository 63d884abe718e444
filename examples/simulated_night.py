"""A night that takes a second, for ``wait_for_the_night.py --quick``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback

from greentrain.energy import ConstantMeter

DIRTY, CLEAN = 450, 120
"""Simulated intensities by day and by night, in g/kWh."""


class SimulatedNight(Callback):
    """A clock with five minutes for each batch, and a meter of 300 W, or 30 W while waiting."""

    def __init__(self) -> None:
        self.now = self.began = datetime(2026, 12, 2, 18, tzinfo=UTC)
        self.waited_s = 0.0

    def on_train_batch_start(self, *arguments: Any) -> None:
        """Let time pass."""
        self.now += timedelta(minutes=5)

    def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        self.now += timedelta(seconds=seconds)
        self.waited_s += seconds

    def metered_s(self) -> float:
        """Return seconds, of which those of waiting count a tenth."""
        return (self.now - self.began).total_seconds() - 0.9 * self.waited_s

    def options(self) -> dict[str, Any]:
        """Return the arguments of a pause that is simulated."""
        meter = ConstantMeter(300.0, clock=self.metered_s)
        return {"clock": lambda: self.now, "sleep": self.sleep, "meter": meter}

    def write(self, path: Path) -> Path:
        """Write the intensities of three days to a file."""
        rows = ["datetime_utc,carbon_intensity"]
        for number in range(72):
            hour = self.began.replace(hour=0) + timedelta(hours=number - 24)
            night = hour.hour >= 22 or hour.hour < 6
            rows.append(f"{hour.isoformat()},{CLEAN if night else DIRTY}")
        path.write_text("\n".join(rows), encoding="utf-8")
        return path
