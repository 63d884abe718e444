"""Actions that are possible for an experience, with their predicted cost and gain."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An update mode with a step fraction.

    Args:
        mode: The update mode.
        step_fraction: Share of the mode's usual steps, above 0; 0 for ``SKIP``. A full retraining
            has at most 1. A mode that continues from the last weights may have more. If a fifth
            of the epochs is usual, then 5 gives those of a full retraining.
        method: Name of the offered method that the update trains with; empty for none.

    Raises:
        ConfigurationError: If the step fraction is out of range.

    Example:
        >>> print(Action(mode=UpdateMode.WARM_START, step_fraction=0.5, method="cached"))
        WARM_START with cached at 50%
    """

    mode: UpdateMode
    step_fraction: float = 1.0
    method: str = ""

    def __post_init__(self) -> None:
        most = {UpdateMode.SKIP: 0.0, UpdateMode.FULL_RETRAIN: 1.0}.get(
            self.mode, sys.float_info.max
        )
        least = 0.0 if most == 0 else sys.float_info.min
        if not least <= self.step_fraction <= most:
            raise ConfigurationError(
                f"step_fraction is {self.step_fraction!r} for {self.mode}; set it to 0 for SKIP, "
                "above 0 and at most 1 for FULL_RETRAIN, and above 0 for the other modes"
            )

    def __str__(self) -> str:
        name = f"{self.mode} with {self.method}" if self.method else str(self.mode)
        return name if self.step_fraction in (0, 1) else f"{name} at {self.step_fraction:.0%}"


SKIP = Action(mode=UpdateMode.SKIP, step_fraction=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A feasible action, with its optimizer steps.

    Args:
        action: The action.
        steps: Its optimizer steps.
        work: Plain steps that cost as much, if an offered method makes its steps cheaper;
            ``None`` if they are plain ones.
    """

    action: Action
    steps: int
    work: float | None = None

    @property
    def plain_steps(self) -> float:
        """Plain steps that cost as much as these steps."""
        return self.steps if self.work is None else self.work


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A predicted value with its standard deviation and an upper bound that is rarely exceeded."""

    mean: float
    sd: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A candidate with its predicted cost, in joules, and gain, in units of the metric."""

    candidate: Candidate
    cost_j: Estimate
    gain: Estimate

    @property
    def action(self) -> Action:
        """The candidate's action."""
        return self.candidate.action


NOTHING = Estimate(mean=0.0, sd=0.0, upper=0.0)
SKIP_OPTION = Option(candidate=Candidate(action=SKIP, steps=0), cost_j=NOTHING, gain=NOTHING)
