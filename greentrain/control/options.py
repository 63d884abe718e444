"""The options at one experience, sorted by what can be paid, and decisions built from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import Option, UpdateMode
from greentrain.control.decision import Alternative, Decision, Reason, decided
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSet:
    """The options, sorted by what can be paid: an update is affordable up to its upper bound."""

    options: Sequence[Option]
    skip: Option
    updates: Sequence[Option]
    affordable: Sequence[Option]
    left_j: float

    def largest(self, mode: UpdateMode) -> Option | None:
        """Return the largest affordable effort of an update mode; ``None`` if there is none."""
        of_mode = [option for option in self.affordable if option.action.mode is mode]
        return max(of_mode, key=lambda option: option.action.step_fraction, default=None)

    def take(
        self, chosen: Option, reason: Reason, sentence: str, why_lost: Callable[[Option], str]
    ) -> Decision:
        """Build the decision for an option, with why each of the others lost."""

        def why(option: Option) -> str:
            if option is chosen:
                return ""
            if option is not self.skip and option not in self.affordable:
                return f"may cost {format_energy(option.cost_j.upper)}, more than is left"
            return why_lost(option)

        alternatives = tuple(
            Alternative(option=option, why_lost=why(option)) for option in self.options
        )
        return decided(chosen, reason, sentence, alternatives=alternatives)

    def update(self, chosen: Option, reason: Reason, sentence: str) -> Decision:
        """Build the decision for an update that a rule calls for."""

        def why_lost(option: Option) -> str:
            if option is self.skip:
                return "the rule calls for an update"
            if option.action.mode is chosen.action.mode:
                return f"{chosen.action} can be paid"
            return f"the rule takes {chosen.action.mode}"

        cost = format_energy(chosen.cost_j.mean)
        sentence = f"{sentence}: {chosen.action} for {cost}"
        return self.take(chosen, reason, sentence, why_lost)

    def without(self, mode: UpdateMode) -> Decision:
        """Build the ``SKIP`` where no effort of an update mode is possible, or none affordable."""
        of_mode = [option for option in self.updates if option.action.mode is mode]
        if not of_mode:
            sentence = f"{mode} is not possible with what is kept of the data"
            return self.take(self.skip, Reason.NOT_FEASIBLE, sentence, _other_than(mode))
        cheapest = min(of_mode, key=lambda option: option.cost_j.upper)
        sentence = (
            f"the cheapest {mode} may cost {format_energy(cheapest.cost_j.upper)}, and "
            f"{format_energy(self.left_j)} are left"
        )
        return self.take(self.skip, Reason.TOO_EXPENSIVE, sentence, _other_than(mode))

    def nothing(self) -> Decision:
        """Build the ``SKIP`` where no update at all can be paid, or none is possible."""
        if not self.updates:
            sentence = "no update is possible with what may be kept"
            return self.take(self.skip, Reason.NOT_FEASIBLE, sentence, lambda lost: sentence)
        return self.without(min(self.updates, key=lambda each: each.cost_j.upper).action.mode)


def offer(options: Sequence[Option], balance: Balance) -> OptionSet:
    """Sort the options.

    Raises:
        ConfigurationError: If ``SKIP`` is not among them exactly once.
    """
    skips = [option for option in options if option.action.mode is UpdateMode.SKIP]
    if len(skips) != 1:
        raise ConfigurationError(f"a policy needs SKIP once among its options, got {len(skips)}")
    updates = [option for option in options if option is not skips[0]]
    affordable = [option for option in updates if option.cost_j.upper <= balance.left_j]
    return OptionSet(
        options=options,
        skip=skips[0],
        updates=updates,
        affordable=affordable,
        left_j=balance.left_j,
    )


def first(offered: OptionSet) -> Decision:
    """Train the first model: a full retraining at the largest effort that can be paid."""
    full = offered.largest(UpdateMode.FULL_RETRAIN)
    if full is None:
        return offered.without(UpdateMode.FULL_RETRAIN)
    return offered.update(full, Reason.NO_MODEL, "there is no trained model yet")


def known(value: float | None) -> float | None:
    """Return a finite value, and ``None`` for everything else."""
    return value if value is not None and math.isfinite(value) else None


def _other_than(mode: UpdateMode) -> Callable[[Option], str]:
    return lambda option: f"the rule takes {mode}"
