"""RCCDA: weigh what the model has lost against a virtual queue of what was spent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import Option, Past, State, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.policies.rules import Verdict, carry_out, check_mode, not_due, staleness
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy


@dataclass(frozen=True, slots=True, kw_only=True)
class RCCDA:
    """Update when what was lost outweighs how far spending is ahead of its allowance.

    Piaseczny et al., "RCCDA: adaptive model updates in the presence of concept drift under a
    constrained resource budget", NeurIPS 2025, arXiv 2505.24149. A virtual queue keeps the average
    spend at the allowance, ``Q(t + 1) = max(0, Q(t) + spent(t) - allowance)``, and drift plus
    penalty is least if an update is made where::

        weight * lost > cost * (Q + cost / 2 - 1)

    with cost and queue in allowances. An update within two allowances is so always made while the
    queue is empty.

    Departures: the paper estimates the loss of not updating from past inference losses; here
    ``lost`` is what the model has lost of the metric on new data since it was new, none where that
    is unknown. The queue is computed anew from the history, from the first training on, which the
    paper has behind it. It bounds the average spend only; what cannot be paid is left out here.

    Args:
        weight: What a loss of 1 of the metric weighs; the paper's V, over the allowance squared.
        rate_j: The allowance: joules per experience. Unless given, what the budget had for each
            experience once there was a model.
        mode: The update mode.

    Raises:
        ConfigurationError: If the weight or the allowance is not positive, or the mode is ``SKIP``.
    """

    weight: float = 100.0
    rate_j: float | None = None
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight > 0):
            raise ConfigurationError(f"weight is {self.weight!r}; it is above 0")
        given = self.rate_j
        if given is not None and not (math.isfinite(given) and given > 0):
            raise ConfigurationError(f"rate_j is {given!r}; it is in joules, above 0, or None")
        check_mode(self.mode)

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if what was lost outweighs its cost and the queue."""
        past = _with_model(state.history)
        drawn_j = [each.cost_j for each in past]
        rate_j = self.rate_j
        if rate_j is None:
            rate_j = (balance.left_j + sum(drawn_j)) / (state.remaining + len(drawn_j))
        queue_j = _queue_j(drawn_j, rate_j)
        now = staleness(state)[-1]
        lost = "an unknown loss, counted as none," if now is None else f"a loss of {now:.4f}"

        def rule(option: Option) -> Verdict:
            if rate_j <= 0:  # nothing is left, and what costs nothing is all that can be paid
                return not_due("nothing may be spent any more")
            cost, queue = option.cost_j.mean / rate_j, queue_j / rate_j
            penalty, gained = cost * (queue + cost / 2 - 1), self.weight * (now or 0.0)
            told = (
                f"{lost} weighs {gained:.3g} against {penalty:.3g}: {option.action} costs "
                f"{cost:.3g} allowances of {format_energy(rate_j)}, and spending is {queue:.3g} "
                "ahead"
            )
            if not gained > penalty:
                return not_due(told)
            return Verdict(update=True, reason=Reason.STALE, sentence=told)

        return carry_out(state, options, balance, self.mode, rule)


def _with_model(history: Sequence[Past]) -> Sequence[Past]:
    # Before the first training there was nothing to look at new data with.
    for index, past in enumerate(history):
        if past.metric_new is not None:
            break
        if past.mode is not UpdateMode.SKIP:
            return history[index + 1 :]
    return history


def _queue_j(drawn_j: Sequence[float], rate_j: float) -> float:
    queue_j = 0.0
    for each_j in drawn_j:
        queue_j = max(0.0, queue_j + each_j - rate_j)
    return queue_j
