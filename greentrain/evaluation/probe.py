"""Look at the current model: forward passes only, few enough to be paid for from what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from greentrain.evaluation.held_out import KEPT, HeldOut
from greentrain.evaluation.measured import Measured, together
from greentrain.evaluation.probe_size import probe_size
from greentrain.evaluation.signals.drift import Shift
from greentrain.evaluation.signals.features import shift_between
from greentrain.evaluation.signals.unseen_classes import Seen, labels_in, unseen_share
from greentrain.memory import size
from greentrain.payments import MIN_RESERVATION_J
from greentrain.streams import Experience
from greentrain.training.updater import Updater

MOST_NEW = 512
FEWEST = 48
"""Samples below which a look says nothing."""
FOR_A_SHIFT = 256
"""Samples of a look from which on features are compared: that costs as much as they do."""
JUDGED_SHARE = 0.05
"""Share of an update that its validation may draw."""
FEWEST_JUDGED = 256
_SURE = 3.0
_LOOKS = 3
_WITHOUT_A_TRAINER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeResult:
    """What a look at the current model found.

    Args:
        held: The held-out samples that were looked at, past ones and those of the experience at
            hand: a successor is compared on the same ones.
        past: The metric on the past ones; ``None`` where there are none.
        measured: The metric on all of them.
        new: The metric on a sample of the new training data.
        unseen: Share of the new samples that are of classes never seen; ``None`` if unknown.
        shift: How far the new data lie from the old; ``None`` if unknown.
        metric_current: The metric on the held-out data of the experience at hand alone; ``None``
            where nobody asked.
    """

    held: tuple[Dataset[Any], ...]
    past: Measured | None
    measured: Measured
    new: Measured
    unseen: float | None = None
    shift: Shift | None = None
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

    Attributes:
        validation_j: Joules that the last validation after an update drew; 0 before any.
    """

    def __init__(self, updater: Updater, held_out: HeldOut, *, seed: int) -> None:
        self.validation_j = 0.0
        self._updater = updater
        self._held_out = held_out
        self._seen = Seen()
        self._random = torch.Generator().manual_seed(seed)
        self._validated_j: float | None = None
        self._looked_j: list[float] = []

    def affordable(self, left_per_experience_j: float) -> int:
        """Return how many samples may be looked at, new and held-out ones together.

        0 where fewer than 48 would be, or nothing was measured yet that says what they draw.
        """
        sample_j = self._sample_j()
        if sample_j is None:
            return 0
        return probe_size(
            budget_j=left_per_experience_j, sample_j=sample_j, floor=FEWEST, cap=MOST_NEW + KEPT
        )

    def look_j(self, samples: int) -> float:
        """Return joules that looking at so many samples is expected to draw."""
        return samples * (self._sample_j() or 0.0)

    def bound_j(self, samples: int) -> float:
        """Return joules that looking at so many samples hardly ever passes."""
        dearest_j = max([self._validated_j or 0.0, *self._looked_j])
        return max(_SURE * max(samples, FEWEST) * dearest_j, MIN_RESERVATION_J)

    def expected_j(self, samples: int) -> float:
        """Return joules that a validation on so many samples is expected to draw; 0 if unknown."""
        return samples * (self._validated_j or 0.0)

    def judged(self, experience: Experience, update_j: float) -> Dataset[Any]:
        """Return what an update that may draw so many joules is validated on.

        All held-out data, or a uniform sample of them, where looking at all of them would draw more
        than a twentieth of the update; 256 of them at least.
        """
        judged_on = self._held_out.judged_on(experience)
        if not self._validated_j:
            return judged_on
        most = max(FEWEST_JUDGED, int(JUDGED_SHARE * update_j / self._validated_j))
        return judged_on if size(judged_on) <= most else self._sample(judged_on, most)

    def look(
        self,
        experience: Experience,
        new: Dataset[Any],
        samples: int,
        *,
        separately: bool = False,
    ) -> ProbeResult:
        """Look at the current model.

        Args:
            experience: The experience at hand.
            new: New training data.
            samples: How many samples to look at: at most half of them, and 512, are new ones.
            separately: Whether to look at the experience's held-out data by themselves, too.
        """
        fresh = self._sample(new, min(samples // 2, MOST_NEW))
        past, present = self._held_out.past, experience.val
        rest = samples - size(fresh)
        n_past = round(rest * size(past) / max(1, size(past) + size(present)))
        held = [self._sample(past, n_past), self._sample(present, rest - n_past)]
        held = [each for each in held if size(each)]
        told = self._updater.measured([*held, fresh], features=samples >= FOR_A_SHIFT)
        has_past = n_past > 0 and size(past) > 0
        return ProbeResult(
            held=tuple(held),
            past=told[0] if has_past else None,
            measured=together(told[:-1]),
            new=told[-1],
            unseen=unseen_share(labels_in(fresh), self._seen),
            shift=shift_between(told[0].features, told[-1].features) if has_past else None,
            metric_current=self._updater.measure(present) if separately else None,
        )

    def take(self, experience: Experience) -> None:
        """Take an experience up: its classes are seen now."""
        self._seen.take(labels_in(experience.train))

    def drew(self, samples: int, energy_j: float) -> None:
        """Take up what a look at so many samples drew."""
        if samples:
            self._looked_j = [*self._looked_j, energy_j / samples][-_LOOKS:]

    def validated(self, samples: int, energy_j: float) -> None:
        """Take up what a validation drew."""
        self.validation_j = energy_j
        if samples:
            self._validated_j = energy_j / samples

    def state_dict(self) -> dict[str, Any]:
        """Return what looks drew last, the classes seen, and where the random numbers are."""
        return {
            "validated_j": self._validated_j,
            "looked_j": list(self._looked_j),
            "validation_j": self.validation_j,
            "seen": self._seen.state_dict(),
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._validated_j, self._looked_j = state["validated_j"], list(state["looked_j"])
        self.validation_j = state["validation_j"]
        self._seen.load_state_dict(state["seen"])
        self._random.set_state(state["random"])

    def _sample_j(self) -> float | None:
        """Joules per sample: the least of the last looks, as the first one of a process is dearer.

        Before any, what a validation drew, which has a Trainer to start and so says too much;
        ``None`` before that.
        """
        if self._looked_j:
            return min(self._looked_j)
        return None if self._validated_j is None else _WITHOUT_A_TRAINER * self._validated_j

    def _sample(self, dataset: Dataset[Any], count: int) -> Dataset[Any]:
        chosen = torch.randperm(size(dataset), generator=self._random)[:count]
        return Subset(dataset, chosen.tolist())
