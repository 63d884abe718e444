"""Look at the current model: forward passes only, few enough to be paid for from what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from greentrain.memory import size
from greentrain.streams import Experience
from greentrain.updating.held_out import HeldOut
from greentrain.updating.reading import Measured
from greentrain.updating.updater import Updater

SHARE = 0.01
"""Share of what is left for an experience that a look at it may draw."""
MOST_NEW = 512
FEWEST = 32
"""Samples below which a look says nothing."""
_SURE = 3.0
_FEATURES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at the current model found.

    Args:
        held: The held-out samples that were looked at, in their order: a successor is compared on
            the same ones.
        measured: The metric on them.
        new: The metric on a sample of the new training data.
        metric_current: The metric on the held-out data of the experience at hand alone; ``None``
            where nobody asked.
    """

    held: Dataset[Any]
    measured: Measured
    new: Measured
    metric_current: float | None = None

    @property
    def metric(self) -> float:
        """The metric on held-out data."""
        return self.measured.value

    @property
    def samples(self) -> int:
        """How many samples were looked at."""
        return self.measured.samples + self.new.samples


class Probe:
    """Choose how much can be looked at, look, and know what that draws.

    Args:
        updater: Has the current model, and measures it.
        held_out: What it is judged on.
        seed: Seed of what is looked at.
    """

    def __init__(self, updater: Updater, held_out: HeldOut, *, seed: int) -> None:
        self._updater = updater
        self._held_out = held_out
        self._random = torch.Generator().manual_seed(seed)
        self._sample_j: float | None = None
        self._validation_j: float | None = None

    def affordable(self, left_per_experience_j: float) -> int:
        """Return how many samples may be looked at, new and held-out ones together.

        0 where fewer than 64 would be, or nothing was measured yet that says what they draw.
        """
        if not self._sample_j:
            return 0
        most = int(SHARE * left_per_experience_j / self._sample_j)
        return most if most >= 2 * FEWEST else 0

    def look_j(self, samples: int) -> float:
        """Return joules that looking at so many samples is expected to draw."""
        return samples * (self._sample_j or 0.0)

    def bound_j(self, samples: int) -> float:
        """Return joules that looking at so many samples hardly ever passes."""
        return _SURE * self.look_j(samples)

    @property
    def validation_j(self) -> float:
        """Joules that the last validation of a whole model drew; 0 before any."""
        return self._validation_j or 0.0

    def look(
        self,
        experience: Experience,
        new: Dataset[Any],
        samples: int,
        *,
        separately: bool = False,
    ) -> Look:
        """Look at the current model.

        Args:
            experience: The experience at hand.
            new: New training data.
            samples: How many samples to look at: at most half of them, and 512, are new ones.
            separately: Whether to look at the experience's held-out data by themselves, too.
        """
        fresh = self._sample(new, min(samples // 2, MOST_NEW))
        judged_on = self._held_out.judged_on(experience)
        held = self._sample(judged_on, samples - size(fresh))
        measured, measured_new = self._updater.measured([held, fresh])
        current = self._updater.measure(experience.val) if separately else None
        return Look(held=held, measured=measured, new=measured_new, metric_current=current)

    def drew(self, samples: int, energy_j: float) -> None:
        """Take up what a look at so many samples drew."""
        if samples and energy_j > 0:
            self._sample_j = energy_j / samples

    def validated(self, samples: int, energy_j: float) -> None:
        """Take up what a validation drew: before the first look, the only hint of what it will."""
        self._validation_j = energy_j
        if self._sample_j is None:
            self.drew(samples, energy_j)

    def state_dict(self) -> dict[str, Any]:
        """Return what looks drew last, and where the random numbers are."""
        return {
            "sample_j": self._sample_j,
            "validation_j": self._validation_j,
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._sample_j, self._validation_j = state["sample_j"], state["validation_j"]
        self._random.set_state(state["random"])

    def _sample(self, dataset: Dataset[Any], count: int) -> Dataset[Any]:
        chosen: Sequence[int] = torch.randperm(size(dataset), generator=self._random)[
            :count
        ].tolist()
        return Subset(dataset, chosen)
