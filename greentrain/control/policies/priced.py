"""Policies: given what is known, what it would cost and what is left, what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np

from greentrain.budget import Balance
from greentrain.control.action import Option, State, Table, UpdateMode
from greentrain.control.decision import Decision, Reason
from greentrain.control.forecast import risk_discount
from greentrain.control.options import OptionSet, first, known, offer
from greentrain.control.utility import UNKNOWN_ROOM
from greentrain.errors import ConfigurationError
from greentrain.units import J_PER_WH, format_energy

_BISECTIONS = 60
_DOUBT = 0.25
"""Standard deviations that a gain has to be worth at least, however cheap: noise is not fed."""


class Policy(Protocol):
    """Decides. ``decide`` is pure: the same arguments give the same decision."""

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose one of the options, of which ``SKIP`` is always one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedPolicy:
    """Take the option with the most ``gain - price * cost``; the price keeps the budget to the end.

    The price is the smallest at which the mean spend over this experience and what those to come
    are expected to offer meets what is left per experience: the dual price of the knapsack over
    update modes, solved afresh each time (primal-dual pacing for bandits with knapsacks,
    Badanidiyuru et al. 2013, with the price re-solved in place of a gradient step).

    The first training of a model is not weighed, as nothing can be compared with having no model:
    it gets the largest effort that leaves ``1 - first_share`` of the budget. What takes the joules
    of several experiences is taken for less than it is expected to gain: see
    :func:`~greentrain.control.forecast.risk_discount`.

    Args:
        min_gain: Gain of the metric below which no update is worth starting.
        first_share: Largest share of what is left that the first training may reserve.
        explore: Experiences, the first ones of a stream, at which gains are drawn from what is
            known of them in place of their mean: Thompson sampling (Thompson 1933). 0 for none.
        seed: Seed of these draws, which follow from it and the position.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    min_gain: float = 0.001
    first_share: float = 0.6
    explore: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.min_gain >= 0:
            raise ConfigurationError(f"min_gain is {self.min_gain!r}; it is 0 or more")
        if not 0 < self.first_share <= 1:
            raise ConfigurationError(
                f"first_share is {self.first_share!r}; it is above 0 and at most 1"
            )
        if not (isinstance(self.explore, int) and self.explore >= 0):
            raise ConfigurationError(
                f"explore is {self.explore!r}; it is a whole number, 0 or more"
            )

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the option with the most net gain that the budget can bear."""
        offered = offer(options, balance)
        if not offered.affordable:
            return offered.nothing()
        if not state.has_model:
            return self._first(offered)
        even_j = balance.left_j / state.remaining
        random = Random(f"{self.seed}/{state.position}")
        exploring = state.position < self.explore
        values = {
            option.action: option.gain.mean
            + option.gain.sd
            * (random.gauss() if exploring else -risk_discount(option.cost_j.mean, even_j))
            for option in options
        }
        now = tuple((option.cost_j.mean, values[option.action]) for option in options)
        price = solve_price((*state.tables, now), even_j, weights=(*state.table_weights, 1.0))

        def net(option: Option) -> float:
            return values[option.action] - price * option.cost_j.mean

        worthwhile = [
            each
            for each in offered.affordable
            if each.gain.mean - max(_DOUBT, risk_discount(each.cost_j.mean, even_j)) * each.gain.sd
            >= self.min_gain
        ]
        best = max((offered.skip, *worthwhile), key=lambda each: (net(each), -each.cost_j.mean))

        def why_lost(option: Option) -> str:
            if option is not offered.skip and option not in worthwhile:
                return f"is expected to gain {option.gain.mean:+.3f}, too little to start for"
            return f"nets {net(option):+.3f} against {net(best):+.3f}"

        per_wh = f"{price * J_PER_WH:.3g} per Wh"
        if best is offered.skip:
            most = max(offered.affordable, key=lambda option: values[option.action])
            worth = (
                f"no update may gain {self.min_gain:.3f} (best: {most.gain.mean:+.3f} ± "
                f"{most.gain.sd:.3f} by {most.action})"
                if not worthwhile
                else f"no update is worth its price of {per_wh}"
            )
            reason, sentence = Reason.NO_GAIN, f"{_drop_told(state)}, and {worth}"
        else:
            reason, sentence = (
                Reason.BEST_NET_GAIN,
                f"{_drop_told(state)}; {best.action} is expected to gain {best.gain.mean:+.3f} ± "
                f"{best.gain.sd:.3f} for {format_energy(best.cost_j.mean)}, the most above the "
                f"price of {per_wh}",
            )
        decision = offered.take(best, reason, sentence, why_lost)
        return dataclasses.replace(decision, price_per_j=price)

    def _first(self, offered: OptionSet) -> Decision:
        full = [each for each in offered.affordable if each.action.mode is UpdateMode.FULL_RETRAIN]
        within = [
            each for each in full if each.cost_j.upper <= self.first_share * offered.left_j
        ] or sorted(full, key=lambda each: each.cost_j.upper)[:1]
        return first(dataclasses.replace(offered, affordable=within))


def _drop_told(state: State) -> str:
    room = "" if state.room is not None else f" (what the model lacks counts as {UNKNOWN_ROOM})"
    if known(state.metric_new) is None:
        return f"the new data were not looked at, and are taken as no worse than before{room}"
    if known(state.metric_last) is None:
        return f"nothing says what the last model reached, so the new data count as no worse{room}"
    return f"the new data cost {state.drop:+.3f} of the metric{room}"


def solve_price(
    tables: Sequence[Table], rate_j: float, *, weights: Sequence[float] | None = None
) -> float:
    """Return the smallest price at which the mean spend over the tables is at most a rate.

    Args:
        tables: The (joules, gain) of the options at each experience.
        rate_j: Joules that may be spent per experience.
        weights: How many experiences each of the tables stands for; 1 each unless given.

    Returns:
        Gain per joule; 0 where the best option of every table can be had within the rate.

    Example:
        >>> offers = ((0.0, 0.0), (10.0, 0.1))
        >>> solve_price([offers, offers], 20.0)
        0.0
        >>> round(solve_price([offers, ((0.0, 0.0), (10.0, 0.4))], 5.0), 4)  # only the better one
        0.01
    """
    if not tables:
        return 0.0
    shares = np.ones(len(tables)) if weights is None else np.asarray(weights, dtype=np.float64)
    most = max(len(table) for table in tables)
    # Tables of fewer options are filled up with their first one.
    costs, gains = (
        np.array(
            [
                [row[column] for row in (*table, *[table[0]] * (most - len(table)))]
                for table in tables
            ]
        )
        for column in (0, 1)
    )
    at_hand = np.arange(len(tables))

    def spend_j(price: float) -> float:
        nets = gains - price * costs
        best = nets.max(axis=1, keepdims=True)
        chosen = np.where(nets >= best, costs, np.inf).argmin(axis=1)  # the cheapest of equals
        return float(shares @ costs[at_hand, chosen] / shares.sum())

    if spend_j(0.0) <= rate_j:
        return 0.0
    high = float(np.max(gains[costs > 0] / costs[costs > 0], initial=0.0)) + 1e-300
    low = 0.0
    if not spend_j(high) <= rate_j:
        return high
    for _ in range(_BISECTIONS):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if spend_j(middle) <= rate_j else (middle, high)
    return high
