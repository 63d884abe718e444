"""Policies that do not look at the model: a fixed mode, periodic, greedy and random."""

from __future__ import annotations

import random
from dataclasses import dataclass

from greentrain.control.action import Option
from greentrain.control.decision import Decision, Reason
from greentrain.control.forecast import OptionForecast
from greentrain.control.options import OptionSet
from greentrain.control.policies.rules import (
    BasePolicy,
    Rule,
    Verdict,
    age,
    check_mode,
    known,
    require,
)
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode
from greentrain.units import format_energy, is_whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Always(Rule):
    """Update by one mode whenever that is affordable, at the largest affordable step fraction.

    ``Always(mode=UpdateMode.SKIP)`` trains once and never again.

    Args:
        mode: The update mode. The first update is a full retraining in any case.
    """

    mode: UpdateMode

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose the mode, or ``SKIP`` if it is not affordable."""
        if self.mode is UpdateMode.SKIP:
            sentence = "The policy always skips"
            return offered.take(offered.skip, Reason.FIXED, sentence, lambda option: sentence)
        return Rule.choose(self, state, offered, forecast)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update."""
        sentence = f"The policy always uses {self.mode}"
        return Verdict(update=True, reason=Reason.FIXED, sentence=sentence)


@dataclass(frozen=True, slots=True, kw_only=True)
class Periodic(Rule):
    """Update at every k-th experience after the last update, as a calendar does.

    An update that was due and not affordable stays due.

    Args:
        every: Experiences from one update to the next; 1 updates at each.
        mode: The update mode.

    Raises:
        ConfigurationError: If ``every`` is not a positive whole number, or the mode is ``SKIP``.
    """

    every: int
    mode: UpdateMode = UpdateMode.FULL_RETRAIN

    def __post_init__(self) -> None:
        require(is_whole(self.every, 1), "every", self.every, "a whole number, 1 or more")
        object.__setattr__(self, "every", int(self.every))
        check_mode(self.mode)

    def judge(self, state: State, option: Option, left_j: float) -> Verdict:
        """Require an update if the last one is old enough."""
        return Verdict(
            update=age(state) >= self.every,
            reason=Reason.SCHEDULED,
            sentence=f"Model age {age(state)} experiences, update due at {self.every}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Greedy(BasePolicy):
    """Choose the affordable option with the largest expected gain, at any cost.

    Of equal gains the cheapest wins; ``SKIP`` if no gain is expected. It spends early and has
    nothing left later: the minimum gain per joule of ``PricedPolicy`` prevents that.
    """

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose the largest affordable gain."""
        predicted = [each for each in offered.affordable if known(each.gain.mean) is not None]
        best = max(
            (offered.skip, *predicted), key=lambda option: (option.gain.mean, -option.cost_j.mean)
        )
        best = best if best.gain.mean > 0 else offered.skip

        def why_lost(option: Option) -> str:
            if known(option.gain.mean) is None:
                return "its gain is unknown"
            return f"gain {option.gain.mean:+.3f}, {best.action} {best.gain.mean:+.3f}"

        if best is not offered.skip:
            sentence = (
                f"{best.gain.mean:+.3f} expected from {best.action} for "
                f"{format_energy(best.cost_j.mean)}, the largest gain that "
                f"{format_energy(offered.left_j)} can pay"
            )
            return offered.take(best, Reason.LARGEST_GAIN, sentence, why_lost)
        if not offered.affordable and offered.updates:
            return offered.nothing()
        sentence = f"No gain expected from any of {len(offered.affordable)} affordable updates"
        return offered.take(offered.skip, Reason.NO_GAIN, sentence, why_lost)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomFit(BasePolicy):
    """Choose any affordable option, ``SKIP`` included, all with the same probability.

    The choice follows from the seed and the number of the experience alone.

    Args:
        seed: Seed of the choices.
    """

    seed: int = 0

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose one of the affordable options at random."""
        # The generator hashes a string itself, alike in every process.
        generator = random.Random(f"{self.seed} {state.position}")
        fitting = (offered.skip, *offered.affordable)
        chosen = generator.choice(fitting)
        sentence = (
            f"Random choice from {len(fitting)} options that {format_energy(offered.left_j)} can "
            f"pay, with seed {self.seed}"
        )
        return offered.take(chosen, Reason.RANDOM, sentence, lambda option: "not chosen")
