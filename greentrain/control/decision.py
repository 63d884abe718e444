"""A decision, with its reason and what every alternative would have been."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from greentrain.control.action import Action, Estimate, Option


class Reason(StrEnum):
    """Why a decision fell as it did."""

    NO_MODEL = "NO_MODEL"
    BEST_NET_GAIN = "BEST_NET_GAIN"
    NO_GAIN = "NO_GAIN"
    TOO_DEAR = "TOO_DEAR"
    BUDGET_EXHAUSTED = "BUDGET_EXHAUSTED"
    FIXED = "FIXED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """An option that was weighed, and why it was not taken (empty for the one that was)."""

    action: Action
    cost_j: Estimate
    gain: Estimate
    why_lost: str = ""


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
                "effort": alternative.action.effort,
                "predicted_j": alternative.cost_j.mean,
                "upper_bound_j": alternative.cost_j.upper,
                "predicted_gain": alternative.gain.mean,
                "gain_sd": alternative.gain.sd,
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
