"""The state in which an experience is decided. Metrics are oriented: higher is better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from greentrain.control.update_modes import UpdateMode

HISTORY_KEPT = 64
"""Number of earlier experiences in the history of a state, at most."""
UNKNOWN_ROOM = 0.1
"""Error of the model, as a share of the metric's unit, if no metric gives it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """The decision about an earlier experience, and its outcome. Metrics are oriented.

    Args:
        position: Number of the experience, from 0.
        mode: The update mode.
        step_fraction: Its step fraction.
        steps: Steps that were trained; with an offered method, plain ones that cost as much.
        cost_j: Joules that the update used; 0 after ``SKIP``.
        n_new: Samples that were new then.
        metric_new: The metric on them before any training on them; ``None`` if unknown.
        metric_before: The metric on held-out data before the update; ``None`` if unknown.
        metric_after: The same after it; equal to ``metric_before`` if the model did not change.
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
    def from_dict(cls, values: Mapping[str, Any]) -> Past:
        """Rebuild it from :meth:`as_dict`."""
        return cls(**{**values, "mode": UpdateMode(values["mode"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Values that are available when an experience has arrived. Metrics are oriented.

    Args:
        position: Number of the experience, from 0.
        num_experiences: Experiences that the budget has to last for.
        has_model: Whether any update has trained the model yet.
        metric_before: The metric on held-out data of all experiences seen, this one included.
        metric_new: The metric on new training data before training on it; ``None`` before there is
            a model.
        metric_new_sd: Standard error of ``metric_new``; ``None`` if unknown.
        metric_last: The metric after the last update; ``None`` before the first.
        metric_best: The best metric after any update; ``None`` before the first.
        metric_ceiling: The best possible metric; ``None`` if unknown.
        n_new: New samples, including those of skipped experiences.
        n_stored: Stored samples that an update has seen.
        n_labels: New samples that have a label; ``None`` if all have one.
        n_pending: The part of ``n_new`` that earlier, skipped experiences brought.
        warm_starts: Updates since the last full retraining.
        since_update: Experiences since the last update, this one included; 0 before the first.
        since_full: Experiences since the last full retraining, this one included; 0 before it.
        metric_past: The metric on held-out data of earlier experiences; ``None`` if not probed.
        estimated_by: The methods by which ``metric_new`` was estimated because the new data have no
            labels yet, or the reason why it could not be; empty if it was measured.
        loss_new: The loss on new data, if the model logs one; lower is better.
        loss_past: The loss on held-out data of earlier experiences, likewise.
        unseen: Share of the new samples whose class is new; ``None`` without classes.
        copies: Share of the new samples that are exact copies of samples an update has trained on;
            ``None`` if unknown.
        effort: Steps since the last full retraining, its own included, as a share of those of a
            full retraining now; ``None`` if unknown.
        last_share: Steps of the last update that was kept, as a share of those of a full
            retraining now; ``None`` if unknown.
        warm_share: Steps of a warm start at step fraction 1, as a share of those of a full
            retraining.
        shift: Distance of the new data from the old; ``None`` if not measured.
        shift_by: Name of that distance, such as ``"MMD2 of penultimate features"``.
        weight_growth: Growth of the norm of the weights since the last full retraining, as a share.
        slope: Change of the training loss in the last tenth of the last update; negative while it
            falls.
        left_j: Joules that are left for this experience and the later ones, without probes;
            ``None`` until the controller fills it in.
        history: Earlier decisions and outcomes, newest last; at most :data:`HISTORY_KEPT` of them.
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
    n_labels: int | None = None
    n_pending: int = 0
    warm_starts: int = 0
    since_update: int = 0
    since_full: int = 0
    metric_past: float | None = None
    estimated_by: str = ""
    loss_new: float | None = None
    loss_past: float | None = None
    unseen: float | None = None
    copies: float | None = None
    effort: float | None = None
    last_share: float | None = None
    warm_share: float = 0.2
    shift: float | None = None
    shift_by: str = ""
    weight_growth: float | None = None
    slope: float | None = None
    left_j: float | None = None
    history: tuple[Past, ...] = ()

    @property
    def remaining(self) -> int:
        """Number of experiences not decided yet, this one included; at least 1."""
        return max(1, self.num_experiences - self.position)

    @property
    def staleness(self) -> float:
        """Metric after the last update less the metric on the new data; 0 if unknown.

        It is shrunk by the sampling error, ``s * s**2 / (s**2 + sd**2)``. Otherwise each probe
        would find a drop to recover.
        """
        if self.metric_last is None or self.metric_new is None:
            return 0.0
        stale, sd = self.metric_last - self.metric_new, self.metric_new_sd or 0.0
        if not (math.isfinite(stale) and math.isfinite(sd)) or stale == 0:
            return 0.0
        return stale**3 / (stale**2 + sd**2)

    @property
    def drop(self) -> float:
        """Loss of the metric by the new data: staleness times their share of all data.

        It is negative if the metric on the new data is higher, as on data that were trained on
        before; 0 if unknown.
        """
        return self.staleness * self.n_new / max(1, self.n_new + self.n_stored)

    @property
    def room(self) -> float | None:
        """Best possible metric less the metric of the last update; ``None`` if unknown."""
        if self.metric_ceiling is None or self.metric_last is None:
            return None
        room = self.metric_ceiling - self.metric_last
        return max(0.0, room) if math.isfinite(room) else None

    @property
    def unit(self) -> float:
        """Unit of the metric, in which gains are compared with constants such as a minimum gain.

        It is 1 for a metric with the best possible value 1, such as accuracy. A loss has no such
        unit, so its present value counts as an error of :data:`UNKNOWN_ROOM`. A metric above 1,
        such as an accuracy in percent, is its own unit. So the scale of a loss changes no decision.

        Example:
            >>> loss = State(position=1, num_experiences=2, has_model=True, metric_before=-0.5,
            ...     metric_last=-0.5, metric_ceiling=0.0)
            >>> loss.unit, loss.room
            (5.0, 0.5)
        """
        last = self.metric_last
        if last is None or not math.isfinite(last) or last == 0 or self.metric_ceiling == 1:
            return 1.0
        return abs(last) / UNKNOWN_ROOM if self.metric_ceiling == 0 else max(1.0, abs(last))

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values; those about labels only if some are missing."""
        values = asdict(self)
        if not self.estimated_by:
            del values["estimated_by"]
        if self.n_labels is None:
            del values["n_labels"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> State:
        """Rebuild a state from :meth:`as_dict`, also from JSON of a release with other fields."""
        names = {each.name for each in fields(cls)}
        history = tuple(Past.from_dict(past) for past in values.get("history", ()))
        known = {name: value for name, value in values.items() if name in names}
        return cls(**{**known, "history": history})
