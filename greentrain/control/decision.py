"""A decision, with its reason, its alternatives and the forecast that it was based on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from greentrain.budget import Balance
from greentrain.control.action import Action, Candidate, Estimate, Option
from greentrain.control.forecast import NO_FORECAST, OptionForecast
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode


class Reason(StrEnum):
    """Reasons for a decision.

    - ``NO_MODEL``: the first training.
    - ``BEST_NET_GAIN``, ``LARGEST_GAIN``: the gain of an update compared with the others.
    - ``FIXED``, ``SCHEDULED``, ``RANDOM``: an update that does not depend on the model.
    - ``DRIFT``: a detected change. ``STALE``: the metric lost so far. ``FORECAST``: the metric
      expected to be lost. ``BELOW_TARGET``: a metric below its target.
    - ``TOO_EXPENSIVE``, ``BUDGET_EXHAUSTED``, ``NO_GAIN``, ``NOT_DUE`` (the rule requires no
      update), ``NOT_FEASIBLE`` (the rule's update mode is not an option): a ``SKIP``.
    - ``NO_LABELS``: the ``SKIP`` of an experience without any label, which no update can train on.
    - ``SET_ASIDE``: the ``SKIP`` of an experience whose update failed twice; no policy decides it.
    - ``BASELINE``: a full retraining next to the stream, for comparison; no policy decides it.
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
    SET_ASIDE = "SET_ASIDE"
    NO_LABELS = "NO_LABELS"


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """An option, and why it lost; empty for the chosen one, and if nothing was compared."""

    option: Option
    why_lost: str = ""

    @property
    def action(self) -> Action:
        """The option's action."""
        return self.option.action


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The action for one experience.

    Args:
        action: The action.
        reason: The reason, from a fixed list.
        sentence: The reason in one sentence with its numbers.
        cost_j: Predicted joules; the upper bound is reserved.
        gain: Predicted gain of the metric.
        min_gain_per_j: Gain that a joule had to bring; ``None`` without such a minimum.
        steps: Planned optimizer steps.
        work: Plain steps that cost as much; ``None`` if the steps are plain ones.
        alternatives: All options. The controller adds them if the policy compared none.
        forecast: Options expected later, as given to the policy; the controller adds it.
        waiting: How the update waited for cleaner electricity, as plain values; the stream adds it.
    """

    action: Action
    reason: Reason
    sentence: str
    cost_j: Estimate
    gain: Estimate
    min_gain_per_j: float | None = None
    steps: int = 0
    alternatives: tuple[Alternative, ...] = ()
    forecast: OptionForecast = NO_FORECAST
    waiting: Mapping[str, Any] | None = None
    work: float | None = None

    def plain_steps(self, steps: int) -> float:
        """Return the plain steps that cost as much as so many steps of this decision."""
        return steps if self.work is None or not self.steps else steps * self.work / self.steps

    def alternatives_as_dicts(self) -> list[dict[str, Any]]:
        """Return the alternatives as plain values, for the ledger and MLflow."""
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
                **_of_method(alternative.option, self.action),
            }
            for alternative in self.alternatives
        ]


def decided(
    option: Option,
    reason: Reason,
    sentence: str,
    *,
    min_gain_per_j: float | None = None,
    alternatives: tuple[Alternative, ...] = (),
) -> Decision:
    """Build the decision for one option."""
    return Decision(
        action=option.action,
        reason=reason,
        sentence=sentence,
        cost_j=option.cost_j,
        gain=option.gain,
        min_gain_per_j=min_gain_per_j,
        steps=option.candidate.steps,
        work=option.candidate.work,
        alternatives=alternatives,
    )


def _of_method(option: Option, chosen: Action) -> dict[str, Any]:
    """Return the method of an option as plain values; nothing without one, as it always was."""
    if not option.action.method:
        return {}
    mark = {"chosen": True} if option.action == chosen else {}
    return {"method": option.action.method, "work": option.candidate.work, **mark}


def chosen_method(alternatives: Sequence[Mapping[str, Any]]) -> str:
    """Return the method of the chosen option among recorded alternatives; empty without one.

    Args:
        alternatives: The recorded alternatives: see :meth:`Decision.alternatives_as_dicts`.

    Example:
        >>> chosen_method([{"update_mode": "SKIP"}, {"method": "cached", "chosen": True}])
        'cached'
    """
    return next((str(each["method"]) for each in alternatives if each.get("chosen")), "")


def unweighed(options: Sequence[Option]) -> tuple[Alternative, ...]:
    """Return options as alternatives that were not compared."""
    return tuple(Alternative(option=option) for option in options)


def inputs_as_dict(state: State, decision: Decision) -> dict[str, Any]:
    """Return the state and the forecast of a decision as plain values, for the ledger."""
    return {**state.as_dict(), "forecast": decision.forecast.as_dict()}


def inputs_of(
    recorded: Mapping[str, Any], alternatives: Sequence[Mapping[str, Any]]
) -> tuple[State, list[Option], Balance, OptionForecast]:
    """Rebuild the arguments of :meth:`Policy.decide` from the ledger, to repeat a decision.

    ``policy.decide(*inputs_of(recorded, alternatives))`` gives the recorded decision again.

    Args:
        recorded: The recorded state: see :func:`inputs_as_dict`.
        alternatives: The recorded alternatives: see :meth:`Decision.alternatives_as_dicts`.
    """
    state = State.from_dict(recorded)
    balance = Balance(total_j=state.left_j or 0.0, spent_j=0.0, reserved_j=0.0)
    forecast = OptionForecast.from_dict(recorded.get("forecast", {}))
    return state, options_of(alternatives), balance, forecast


def options_of(alternatives: Sequence[Mapping[str, Any]]) -> list[Option]:
    """Rebuild the options from :meth:`Decision.alternatives_as_dicts`."""
    return [
        Option(
            candidate=Candidate(
                action=Action(
                    mode=UpdateMode(each["update_mode"]),
                    step_fraction=each["step_fraction"],
                    method=each.get("method", ""),
                ),
                steps=each["steps"],
                work=each.get("work"),
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
