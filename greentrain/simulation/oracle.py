"""The best that any policy could have done on a recorded table, and a policy that does it."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import (
    HISTORY_KEPT,
    SKIP,
    Action,
    Estimate,
    Option,
    State,
    UpdateMode,
)
from greentrain.control.decision import Alternative, Decision, Reason, decided
from greentrain.errors import ConfigurationError
from greentrain.simulation.recorded_table import UNTRAINED, Place, RecordedRow, RecordedTable
from greentrain.simulation.simulator import Simulated, follow
from greentrain.units import format_energy

_ROUNDING = 1e-9
"""Share of a budget, and difference of sums of metrics, within which numbers count as equal."""
_EQUAL = 1e-12
"""Difference of sums of metrics within which the cheaper way is as good."""
_BISECTIONS = 40
_AROUND = (0.0, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
"""Prices of the bounds, as multiples of the one at which the relaxed schedule just fits."""

_Step = tuple[RecordedRow, float]
"""A row, and the metric that holds after it."""


@dataclass(frozen=True, slots=True)
class _Label:
    """A way to a place: joules it took, the metrics summed up over it, and its last step."""

    spent_j: float
    total: float
    row: RecordedRow | None = None
    before: _Label | None = None

    def actions(self) -> list[Action]:
        """Return the steps of the way, the first one first."""
        found: list[Action] = []
        label: _Label | None = self
        while label is not None and label.row is not None:
            found.append(label.row.action)
            label = label.before
        return found[::-1]


def best_schedule(
    table: RecordedTable,
    budget_j: float,
    *,
    modes: Collection[UpdateMode] | None = None,
    step_fractions: Collection[float] | None = None,
) -> Simulated:
    """Return the schedule with the highest anytime metric that a budget pays for.

    It is exact: dynamic programming over places, which keeps for each place only the ways that no
    other one beats in both joules and metric, and drops those that cannot lead to more than the
    best schedule known. What a way may still lead to is bounded by Lagrangian relaxation: for any
    price ``p >= 0`` no way from a place with ``b`` joules left gains more than ``p * b`` plus the
    most that ``metric - p * joules`` sums up to, which is a shortest path.

    Args:
        table: The table.
        budget_j: Joules that may be spent.
        modes: Update modes that may be used, ``SKIP`` besides; all unless given.
        step_fractions: Efforts that may be used; all unless given.

    Raises:
        ConfigurationError: If the budget is below 0.
    """
    if not budget_j >= 0:
        raise ConfigurationError(f"budget_j is {budget_j!r}; it is in joules, 0 or more")
    search = _Search(table, modes, step_fractions)
    return follow(table, search.best(0, UNTRAINED, budget_j))


@dataclass(frozen=True, slots=True)
class Oracle:
    """Take the best of all schedules that the table has from here on: no policy can do better.

    It needs to be asked about the stream that the table was recorded on, from its first experience
    on, and finds out where the model stands from ``state.history``.

    Args:
        table: The table.
        modes: Update modes that it may use, ``SKIP`` besides; all unless given.
        step_fractions: Efforts that it may use; all unless given.
    """

    table: RecordedTable
    modes: frozenset[UpdateMode] | None = None
    step_fractions: frozenset[float] | None = None

    def decide(self, state: State, options: Sequence[Option], balance: Balance) -> Decision:
        """Choose the first step of the best schedule from here on.

        Raises:
            ConfigurationError: If the table is of another stream, or the step is no option.
        """
        if state.position >= self.table.num_experiences:
            raise ConfigurationError(
                f"experience {state.position} is not in the table of "
                f"{self.table.header.stream!r}, which has {self.table.num_experiences}"
            )
        key = self._where(state)
        search = _Search(self.table, self.modes, self.step_fractions)
        actions = search.best(state.position, key, balance.left_j)
        row = self.table.row(state.position, key, actions[0])
        option = next((each for each in options if each.action == row.action), None)
        if option is None:
            raise ConfigurationError(
                f"the best schedule takes {row.action} at experience {state.position}, which is "
                "not among the options"
            )
        gain = self.table.metric(row) - self.table.metric(self.table.row(state.position, key, SKIP))
        known = dataclasses.replace(
            option,
            cost_j=Estimate(mean=row.energy_j, sd=0.0, upper=row.energy_j),
            gain=Estimate(mean=gain, sd=0.0, upper=gain),
        )
        sentence = (
            f"{row.action} for {format_energy(row.energy_j)} begins the best schedule of the table "
            f"for the {format_energy(balance.left_j)} left"
        )
        return decided(
            known,
            Reason.FIXED,
            sentence,
            alternatives=tuple(
                Alternative(option=known)
                if each is option
                else Alternative(option=each, why_lost="does not begin the best schedule")
                for each in options
            ),
        )

    def _where(self, state: State) -> str:
        if len(state.history) == HISTORY_KEPT and state.history[0].position > 0:
            raise ConfigurationError(
                f"the history of experience {state.position} no longer reaches back to the first "
                f"one; an Oracle can follow {HISTORY_KEPT} experiences"
            )
        acted = {
            past.position: Action(mode=past.mode, step_fraction=past.step_fraction)
            for past in state.history
        }
        key = UNTRAINED
        for position in range(state.position):  # what nobody decided about was skipped
            key = self.table.row(position, key, acted.get(position, SKIP)).after
        return key


class _Search:
    """Find the best way through a table."""

    def __init__(
        self,
        table: RecordedTable,
        modes: Collection[UpdateMode] | None,
        step_fractions: Collection[float] | None,
    ) -> None:
        self._horizon = table.num_experiences
        self._rows: dict[Place, list[_Step]] = {}
        for place, rows in table.rows.items():
            allowed = [row for row in rows if _allowed(row.action, modes, step_fractions)]
            self._rows[place] = [(row, table.metric(row)) for row in allowed]

    def best(self, position: int, key: str, left_j: float) -> list[Action]:
        """Return the best actions from a place on, the cheapest of those that are equally good."""
        most_j = left_j * (1 + _ROUNDING)
        bounds, known = self._relax(position, key, most_j)
        labels = {key: [_Label(0.0, 0.0)]}
        for now in range(position, self._horizon):
            reached: dict[str, list[_Label]] = {}
            for at, ways in labels.items():
                for row, metric in self._rows[now, at]:
                    ahead = [(price, most[now + 1, row.after]) for price, most in bounds]
                    for way in ways:
                        spent_j, total = way.spent_j + row.energy_j, way.total + metric
                        if spent_j > most_j:
                            break  # ways are sorted by joules
                        rest_j = most_j - spent_j
                        most = total + min(each + price * rest_j for price, each in ahead)
                        if most >= known - _ROUNDING:
                            reached.setdefault(row.after, []).append(
                                _Label(spent_j, total, row, way)
                            )
            labels = {at: _undominated(ways) for at, ways in reached.items()}
        ends = [way for ways in labels.values() for way in ways]
        return max(ends, key=lambda way: (round(way.total, 9), -way.spent_j)).actions()

    def _relax(
        self, position: int, key: str, left_j: float
    ) -> tuple[list[tuple[float, dict[Place, float]]], float]:
        """Return what is ahead of each place at most, for some prices, and a total within reach."""
        known = -math.inf

        def fits(price: float) -> bool:
            nonlocal known
            spent_j, total = self._follow(position, key, price)
            if spent_j <= left_j:
                known = max(known, total)
            return spent_j <= left_j

        low, high = 0.0, 0.0
        if not fits(0.0):
            drawn_j = [row.energy_j for rows in self._rows.values() for row, _ in rows]
            high = 1e-6 / max(drawn_j)
            while not fits(high) and math.isfinite(high):
                low, high = high, 4.0 * high
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                low, high = (low, middle) if fits(middle) else (middle, high)
        prices = dict.fromkeys(factor * high for factor in _AROUND)
        return [(price, self._ahead(position, price)[0]) for price in prices], known

    def _follow(self, position: int, key: str, price: float) -> tuple[float, float]:
        """Return the joules and the metrics, summed up, of the best way at a price."""
        _, steps = self._ahead(position, price)
        spent_j, total = 0.0, 0.0
        for now in range(position, self._horizon):
            row, metric = steps[now, key]
            spent_j, total, key = spent_j + row.energy_j, total + metric, row.after
        return spent_j, total

    def _ahead(self, position: int, price: float) -> tuple[dict[Place, float], dict[Place, _Step]]:
        """Return the most that ``metric - price * joules`` sums up to from each place on."""
        most: dict[Place, float] = defaultdict(float)  # nothing is ahead of the end
        steps: dict[Place, _Step] = {}
        for place in sorted(self._rows, reverse=True):
            if place[0] < position:
                break
            values = [
                (metric - price * row.energy_j + most[place[0] + 1, row.after], -row.energy_j)
                for row, metric in self._rows[place]
            ]
            best = max(range(len(values)), key=values.__getitem__)
            most[place], steps[place] = values[best][0], self._rows[place][best]
        return most, steps


def _allowed(
    action: Action, modes: Collection[UpdateMode] | None, step_fractions: Collection[float] | None
) -> bool:
    if action.mode is UpdateMode.SKIP:
        return True
    return (modes is None or action.mode in modes) and (
        step_fractions is None or action.step_fraction in step_fractions
    )


def _undominated(ways: list[_Label]) -> list[_Label]:
    """Return the ways that no other one beats in both joules and metric, the cheapest first."""
    kept: list[_Label] = []
    for way in sorted(ways, key=lambda way: (way.spent_j, -way.total)):
        if not kept or way.total > kept[-1].total + _EQUAL:
            kept.append(way)
    return kept
