"""What all processes of a fit have drawn up to now, in joules and grams."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from greentrain.callbacks.meter_lease import Lease
from greentrain.carbon import CarbonAccount
from greentrain.units import utc_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What all processes have drawn since a beginning; each of them has the same figures.

    Args:
        energy_j: Joules of what could be measured.
        carbon_g: Grams of CO2 equivalent of the same.
        seconds: Seconds since the beginning.
        g_per_j: Grams that a joule may stand for in the hour to come.
        measured: Whether anything can be measured at all.
        gaps: Whether a source that was measured cannot be read.
    """

    energy_j: float = 0.0
    carbon_g: float = 0.0
    seconds: float = 0.0
    g_per_j: float = 0.0
    measured: bool = True
    gaps: bool = False


class Use:
    """Read one fit's meter, from its beginning on.

    Args:
        trainer: The Trainer.
        lease: Its meter.
        carbon: How joules become grams; without zone or intensity there are none.

    Attributes:
        g_per_j: Grams that a joule may stand for in the hour to come, as far as it is known, or as
            it was known last; ``None`` if it never was.
    """

    def __init__(self, trainer: Any, lease: Lease, carbon: CarbonAccount) -> None:
        self._trainer = trainer
        self._recorder = lease.recorder
        self._carbon = carbon
        self._start = self._recorder.read()
        self._joules: dict[str, float] = {}
        self._seconds = self._energy_j = self._grams = 0.0
        self._at = utc_now()
        self.g_per_j = carbon.upper_g_per_j(self._at)

    def look(self) -> Drawn:
        """Read the meter; with several processes, each of them has to."""
        own = self._own()
        if self._trainer.world_size == 1:
            return own
        figures = torch.tensor(
            [
                *(own.energy_j, own.carbon_g),
                *(own.seconds, own.g_per_j, float(own.measured), float(own.gaps)),
            ],
            dtype=torch.float64,
        ).to(self._trainer.strategy.root_device)
        figures = self._trainer.strategy.reduce(figures, reduce_op="sum")
        energy_j, carbon_g, seconds, g_per_j, measured, gaps = figures.tolist()
        return Drawn(
            energy_j=energy_j,
            carbon_g=carbon_g,
            seconds=seconds / self._trainer.world_size,
            g_per_j=g_per_j / self._trainer.world_size,
            measured=measured > 0,
            gaps=gaps > 0,
        )

    def _own(self) -> Drawn:
        drawn = self._recorder.read() - self._start
        known = {name: joules for name, joules in drawn.energy_j.items() if joules is not None}
        gaps = bool(self._joules.keys() - known.keys())
        self._joules |= known
        self._seconds = max(self._seconds, drawn.duration_s)
        energy_j, now = math.fsum(self._joules.values()), utc_now()
        self._grams += self._grams_of(energy_j - self._energy_j, now)
        self._energy_j, self._at = energy_j, now
        g_per_j = self._carbon.upper_g_per_j(now)
        self.g_per_j = self.g_per_j if g_per_j is None else g_per_j
        return Drawn(
            energy_j=energy_j,
            carbon_g=self._grams,
            seconds=self._seconds,
            g_per_j=self.g_per_j or 0.0,
            measured=bool(self._joules),
            gaps=gaps,
        )

    def _grams_of(self, energy_j: float, now: datetime) -> float:
        """Return the grams of joules drawn since the last look; without an intensity, at most."""
        grams = self._carbon.emissions(energy_j, self._at, now).grams
        return energy_j * (self.g_per_j or 0.0) if grams is None else grams
