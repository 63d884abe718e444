"""RCCDA: compare the lost metric with a virtual queue of the joules spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.control.action import Option
from greentrain.control.decision import Reason
from greentrain.control.policies.rules import (
    Rule,
    Verdict,
    check_mode,
    is_positive,
    require,
    staleness,
)
from greentrain.control.state import Past, State
from greentrain.control.update_modes import UpdateMode
from greentrain.units import format_energy


@dataclass(frozen=True, slots=True, kw_only=True)
class RCCDA(Rule):
    """Update when the lost metric outweighs the spending ahead of its allowance.

    Piaseczny et al., "RCCDA: adaptive model updates in the presence of concept drift under a
    constrained resource budget", NeurIPS 2025, arXiv 2505.24149. A virtual queue keeps the average
    spend at the allowance, ``Q(t + 1) = max(0, Q(t) + spent(t) - allowance)``. Drift plus penalty
    is least if an update is made when::

        weight * lost > cost * (Q + cost / 2 - 1)

    with cost and queue in allowances. So an update within two allowances is always made while the
    queue is empty.

    Departures: the paper estimates the loss of not updating from past inference losses. Here
    ``lost`` is the metric that the model has lost on new data since its training, 0 if unknown. The
    queue is computed from the history at each decision. It starts after the first training, which
    the paper does not count. The queue bounds the average spend only; an update that is not
    affordable is omitted.

    Args:
        weight: Weight of a loss of 1 of the metric; V of the paper over the allowance squared.
        rate_j: The allowance: joules per experience. By default the joules that the budget had per
            experience once there was a model.
        mode: The update mode.

    Raises:
        ConfigurationError: If the weight or the allowance is not positive, or the mode is ``SKIP``.
    """

    weight: float = 100.0
    rate_j: float | None = None
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        require(is_positive(self.weight), "weight", self.weight, "a number above 0")
        rate_j = self.rate_j
        valid = rate_j is None or is_positive(rate_j)
        require(valid, "rate_j", rate_j, "joules above 0, or to None")
        check_mode(self.mode)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if the lost metric outweighs its cost and the queue."""
        used_j = [each.cost_j for each in _with_model(state.history)]
        rate_j = self.rate_j
        if rate_j is None:
            rate_j = (left_j + sum(used_j)) / (state.remaining + len(used_j))
        if rate_j <= 0:  # no joules are left, and only free options are affordable
            return Verdict(update=False, reason=Reason.NOT_DUE, sentence="No allowance left")
        now = staleness(state)[-1]
        lost = "Unknown loss, counted as 0," if now is None else f"Loss of {now:.4f}"
        cost, queue = option.cost_j.mean / rate_j, _queue_j(used_j, rate_j) / rate_j
        penalty, gained = cost * (queue + cost / 2 - 1), self.weight * (now or 0.0)
        return Verdict(
            update=gained > penalty,
            reason=Reason.STALE,
            sentence=(
                f"{lost} weighs {gained:.3g} against {penalty:.3g}: {option.action} costs "
                f"{cost:.3g} allowances of {format_energy(rate_j)}, and spending is {queue:.3g} "
                "ahead"
            ),
        )


def _with_model(history: Sequence[Past]) -> Sequence[Past]:
    # Before the first training there was no model to probe.
    for index, past in enumerate(history):
        if past.metric_new is not None:
            break
        if past.mode is not UpdateMode.SKIP:
            return history[index + 1 :]
    return history


def _queue_j(used_j: Sequence[float], rate_j: float) -> float:
    queue_j = 0.0
    for each_j in used_j:
        queue_j = max(0.0, queue_j + each_j - rate_j)
    return queue_j
