"""The default policy: maximise the gain minus a price per joule that makes the budget last."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from greentrain.budget import Balance
from greentrain.control.action import Action, Option
from greentrain.control.decision import Decision, Reason
from greentrain.control.forecast import OptionForecast, Table, option_value
from greentrain.control.options import OptionSet
from greentrain.control.policies.rules import BasePolicy, known, require
from greentrain.control.state import UNKNOWN_ROOM, State
from greentrain.control.update_modes import UpdateMode
from greentrain.units import J_PER_WH, format_energy, format_number, is_whole

_BISECTIONS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedPolicy(BasePolicy):
    """Choose the option with the most ``gain - price * cost``.

    The price is the minimum gain per joule. It is the smallest one at which the mean spend, over
    this experience and the forecast of later ones, is at most what is left per experience. That is
    the dual price of the knapsack over update modes (primal-dual pacing for bandits with knapsacks,
    Badanidiyuru et al. 2013). It is solved again at each decision, in place of a gradient step.

    The first training of a model is not compared with other options. It gets the largest step
    fraction that leaves ``1 - first_share`` of the budget. The gain of an expensive update is
    discounted: see :func:`~greentrain.control.forecast.risk_discount`.

    Args:
        min_gain: Gain below which no update starts, in units of the metric: see
            :attr:`~greentrain.control.state.State.unit`. 0.001 is 0.1 points of accuracy, or 1 % of
            a loss.
        first_share: Largest share of what is left that the first training may reserve.
        explore: Experiences, the first ones of a stream, at which gains are sampled from their
            predicted distribution: Thompson sampling (Thompson 1933). 0 for none.
        seed: Seed of these samples, which follow from it and the position.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    min_gain: float = 0.001
    first_share: float = 0.6
    explore: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.min_gain >= 0, "min_gain", self.min_gain, "0 or more")
        share = self.first_share
        require(0 < share <= 1, "first_share", share, "a number above 0 and at most 1")
        require(is_whole(self.explore, 0), "explore", self.explore, "a whole number, 0 or more")
        object.__setattr__(self, "explore", int(self.explore))

    def first(self, offered: OptionSet) -> Decision:
        """Train the first model at the largest step fraction within :attr:`first_share`."""
        if not offered.affordable:
            return offered.nothing()
        full = [each for each in offered.affordable if each.action.mode is UpdateMode.FULL_RETRAIN]
        within = [
            each for each in full if each.cost_j.upper <= self.first_share * offered.left_j
        ] or sorted(full, key=lambda each: each.cost_j.upper)[:1]
        return dataclasses.replace(offered, affordable=within).first()

    def choose(self, state: State, offered: OptionSet, forecast: OptionForecast) -> Decision:
        """Choose the affordable option with the most net gain."""
        if not offered.affordable:
            return offered.nothing()
        even_j = offered.left_j / state.remaining
        min_gain = self.min_gain * state.unit
        random = Random(f"{self.seed}/{state.position}")
        exploring = state.position < self.explore
        values = {
            option.action: option.gain.mean + option.gain.sd * random.gauss()
            if exploring
            else option_value(option, even_j)
            for option in offered.options
        }
        price = _price(offered.options, values, even_j, forecast)
        nets = {
            option.action: values[option.action] - price * option.cost_j.mean
            for option in offered.options
        }
        worthwhile = self._worthwhile(offered.affordable, state, even_j)
        best = max(
            (offered.skip, *worthwhile), key=lambda each: (nets[each.action], -each.cost_j.mean)
        )

        def gain(value: float) -> str:
            return _fixed(value, state, sign="+")

        least = gain(min_gain)[1:]

        def why_lost(option: Option) -> str:
            if option is not offered.skip and option not in worthwhile:
                value = format_number(option_value(option, even_j), 2)
                return f"kept gain of {value} is below the minimum of {least}"
            return f"net gain {gain(nets[option.action])}, {best.action} {gain(nets[best.action])}"

        per_wh = format_number(price * J_PER_WH)
        if best is not offered.skip:
            reason = Reason.BEST_NET_GAIN
            limit = f"each Wh has to bring {per_wh}" if price else "the budget is large enough"
            outcome = (
                f"{gain(best.gain.mean)} ± {gain(best.gain.sd)[1:]} expected from {best.action} "
                f"for {format_energy(best.cost_j.mean)}; {limit}"
            )
        else:
            reason = Reason.NO_GAIN
            outcome = f"no update brings {per_wh} for each Wh"
            if not worthwhile:
                most = max(offered.affordable, key=lambda option: option.gain.mean)
                outcome = (
                    f"no update brings at least {least} (best: "
                    f"{gain(most.gain.mean)} ± {gain(most.gain.sd)[1:]} from {most.action})"
                )
        sentence = f"{_drop_sentence(state)}; {outcome}"
        decision = offered.take(best, reason, sentence, why_lost)
        return dataclasses.replace(decision, min_gain_per_j=price)

    def worth_of_probe_j(
        self,
        state: State,
        options: Sequence[Option],
        offered: Sequence[tuple[Sequence[Option], float]],
        balance: Balance,
        forecast: OptionForecast,
    ) -> float:
        """Return the joules that a probe is worth.

        Args:
            state: The state before it.
            options: The options without it.
            offered: The options for each possible drop, with its probability.
            balance: The budget.
            forecast: Options expected at later experiences.
        """
        left_j = balance.left_j
        even_j = left_j / state.remaining
        price = _price(options, _discounted(options, even_j), even_j, forecast)

        def net(option: Option) -> float:
            return option_value(option, even_j)

        def chosen(those: Sequence[Option]) -> int:
            updates = OptionSet.of(those, balance).affordable
            worthwhile = self._worthwhile(updates, state, even_j)
            best = max(
                (those[0], *worthwhile), key=lambda each: net(each) - price * each.cost_j.mean
            )
            return those.index(best)

        blind, value = chosen(options), 0.0
        for those, weight in offered:
            seen = chosen(those)
            saved_j = those[blind].cost_j.mean - those[seen].cost_j.mean
            value += weight * (net(those[seen]) - net(those[blind]) + price * saved_j)
        if value <= 0:
            return 0.0
        return value / price if price > 0 else math.inf

    def _worthwhile(self, updates: Sequence[Option], state: State, even_j: float) -> list[Option]:
        """Return the updates whose value is above the minimum."""
        least = self.min_gain * state.unit
        return [each for each in updates if option_value(each, even_j) >= least]


def _discounted(options: Sequence[Option], even_j: float) -> dict[Action, float]:
    return {option.action: option_value(option, even_j) for option in options}


def _price(
    options: Sequence[Option],
    values: Mapping[Action, float],
    even_j: float,
    forecast: OptionForecast,
) -> float:
    now = tuple((option.cost_j.mean, values[option.action]) for option in options)
    return solve_price((*forecast.tables, now), even_j, weights=(*forecast.weights, 1.0))


def solve_price(
    tables: Sequence[Table], rate_j: float, *, weights: Sequence[float] | None = None
) -> float:
    """Return the smallest price at which the mean spend over the tables is at most a rate.

    Args:
        tables: The (joules, gain) of the options at each experience.
        rate_j: Joules that may be spent per experience.
        weights: Number of experiences that each table represents; 1 each by default.

    Returns:
        Gain per joule; 0 if the best option of every table is affordable within the rate.

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
    # Shorter tables are padded with their first option.
    padded = np.array([(*table, *[table[0]] * (most - len(table))) for table in tables])
    costs, gains = padded[..., 0], padded[..., 1]
    rows = np.arange(len(tables))

    def spend_j(price: float) -> float:
        nets = gains - price * costs
        best = nets.max(axis=1, keepdims=True)
        chosen = np.where(nets >= best, costs, np.inf).argmin(axis=1)  # the cheapest of equals
        return float(shares @ costs[rows, chosen] / shares.sum())

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


def _expected_drop(state: State) -> str:
    """Describe what the drop of data that were not probed is expected from."""
    shares = ((state.unseen, "of classes that were never seen"), (state.copies, "copies"))
    shown = [f"{share:.0%} {what}" for share, what in shares if share]
    return " and ".join(shown) or "a drop as at earlier experiences expected"


def _drop_sentence(state: State) -> str:
    if known(state.metric_new) is None:
        drop = f"New data not probed: {_expected_drop(state)}"
    elif known(state.metric_last) is None:
        drop = "Metric of the last update unknown: no drop assumed"
    elif state.drop < 0.0005 * state.unit:
        drop = "No drop on the new data"
    else:
        drop = f"Drop of {_fixed(state.drop, state)} by the new data"
    return (
        drop
        if state.room is not None
        else f"{drop} (model error {UNKNOWN_ROOM * state.unit:.3g} assumed)"
    )


def _fixed(value: float, state: State, sign: str = "") -> str:
    """Write an amount of the metric; that of a metric up to 1 has three decimals."""
    return f"{value:{sign}.3{'f' if state.unit == 1 and abs(value) < 1000 else 'g'}}"
