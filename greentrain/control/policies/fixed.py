"""Policies that look at no model: always one update mode, periodic, greedy and at random."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import Option, State, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.options import first, known, offer
from greentrain.control.policies.rules import Verdict, age, carry_out, check_mode, not_due
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy


@dataclass(frozen=True, slots=True, kw_only=True)
class Always:
    """Take one update mode whenever the budget can bear it, at the largest effort that it can bear.

    ``Always(mode=UpdateMode.SKIP)`` trains once and never again.

    Args:
        mode: The update mode. The first update is a full retraining whatever it is, because nothing
            else is possible.
    """

    mode: UpdateMode

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode, or ``SKIP`` where it cannot be paid."""
        if self.mode is UpdateMode.SKIP and state.has_model:
            offered = offer(options, balance)
            sentence = "the policy always skips"
            return offered.take(offered.skip, Reason.FIXED, sentence, lambda option: sentence)
        verdict = Verdict(
            update=True, reason=Reason.FIXED, sentence=f"the policy always takes {self.mode}"
        )
        return carry_out(state, options, balance, self.mode, lambda option: verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic:
    """Update at every k-th experience after the last update: what a calendar does.

    An update that could not be paid when it was due stays due.

    Args:
        every: Experiences from one update to the next; 1 updates at each.
        mode: The update mode.

    Raises:
        ConfigurationError: If ``every`` is not a positive whole number, or the mode is ``SKIP``.
    """

    every: int
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        if not (isinstance(self.every, int) and self.every >= 1):
            raise ConfigurationError(f"every is {self.every!r}; it is a whole number, 1 or more")
        check_mode(self.mode)

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the mode if the last update is old enough."""
        told = f"the model is at age {age(state)} in experiences, an update is due at {self.every}"

        def rule(option: Option) -> Verdict:
            if age(state) < self.every:
                return not_due(told)
            return Verdict(update=True, reason=Reason.SCHEDULED, sentence=told)

        return carry_out(state, options, balance, self.mode, rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy:
    """Take the option with the largest expected gain that fits, whatever it costs.

    Of equal gains the cheapest; ``SKIP`` where nothing is expected to gain. It spends early and has
    nothing left later, which is what pacing by a price is against.
    """

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the largest gain among what can be paid."""
        offered = offer(options, balance)
        if not state.has_model:
            return first(offered)
        told = [option for option in offered.affordable if known(option.gain.mean) is not None]
        best = max(
            (offered.skip, *told), key=lambda option: (option.gain.mean, -option.cost_j.mean)
        )
        best = best if best.gain.mean > 0 else offered.skip

        def why_lost(option: Option) -> str:
            if known(option.gain.mean) is None:
                return "nobody knows what it gains"
            mean = f"{option.gain.mean:+.3f}"
            return f"is expected to gain {mean}, and {best.action} {best.gain.mean:+.3f}"

        if best is not offered.skip:
            sentence = (
                f"{best.action} is expected to gain {best.gain.mean:+.3f}, the most that "
                f"{format_energy(offered.left_j)} can pay, for {format_energy(best.cost_j.mean)}"
            )
            return offered.take(best, Reason.LARGEST_GAIN, sentence, why_lost)
        if not offered.affordable and offered.updates:
            cheapest = min(offered.updates, key=lambda option: option.cost_j.upper)
            return offered.without(cheapest.action.mode)
        sentence = f"none of {len(offered.affordable)} affordable updates is expected to gain"
        return offered.take(offered.skip, Reason.NO_GAIN, sentence, why_lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFit:
    """Take any option that fits, ``SKIP`` included, all with the same probability.

    The draw follows from the seed and the experience's number alone, so that it can be repeated.

    Args:
        seed: Another seed draws other options.
    """

    seed: int = 0

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Draw one of the options that can be paid."""
        offered = offer(options, balance)
        if not state.has_model:
            return first(offered)
        # A string is hashed by the generator itself, alike in every process.
        draw = random.Random(f"{self.seed} {state.position}")
        fitting = (offered.skip, *offered.affordable)
        chosen = draw.choice(fitting)
        sentence = (
            f"drawn from {len(fitting)} options that {format_energy(offered.left_j)} can pay, with "
            f"seed {self.seed}"
        )
        return offered.take(chosen, Reason.RANDOM, sentence, lambda option: "was not drawn")
