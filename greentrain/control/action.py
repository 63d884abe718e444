"""What can be done with an experience, and what is known when that is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from greentrain.errors import ConfigurationError

HISTORY_KEPT = 64
"""Earlier experiences that a policy is told of."""


class UpdateMode(StrEnum):
    """How a model is brought up to date.

    ``SKIP`` trains nothing; ``REPLAY`` trains on new data mixed half and half with stored data;
    ``WARM_START`` goes on from the last weights on all data; ``FULL_RETRAIN`` starts from fresh
    weights on all data.
    """

    SKIP = "SKIP"
    REPLAY = "REPLAY"
    WARM_START = "WARM_START"
    FULL_RETRAIN = "FULL_RETRAIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An update mode and how hard.

    Args:
        mode: The update mode.
        step_fraction: Share of the mode's usual steps, in (0, 1]; 0 for ``SKIP``.

    Raises:
        ConfigurationError: If the effort is out of range.
    """

    mode: UpdateMode
    step_fraction: float = 1.0

    def __post_init__(self) -> None:
        allowed = (
            self.step_fraction == 0 if self.mode is UpdateMode.SKIP else 0 < self.step_fraction <= 1
        )
        if not allowed:
            raise ConfigurationError(
                f"step_fraction is {self.step_fraction!r} for {self.mode}; it is 0 for SKIP, else above 0 up to 1"
            )

    def __str__(self) -> str:
        return (
            str(self.mode)
            if self.step_fraction in (0, 1)
            else f"{self.mode} at {self.step_fraction:.0%}"
        )


SKIP = Action(mode=UpdateMode.SKIP, step_fraction=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An action that is feasible now, with the optimizer steps that it would take."""

    action: Action
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A predicted value with its standard deviation and an upper bound that is rarely passed."""

    mean: float
    sd: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A candidate with what it would cost, in joules, and gain, in units of the metric."""

    candidate: Candidate
    cost_j: Estimate
    gain: Estimate

    @property
    def action(self) -> Action:
        """The candidate's action."""
        return self.candidate.action


Table = tuple[tuple[float, float], ...]
"""The (joules, gain) of every option at one experience, ``SKIP`` included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What was decided about an earlier experience, and what came of it. Metrics are oriented.

    Args:
        position: Number of the experience, from 0.
        mode: The update mode.
        step_fraction: Its effort.
        steps: Steps that were trained.
        cost_j: Joules that the update drew; 0 after ``SKIP``.
        n_new: Samples that were new then.
        metric_new: The metric on them before any training on them; ``None`` if unknown.
        metric_before: The metric on held-out data before the update; ``None`` if unknown.
        metric_after: The same after it; equal to ``metric_before`` where the model stayed.
    """

    position: int
    mode: UpdateMode
    step_fraction: float
    steps: int
    cost_j: float
    n_new: int
    metric_new: float | None
    metric_before: float | None
    metric_after: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {**asdict(self), "mode": str(self.mode)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Past:
        """Rebuild it from :meth:`as_dict`."""
        return cls(**{**fields, "mode": UpdateMode(fields["mode"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known when an experience has arrived. Metrics are oriented: higher is better.

    Args:
        position: Number of the experience, from 0.
        num_experiences: Experiences that the budget has to last for.
        has_model: Whether any update has trained the model yet.
        metric_before: The metric on held-out data of all experiences seen, this one included.
        metric_new: The metric on new training data before training on it; ``None`` before there is
            a model.
        metric_new_sd: Standard error of ``metric_new``; ``None`` if unknown.
        metric_last: What the last update reached; ``None`` before the first.
        metric_best: The best that any update has reached; ``None`` before the first.
        metric_ceiling: The best that can be reached at all; ``None`` where that is not known.
        n_new: New samples, those of skipped experiences included.
        n_stored: Stored samples that an update has seen.
        n_pending: Those of the new samples that earlier, skipped experiences brought.
        warm_starts: Updates since the last full retraining.
        since_update: Experiences since the last update, this one included; 0 before the first.
        since_full: Experiences since the last full retraining, this one included; 0 before it.
        metric_past: The metric on held-out data of earlier experiences; ``None`` if not looked at.
        loss_new: The loss on new data, where the model logs one; lower is better.
        loss_past: The loss on held-out data of earlier experiences, likewise.
        unseen: Share of the new samples that are of classes never seen; ``None`` without classes.
        shift: How far the new data lie from the old; ``None`` where that was not measured.
        shift_by: What ``shift`` is, such as ``"MMD2 of penultimate features"``.
        weight_growth: Growth of the norm of the weights since the last full retraining, as a share.
        slope: What the training loss moved in the last tenth of the last update: negative while it
            falls.
        left_j: Joules that may be spent on this experience and those to come, looks not included;
            ``None`` before the controller has asked.
        tables: What experiences to come are expected to offer.
        table_weights: How many experiences each of the tables stands for.
        history: What was decided about earlier experiences, newest last; at most
            :data:`HISTORY_KEPT` of them.
    """

    position: int
    num_experiences: int
    has_model: bool
    metric_before: float | None
    metric_new: float | None = None
    metric_new_sd: float | None = None
    metric_last: float | None = None
    metric_best: float | None = None
    metric_ceiling: float | None = None
    n_new: int = 0
    n_stored: int = 0
    n_pending: int = 0
    warm_starts: int = 0
    since_update: int = 0
    since_full: int = 0
    metric_past: float | None = None
    loss_new: float | None = None
    loss_past: float | None = None
    unseen: float | None = None
    shift: float | None = None
    shift_by: str = ""
    weight_growth: float | None = None
    slope: float | None = None
    left_j: float | None = None
    tables: tuple[Table, ...] = ()
    table_weights: tuple[float, ...] = ()
    history: tuple[Past, ...] = ()

    @property
    def remaining(self) -> int:
        """Experiences still to be decided, this one included; at least 1."""
        return max(1, self.num_experiences - self.position)

    @property
    def staleness(self) -> float:
        """How much worse the new data go than the last model went; 0 where it is unknown.

        Shrunk by what a sample of that size scatters, ``s * s**2 / (s**2 + sd**2)``: otherwise each
        look would find something to make up for.
        """
        if self.metric_last is None or self.metric_new is None:
            return 0.0
        stale, sd = self.metric_last - self.metric_new, self.metric_new_sd or 0.0
        if not (math.isfinite(stale) and math.isfinite(sd)) or stale == 0:
            return 0.0
        return stale**3 / (stale**2 + sd**2)

    @property
    def drop(self) -> float:
        """What the new data cost the metric: how much worse they go, times their share of all data.

        Negative where the new data go better than usual, as data do that were trained on before; 0
        where it is unknown.
        """
        return self.staleness * self.n_new / max(1, self.n_new + self.n_stored)

    @property
    def shortfall(self) -> float:
        """How far the last update stayed below the best one; 0 where that is unknown."""
        if self.metric_last is None or self.metric_best is None:
            return 0.0
        return self.metric_best - self.metric_last

    @property
    def room(self) -> float | None:
        """How far the last model stays below the best that can be reached; ``None`` if unknown."""
        if self.metric_ceiling is None or self.metric_last is None:
            return None
        room = self.metric_ceiling - self.metric_last
        return max(0.0, room) if math.isfinite(room) else None

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for the ledger."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> State:
        """Rebuild a state from :meth:`as_dict`, also after a way through JSON."""
        tables = tuple(tuple((cost, gain) for cost, gain in table) for table in fields["tables"])
        weights = tuple(fields["table_weights"])
        history = tuple(Past.from_dict(past) for past in fields["history"])
        return cls(**{**fields, "tables": tables, "table_weights": weights, "history": history})
