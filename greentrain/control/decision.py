"""A decision, with its reason and what every alternative would have been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from greentrain.control.action import Action, Candidate, Estimate, Option, UpdateMode


class Reason(StrEnum):
    """Why a decision fell as it did.

    ``NO_MODEL`` is the first training; ``TOO_EXPENSIVE``, ``BUDGET_EXHAUSTED``, ``NO_GAIN``, ``NOT_DUE``
    (the rule calls for no update) and ``NOT_FEASIBLE`` (the rule's update mode is not among the
    options) are those of a ``SKIP``. Of the others ``BEST_NET_GAIN`` and ``LARGEST_GAIN`` weigh
    gains, ``FIXED``, ``SCHEDULED`` and ``RANDOM`` look at no model, ``DRIFT`` is a change that was
    detected, ``STALE`` what a model has lost so far, ``FORECAST`` what it is going to lose, and
    ``BELOW_TARGET`` a metric that has to be brought back above a floor. ``BASELINE`` is a full
    retraining beside the stream, to compare with: no policy decides it.
    """

    NO_MODEL = "NO_MODEL"
    BEST_NET_GAIN = "BEST_NET_GAIN"
    NO_GAIN = "NO_GAIN"
    TOO_EXPENSIVE = "TOO_EXPENSIVE"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    FIXED = "FIXED"
    SCHEDULED = "SCHEDULED"
    DRIFT = "DRIFT"
    STALE = "STALE"
    FORECAST = "FORECAST"
    LARGEST_GAIN = "LARGEST_GAIN"
    RANDOM = "RANDOM"
    NOT_DUE = "NOT_DUE"
    NOT_FEASIBLE = "NOT_FEASIBLE"
    BELOW_TARGET = "BELOW_TARGET"
    BASELINE = "BASELINE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """An option, and why it lost: empty for the one that was taken, and where none was weighed."""

    option: Option
    why_lost: str = ""

    @property
    def action(self) -> Action:
        """The option's action."""
        return self.option.action


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to do with an experience.

    Args:
        action: The action.
        reason: The reason, from a fixed list.
        sentence: The reason in one sentence with the numbers in it.
        cost_j: Predicted joules; its upper bound is what will be reserved.
        gain: Predicted gain of the metric.
        price_per_j: Gain that a joule had to bring; ``None`` where no price was needed.
        steps: Planned optimizer steps.
        alternatives: Every option that was weighed.
    """

    action: Action
    reason: Reason
    sentence: str
    cost_j: Estimate
    gain: Estimate
    price_per_j: float | None = None
    steps: int = 0
    alternatives: tuple[Alternative, ...] = ()

    def alternatives_as_dicts(self) -> list[dict[str, Any]]:
        """Return the alternatives as plain values, for the ledger and for MLflow."""
        return [
            {
                "update_mode": str(alternative.action.mode),
                "step_fraction": alternative.action.step_fraction,
                "steps": alternative.option.candidate.steps,
                "predicted_j": alternative.option.cost_j.mean,
                "cost_sd_j": alternative.option.cost_j.sd,
                "upper_bound_j": alternative.option.cost_j.upper,
                "predicted_gain": alternative.option.gain.mean,
                "gain_sd": alternative.option.gain.sd,
                "gain_upper": alternative.option.gain.upper,
                "why_lost": alternative.why_lost,
            }
            for alternative in self.alternatives
        ]


def decided(
    option: Option,
    reason: Reason,
    sentence: str,
    *,
    price_per_j: float | None = None,
    alternatives: tuple[Alternative, ...] = (),
) -> Decision:
    """Build the decision for one option."""
    return Decision(
        action=option.action,
        reason=reason,
        sentence=sentence,
        cost_j=option.cost_j,
        gain=option.gain,
        price_per_j=price_per_j,
        steps=option.candidate.steps,
        alternatives=alternatives,
    )


def unweighed(options: Sequence[Option]) -> tuple[Alternative, ...]:
    """Return options that nobody had to weigh against each other."""
    return tuple(Alternative(option=option) for option in options)


def options_of(alternatives: Sequence[Mapping[str, Any]]) -> list[Option]:
    """Rebuild the options from :meth:`Decision.alternatives_as_dicts`, as the ledger keeps them.

    With the recorded :class:`State` and ``Balance(total_j=state.left_j, ...)`` they are all that a
    policy was given: it has to decide the same again.
    """
    return [
        Option(
            candidate=Candidate(
                action=Action(
                    mode=UpdateMode(each["update_mode"]), step_fraction=each["step_fraction"]
                ),
                steps=each["steps"],
            ),
            cost_j=Estimate(
                mean=each["predicted_j"], sd=each["cost_sd_j"], upper=each["upper_bound_j"]
            ),
            gain=Estimate(
                mean=each["predicted_gain"], sd=each["gain_sd"], upper=each["gain_upper"]
            ),
        )
        for each in alternatives
    ]
