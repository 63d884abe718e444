"""The options at one experience, sorted by affordability, and decisions built from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import Option
from greentrain.control.decision import Alternative, Decision, Reason, decided
from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionSet:
    """The options; an update is affordable if its upper bound is left.

    Args:
        options: All options.
        skip: The ``SKIP`` among them.
        updates: The others.
        affordable: The updates that are affordable.
        left_j: Joules that are left.
    """

    options: Sequence[Option]
    skip: Option
    updates: Sequence[Option]
    affordable: Sequence[Option]
    left_j: float

    @classmethod
    def of(cls, options: Sequence[Option], balance: Balance) -> OptionSet:
        """Sort options.

        Raises:
            ConfigurationError: If ``SKIP`` is not among them exactly once.
        """
        skips = [option for option in options if option.action.mode is UpdateMode.SKIP]
        if len(skips) != 1:
            raise ConfigurationError(
                f"the options have {len(skips)} SKIP; give a policy SKIP once among its options"
            )
        updates = [option for option in options if option is not skips[0]]
        affordable = [option for option in updates if option.cost_j.upper <= balance.left_j]
        return cls(
            options=options,
            skip=skips[0],
            updates=updates,
            affordable=affordable,
            left_j=balance.left_j,
        )

    def largest(self, mode: UpdateMode) -> Option | None:
        """Return the largest affordable step fraction of an update mode; ``None`` without one.

        Options with an offered method are left out: a rule names a plain update mode.
        """
        of_mode = [
            option
            for option in self.affordable
            if option.action.mode is mode and not option.action.method
        ]
        return max(of_mode, key=lambda option: option.action.step_fraction, default=None)

    def take(
        self, chosen: Option, reason: Reason, sentence: str, why_lost: Callable[[Option], str]
    ) -> Decision:
        """Build the decision for an option, with the reason why each of the others lost."""
        alternatives = []
        for option in self.options:
            if option is chosen:
                why = ""
            elif option is not self.skip and option not in self.affordable:
                why = f"may use {format_energy(option.cost_j.upper)}, more than is left"
            else:
                why = why_lost(option)
            alternatives.append(Alternative(option=option, why_lost=why))
        return decided(chosen, reason, sentence, alternatives=tuple(alternatives))

    def update(self, chosen: Option, reason: Reason, sentence: str) -> Decision:
        """Build the decision for an update that a rule requires."""

        def why_lost(option: Option) -> str:
            if option is self.skip:
                return "the rule requires an update"
            if option.action.mode is chosen.action.mode:
                return f"{chosen.action} is affordable"
            return f"the rule uses {chosen.action.mode}"

        sentence = f"{sentence}; {chosen.action} for {format_energy(chosen.cost_j.mean)}"
        return self.take(chosen, reason, sentence, why_lost)

    def first(self) -> Decision:
        """Train the first model: a full retraining at the largest affordable step fraction."""
        full = self.largest(UpdateMode.FULL_RETRAIN)
        if full is None:
            return self.without(UpdateMode.FULL_RETRAIN)
        return self.update(full, Reason.NO_MODEL, "No trained model yet")

    def without(self, mode: UpdateMode) -> Decision:
        """Build the ``SKIP`` if no step fraction of an update mode is possible or affordable."""
        of_mode = [option for option in self.updates if option.action.mode is mode]
        if of_mode:
            upper_j = min(option.cost_j.upper for option in of_mode)
            reason = Reason.TOO_EXPENSIVE
            sentence = (
                f"The cheapest {mode} may use {format_energy(upper_j)}; "
                f"{format_energy(self.left_j)} left"
            )
        else:
            reason = Reason.NOT_FEASIBLE
            sentence = f"{mode} is not possible with the stored data"
        return self.take(self.skip, reason, sentence, lambda option: f"the rule uses {mode}")

    def nothing(self) -> Decision:
        """Build the ``SKIP`` if no update at all is affordable or possible."""
        if not self.updates:
            sentence = "No update is possible with the stored data"
            return self.take(self.skip, Reason.NOT_FEASIBLE, sentence, lambda option: sentence)
        return self.without(min(self.updates, key=lambda each: each.cost_j.upper).action.mode)
