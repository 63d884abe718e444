"""The policies to run, by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from greentrain.control import Always, Decision, Greedy, OptionForecast, Policy, State
from greentrain.control import UpdateMode as Mode
from greentrain.control.decision import Reason
from greentrain.control.options import OptionSet
from greentrain.control.policies.rules import BasePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class EvenWarm(BasePolicy):
    """Warm start at each arrival, as long as an even share of the joules left allows."""

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose the largest step fraction within the even share, or ``SKIP``."""
        even_j = offered.left_j / state.remaining
        within = [option for option in offered.affordable if option.cost_j.mean <= even_j]
        cheap = dataclasses.replace(offered, affordable=within)
        option = cheap.largest(Mode.WARM_START)
        if option is None:
            return cheap.without(Mode.WARM_START)
        return cheap.update(option, Reason.FIXED, "The policy spends evenly on warm starts")


POLICIES: Mapping[str, Policy | None] = {
    "default": None,
    "full": Always(mode=Mode.FULL_RETRAIN),
    "greedy": Greedy(),
    "always-warm": Always(mode=Mode.WARM_START),
    "always-replay": Always(mode=Mode.REPLAY),
    "even-warm": EvenWarm(),
    "always-tune": Always(mode=Mode.FINE_TUNE),
}
