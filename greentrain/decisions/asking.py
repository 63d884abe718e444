"""What the controller is asked: checked, and answered where nothing is known yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from greentrain.control import Candidate, Decision, Estimate, Reason, State, UpdateMode
from greentrain.decisions.pending_update import finite
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy

SIGNALS = ("metric_past", "loss_new", "loss_past", "unseen", "shift", "shift_by")
"""Fields of the state that a caller may fill in."""
Signals = dict[str, float | str | None]


def check_counts(**counts: int | None) -> None:
    """Refuse counts that are none.

    Raises:
        ConfigurationError: If one is given and is not a whole number, 0 or more.
    """
    for name, count in counts.items():
        if count is not None and (
            isinstance(count, bool) or not isinstance(count, int) or count < 0
        ):
            raise ConfigurationError(f"{name} is {count!r}; it is a whole number, 0 or more")


def signals_of(given: Mapping[str, float | str | None], *, sign: float) -> Signals:
    """Check further signals, and orient the one that is a metric.

    Args:
        given: Signals by name; what is not finite is unknown.
        sign: 1 where more of the metric is better, -1 where less is.

    Raises:
        ConfigurationError: If one is not known.

    Example:
        >>> signals_of({"metric_past": 0.5, "shift": float("nan")}, sign=-1.0)
        {'metric_past': -0.5, 'shift': None}
    """
    for name in given:
        if name not in SIGNALS:
            raise ConfigurationError(f"{name!r} is no signal; known are {', '.join(SIGNALS)}")
    known: Signals = {
        name: value if isinstance(value, str) else finite(value) for name, value in given.items()
    }
    past = known.get("metric_past")
    if isinstance(past, float):
        known["metric_past"] = sign * past
    return known


def feasible(candidates: Sequence[Candidate], state: State) -> list[Candidate]:
    """Return what can be done: without a model, only training one from scratch.

    Raises:
        ConfigurationError: If there is nothing, or ``SKIP`` is listed.
    """
    full = UpdateMode.FULL_RETRAIN
    actions = [candidate.action for candidate in candidates]
    if not actions or any(action.mode is UpdateMode.SKIP for action in actions):
        raise ConfigurationError(
            f"candidates are {', '.join(map(str, actions)) or 'none'}; give one update at least, "
            "and not SKIP, which there always is"
        )
    if state.has_model:
        return list(candidates)
    scratch = [candidate for candidate in candidates if candidate.action.mode is full]
    if not scratch:
        raise ConfigurationError(
            f"there is no model yet, and no candidate is {full}; add one, or give metric_before if "
            "there is a model"
        )
    return scratch


def find_out(candidates: Sequence[Candidate], state: State, reserved_j: float) -> Decision:
    """Decide where nobody knows what a step costs: take the least work there is."""
    least = min(candidates, key=lambda candidate: candidate.steps)
    return Decision(
        action=least.action,
        reason=Reason.FIXED if state.has_model else Reason.NO_MODEL,
        sentence=(
            f"nothing says yet what a step costs; {least.action} is the least work, and "
            f"{format_energy(reserved_j)} are reserved to find out"
        ),
        cost_j=Estimate(mean=reserved_j, sd=0.0, upper=reserved_j),
        gain=Estimate(mean=0.0, sd=0.0, upper=0.0),
        steps=least.steps,
    )
