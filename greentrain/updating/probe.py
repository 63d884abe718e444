"""Look at the current model: forward passes only, paid for like everything else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Subset

from greentrain.budget import Account, Balance
from greentrain.energy import WindowRecorder
from greentrain.memory import size
from greentrain.streams import Experience
from greentrain.updating.held_out import HeldOut
from greentrain.updating.payments import MIN_RESERVATION_J, Payment, paying
from greentrain.updating.reading import Measured
from greentrain.updating.updater import Updater

FIRST_SHARE = 0.1
"""Share of what is left that the first look may draw, when nothing says yet what it costs."""
FIRST_AT_LEAST_J = 1.0
"""Joules below which the first look is not tried: a tenth of a second of a small computer."""
_SURE = 2.0
_NEW = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at the current model found.

    Args:
        measured: The metric on held-out data, those of the experience at hand included.
        metric_current: The metric on the held-out data of the experience at hand alone; ``None``
            where nobody asked.
        metric_new: The metric on new training data, before training on them; ``None`` where the
            model is not trained yet.
        energy_j: Joules that the look drew, and a calibration where there was one.
        again_j: Joules that looking again would draw.
        overrun_j: The part of ``energy_j`` beyond what was reserved.
    """

    measured: Measured
    metric_new: float | None
    energy_j: float
    again_j: float
    metric_current: float | None = None
    overrun_j: float = 0.0

    @property
    def metric(self) -> float:
        """The metric on held-out data."""
        return self.measured.value

    def plus(self, payment: Payment) -> Look:
        """Return the look with something else that was paid for the same experience."""
        return dataclasses.replace(
            self,
            energy_j=self.energy_j + payment.actual_j,
            overrun_j=self.overrun_j + payment.overrun_j,
        )


class Probe:
    """Measure the metric on held-out data, and know what that draws.

    New training data are looked at in a sample, so that a look costs the same however long the
    stream is.

    Args:
        updater: Has the current model, and measures it.
        held_out: What it is judged on.
        seed: Seed of what is looked at of new data.
    """

    def __init__(self, updater: Updater, held_out: HeldOut, *, seed: int) -> None:
        self._updater = updater
        self._held_out = held_out
        self._random = torch.Generator().manual_seed(seed)
        self._drawn_j: float | None = None
        self._samples = 0

    def look(
        self,
        experience: Experience,
        new: Dataset[Any] | None,
        recorder: WindowRecorder,
        account: Account,
        *,
        separately: bool = False,
    ) -> Look | None:
        """Look at the current model, or return ``None`` if the budget cannot bear it.

        Args:
            experience: The experience at hand.
            new: New training data to look at in a sample; ``None`` for none of them.
            recorder: Records the windows.
            account: Pays.
            separately: Whether to look at the experience's held-out data by themselves, too.
        """
        judged_on = self._held_out.judged_on(experience)
        sample = None if new is None else self._sample(new)
        samples = size(judged_on) + (0 if sample is None else size(sample))
        samples += size(experience.val) if separately else 0
        reserved_j = self._reserve_j(samples, account.balance())
        if reserved_j is None:
            return None
        reservation = account.reserve(reserved_j, f"look at {experience.id}")
        with paying(account, recorder, reserved_j=reserved_j, reservation=reservation) as payment:
            if self._drawn_j is None:  # the first look draws what only the first one ever draws
                with recorder.phase("probe"):
                    self._updater.measured(judged_on)
            before_j = payment.drawn.total_j or 0.0
            with recorder.phase("probe"):
                measured = self._updater.measured(judged_on)
                metric_new = None if sample is None else self._updater.measure(sample)
                current = self._updater.measure(experience.val) if separately else None
        self._drawn_j, self._samples = payment.actual_j - before_j, samples
        return Look(
            measured=measured,
            metric_new=metric_new,
            energy_j=payment.actual_j,
            again_j=self._drawn_j,
            metric_current=current,
            overrun_j=payment.overrun_j,
        )

    def state_dict(self) -> dict[str, Any]:
        """Return what a look drew last, and where the random numbers are."""
        return {
            "drawn_j": self._drawn_j,
            "samples": self._samples,
            "random": self._random.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self._drawn_j, self._samples = state["drawn_j"], state["samples"]
        self._random.set_state(state["random"])

    def _sample(self, dataset: Dataset[Any]) -> Dataset[Any]:
        chosen = torch.randperm(size(dataset), generator=self._random)[:_NEW]
        return Subset(dataset, chosen.tolist())

    def _reserve_j(self, samples: int, balance: Balance) -> float | None:
        if self._drawn_j is None:
            first_j = FIRST_SHARE * balance.left_j
            return first_j if first_j >= FIRST_AT_LEAST_J else None
        growth = max(1.0, samples / self._samples)
        bound_j = max(_SURE * growth * self._drawn_j, MIN_RESERVATION_J)
        return bound_j if bound_j <= balance.left_j else None
