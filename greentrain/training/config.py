"""The arguments of a stream: checked, and turned into what they stand for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from greentrain.budget import Budget
from greentrain.control import LeastEnergy, Policy
from greentrain.errors import ConfigurationError
from greentrain.memory import Buffer, FullBuffer
from greentrain.tracking import MlflowTracker, NullTracker, Tracker


def check(make_model: object, mode: object, memory: object) -> None:
    """Refuse what can be refused at a glance.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """
    if not callable(make_model):
        raise ConfigurationError(
            f"make_model is {make_model!r}; it is a function that returns a LightningModule with "
            "fresh weights"
        )
    if mode not in ("max", "min"):
        raise ConfigurationError(f"mode is {mode!r}; allowed are 'max' and 'min'")
    if isinstance(memory, str) and memory != "all":
        raise ConfigurationError(
            f"memory is {memory!r}; it is 'all', a buffer such as ReservoirBuffer(2000), or None "
            "to keep nothing"
        )


def policy_of(
    policy: Policy | None, floor: float | str | None, mode: Literal["max", "min"]
) -> Policy | None:
    """Return the policy, or that of a floor.

    Raises:
        ConfigurationError: If both are given, or the floor cannot be read.
    """
    if floor is None:
        return policy
    if policy is not None:
        raise ConfigurationError(
            f"policy is {policy!r} and floor is {floor!r}; a floor is an objective of its own, so "
            "give one of the two"
        )
    turned = -floor if isinstance(floor, (int, float)) and mode == "min" else floor
    return LeastEnergy(floor=turned)


def memory_of(
    memory: Buffer | Literal["all"] | None, state: str | Path | None, seed: int
) -> Buffer | None:
    """Return the buffer; of ``"all"``, one that keeps everything, beside the state."""
    if not isinstance(memory, str):
        return memory
    return FullBuffer(folder=None if state is None else Path(state) / "memory", seed=seed)


def budget_of(budget: str | Budget, num_experiences: int | None) -> Budget:
    """Return the budget, for that many experiences if a number is given."""
    if isinstance(budget, str):
        return Budget.parse(
            budget, num_experiences=1 if num_experiences is None else num_experiences
        )
    return (
        budget
        if num_experiences is None
        else dataclasses.replace(budget, num_experiences=num_experiences)
    )


def tracker_of(tracking: str | Tracker | None) -> Tracker:
    """Return the tracker; of a tracking URI, that of MLflow."""
    if tracking is None:
        return NullTracker()
    return MlflowTracker(tracking) if isinstance(tracking, str) else tracking
