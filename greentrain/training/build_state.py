"""What is known when an experience has arrived, as the state that the controller decides in."""

from __future__ import annotations

from typing import Any

from greentrain.control import State
from greentrain.decisions.stream_budget import StreamBudget
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.evaluation.probe import ProbeResult
from greentrain.training.data import UpdateData
from greentrain.training.updater import Updater


def state_of(
    look: ProbeResult | None,
    batch: UpdateData,
    funds: StreamBudget,
    *,
    updater: Updater,
    progress: MetricHistory,
    slope: float | None,
) -> State:
    """Return what is known.

    Args:
        look: What a look at the current model found; ``None`` where none was made.
        batch: What an update may train on.
        funds: What may be spent, and for how many experiences.
        updater: Has the current model.
        progress: What updates reached.
        slope: Slope of the last learning curve.
    """
    return State(
        position=funds.position,
        num_experiences=funds.position + funds.expected(),
        has_model=updater.trained,
        metric_last=progress.last,
        metric_best=progress.best,
        metric_ceiling=progress.ceiling(),
        n_new=batch.n_new,
        n_stored=batch.n_stored,
        n_pending=batch.n_pending,
        warm_starts=updater.warm_starts,
        weight_growth=updater.weight_growth,
        slope=slope,
        **({"metric_before": None} if look is None else _seen(look, progress)),
    )


def _seen(look: ProbeResult, progress: MetricHistory) -> dict[str, Any]:
    """Return what a look found, by the fields of a state."""
    past = look.past
    return {
        "metric_before": progress.oriented(look.metric),
        "metric_new": progress.oriented(look.new.value),
        "metric_new_sd": look.new.standard_error,
        "metric_past": None if past is None else progress.oriented(past.value),
        "loss_new": look.new.loss,
        "loss_past": None if past is None else past.loss,
        "unseen": look.unseen,
        "shift": None if look.shift is None else look.shift.value,
        "shift_by": "" if look.shift is None else look.shift.by,
    }
