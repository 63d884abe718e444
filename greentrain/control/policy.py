"""Policies: given what is known, what it would cost and what is left, what to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from greentrain.budget import Balance
from greentrain.control.action import Action, Option, State, Table, UpdateMode
from greentrain.control.decision import Alternative, Decision, Reason, decided
from greentrain.control.outlook import caution
from greentrain.errors import ConfigurationError
from greentrain.units import J_PER_WH, format_energy

_BISECTIONS = 60


class Policy(Protocol):
    """Decides. ``decide`` is pure: the same arguments give the same decision."""

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose one of the options, of which ``SKIP`` is always one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedPolicy:
    """Take the option with the most ``gain - price * cost``; the price keeps the budget to the end.

    The price is the smallest at which the mean spend over what the last experiences offered, this
    one and what is expected of those to come meets what is left per experience: the dual price of
    the knapsack over update modes, solved afresh each time (primal-dual pacing for bandits with
    knapsacks, Badanidiyuru et al. 2013, with the price re-solved in place of a gradient step).

    The first training of a model is not weighed, as nothing can be compared with having no model:
    it gets the largest effort that leaves ``1 - first_share`` of the budget.

    Args:
        min_gain: Gain of the metric below which no update is worth starting.
        first_share: Largest share of what is left that the first training may reserve.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    min_gain: float = 0.001
    first_share: float = 0.6

    def __post_init__(self) -> None:
        if not self.min_gain >= 0:
            raise ConfigurationError(f"min_gain is {self.min_gain!r}; it is 0 or more")
        if not 0 < self.first_share <= 1:
            raise ConfigurationError(
                f"first_share is {self.first_share!r}; it is above 0 and at most 1"
            )

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the option with the most net gain that the budget can bear."""
        skip, updates, affordable = _sort(options, balance)
        if not affordable:
            return _nothing_affordable(skip, updates, balance)
        if not state.has_model:
            return self._first(skip, updates, affordable, balance)
        even_j = balance.left_j / state.remaining
        values = {
            option.action: option.gain.mean - caution(option.cost_j.mean, even_j) * option.gain.sd
            for option in options
        }
        now = tuple((option.cost_j.mean, values[option.action]) for option in options)
        price = solve_price((*state.tables, now), even_j, weights=(*state.table_weights, 1.0))

        def net(option: Option) -> float:
            return values[option.action] - price * option.cost_j.mean

        worthwhile = [option for option in affordable if values[option.action] >= self.min_gain]
        best = max((skip, *worthwhile), key=net)
        alternatives = tuple(
            Alternative(option=option, why_lost=self._why_lost(option, best, values, net, balance))
            for option in options
        )
        if best is skip:
            most = max(affordable, key=lambda option: values[option.action])
            worth = (
                f"and no update may gain {self.min_gain:.3f} (best: {most.gain.mean:+.3f} ± "
                f"{most.gain.sd:.3f} by {most.action})"
                if not worthwhile
                else f"and no update is worth its price of {price * J_PER_WH:.3g} per Wh"
            )
            sentence = f"the new data cost {state.drop:+.3f} of the metric, {worth}"
            return decided(
                skip, Reason.NO_GAIN, sentence, price_per_j=price, alternatives=alternatives
            )
        sentence = (
            f"{best.action} is expected to gain {best.gain.mean:+.3f} ± {best.gain.sd:.3f} for "
            f"{format_energy(best.cost_j.mean)}, the most above the price of "
            f"{price * J_PER_WH:.3g} per Wh"
        )
        return decided(
            best, Reason.BEST_NET_GAIN, sentence, price_per_j=price, alternatives=alternatives
        )

    def _first(
        self,
        skip: Option,
        updates: Sequence[Option],
        affordable: Sequence[Option],
        balance: Balance,
    ) -> Decision:
        limit_j = self.first_share * balance.left_j
        full = [option for option in affordable if option.action.mode is UpdateMode.FULL_RETRAIN]
        within = [option for option in full if option.cost_j.upper <= limit_j]
        if not full:
            return _nothing_affordable(skip, updates, balance)
        if within:
            best = max(within, key=lambda option: option.action.effort)
        else:
            best = min(full, key=lambda option: option.cost_j.upper)
        sentence = (
            f"there is no trained model yet; {best.action} is expected to cost "
            f"{format_energy(best.cost_j.mean)} of the {format_energy(balance.left_j)} left"
        )
        return decided(best, Reason.NO_MODEL, sentence)

    def _why_lost(
        self,
        option: Option,
        best: Option,
        values: Mapping[Action, float],
        net: Callable[[Option], float],
        balance: Balance,
    ) -> str:
        if option is best:
            return ""
        if option.cost_j.upper > balance.left_j:
            return f"may cost {format_energy(option.cost_j.upper)}, more than is left"
        if option.action.mode is not UpdateMode.SKIP and values[option.action] < self.min_gain:
            return f"is expected to gain {option.gain.mean:+.3f}, too little to start for"
        return f"nets {net(option):+.3f} against {net(best):+.3f}"


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


def _sort(options: Sequence[Option], balance: Balance) -> tuple[Option, list[Option], list[Option]]:
    skips = [option for option in options if option.action.mode is UpdateMode.SKIP]
    if len(skips) != 1:
        raise ConfigurationError(f"a policy needs SKIP once among its options, got {len(skips)}")
    updates = [option for option in options if option is not skips[0]]
    affordable = [option for option in updates if option.cost_j.upper <= balance.left_j]
    return skips[0], updates, affordable


def _nothing_affordable(skip: Option, updates: Sequence[Option], balance: Balance) -> Decision:
    if not updates:
        return decided(skip, Reason.NO_GAIN, "no update is possible with what may be kept")
    cheapest = min(updates, key=lambda option: option.cost_j.upper)
    sentence = (
        f"the cheapest update, {cheapest.action}, may cost {format_energy(cheapest.cost_j.upper)}, "
        f"and {format_energy(balance.left_j)} are left"
    )
    return decided(skip, Reason.TOO_DEAR, sentence)
