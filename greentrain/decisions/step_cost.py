"""Measure the cost of a step by short trainings of discarded models, and decide without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from greentrain.control import Candidate, Decision, Estimate, Reason, State
from greentrain.errors import ConfigurationError
from greentrain.payments import Payment
from greentrain.units import format_energy, is_whole

LONGER = 4
"""Steps of the last training, as a multiple of the steps of the others."""


def check_steps(steps: int) -> None:
    """Refuse a number of steps that cannot be trained.

    Raises:
        ConfigurationError: If it is not a whole number, 1 or more.
    """
    if not is_whole(steps, 1):
        raise ConfigurationError(f"steps is {steps!r}; it must be a whole number, 1 or more")


def measure_steps(
    train: Callable[[int], object], steps: int, payment: Payment
) -> tuple[float, float]:
    """Train three times, the first time to warm up, and return the joules of the last two.

    Args:
        train: Trains a fresh model for the given number of steps.
        steps: Steps of the first two; the third has four times as many.
        payment: Measures the training; it has begun and not ended.
    """
    marks_j = []
    for count in (steps, steps, LONGER * steps):
        train(count)
        marks_j.append(payment.used.total_j or 0.0)
    return marks_j[1] - marks_j[0], marks_j[2] - marks_j[1]


def split(short_j: float, long_j: float, steps: int) -> tuple[float, float]:
    """Split the joules of two trainings into a fixed part and joules per step.

    Their difference is the energy of the additional steps. If noise hides it, all energy counts as
    energy of steps.

    Args:
        short_j: Joules of a training of ``steps`` steps.
        long_j: Joules of one of four times as many.
        steps: The steps.

    Returns:
        Joules of the fixed part, and of a step.

    Raises:
        ConfigurationError: If the meter measured no energy for the longer one.

    Example:
        >>> split(30.0, 90.0, 10)  # 30 steps more used 60 J more
        (10.0, 2.0)
    """
    if not long_j > 0:
        raise ConfigurationError(
            f"the meter measured no energy for {LONGER * steps} steps; calibrate with more than "
            f"steps={steps}, or give step_j"
        )
    step_j = (long_j - short_j) / ((LONGER - 1) * steps)
    if step_j <= 0:
        step_j = long_j / (LONGER * steps)
    return max(0.0, short_j - steps * step_j), step_j


def first_decision(candidates: Sequence[Candidate], state: State, reserved_j: float) -> Decision:
    """Decide while the cost of a step is unknown: take the candidate with the fewest steps."""
    least = min(candidates, key=lambda candidate: candidate.steps)
    return Decision(
        action=least.action,
        reason=Reason.FIXED if state.has_model else Reason.NO_MODEL,
        sentence=(
            f"the cost of a step is unknown: {least.action} has the fewest steps, and "
            f"{format_energy(reserved_j)} are reserved to measure it"
        ),
        cost_j=Estimate(mean=reserved_j, sd=0.0, upper=reserved_j),
        gain=Estimate(mean=0.0, sd=0.0, upper=0.0),
        steps=least.steps,
    )
