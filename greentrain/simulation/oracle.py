"""Find the best schedule of a recorded table, and follow it as a policy."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from greentrain.budget import Balance
from greentrain.control.action import SKIP, Action, Estimate, Option
from greentrain.control.decision import Alternative, Decision, Reason, decided
from greentrain.control.forecast import NO_FORECAST, OptionForecast
from greentrain.control.state import HISTORY_KEPT, State
from greentrain.control.update_modes import UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.simulation.recorded_table import UNTRAINED, Place, RecordedRow, RecordedTable
from greentrain.simulation.simulator import follow
from greentrain.simulation.table_path import SimulationResult
from greentrain.units import format_energy

_ROUNDING = 1e-9
"""Share of a budget, and difference of sums of metrics, within which numbers count as equal."""
_EQUAL = 1e-12
"""Difference of sums of metrics within which the cheaper path is as good."""
_BISECTIONS = 40
_AROUND = (0.0, 0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
"""Prices of the bounds, as multiples of the price at which the relaxed schedule just fits."""

_Step = tuple[RecordedRow, float]
"""A row, and the metric after it."""


@dataclass(frozen=True, slots=True)
class _Label:
    """A path to a place: its joules, the sum of its metrics, and its last step."""

    spent_j: float
    total: float
    row: RecordedRow | None = None
    before: _Label | None = None

    def actions(self) -> list[Action]:
        """Return the actions of the path, the first one first."""
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
) -> SimulationResult:
    """Return the schedule with the highest anytime metric within a budget.

    The result is exact. Dynamic programming over places keeps, for each place, only the paths that
    no other one beats in both joules and metric. It drops paths that cannot beat the best known
    schedule. The bound on the rest of a path is a Lagrangian relaxation, for any price
    ``p >= 0``. A path from a place with ``b`` joules left gains at most ``p * b`` plus the largest
    sum of ``metric - p * joules``, which is a shortest path.

    Args:
        table: The table.
        budget_j: Joules that may be spent.
        modes: Allowed update modes besides ``SKIP``; all by default.
        step_fractions: Allowed step fractions; all by default.

    Raises:
        ConfigurationError: If the budget is below 0.
    """
    if not budget_j >= 0:
        raise ConfigurationError(f"budget_j is {budget_j!r}; set it to joules, 0 or more")
    search = _Search(table, modes, step_fractions)
    return follow(table, search.best(0, UNTRAINED, budget_j))


@dataclass(frozen=True, slots=True)
class Oracle:
    """Follow the best schedule of a table from the current place: no policy can do better.

    It works only on the stream of the table, from its first experience on. The place of the model
    follows from ``state.history``.

    Args:
        table: The table.
        modes: Allowed update modes besides ``SKIP``; all by default.
        step_fractions: Allowed step fractions; all by default.
    """

    table: RecordedTable
    modes: frozenset[UpdateMode] | None = None
    step_fractions: frozenset[float] | None = None

    def decide(
        self,
        state: State,
        options: Sequence[Option],
        balance: Balance,
        forecast: OptionForecast = NO_FORECAST,
    ) -> Decision:
        """Choose the first action of the best schedule from the current place.

        Raises:
            ConfigurationError: If the table is of another stream, or the action is not an option.
        """
        if state.position >= self.table.num_experiences:
            raise ConfigurationError(
                f"experience {state.position} is not in the table of "
                f"{self.table.header.stream!r}, which has {self.table.num_experiences}; use the "
                "stream of the table"
            )
        key = self._where(state)
        search = _Search(self.table, self.modes, self.step_fractions)
        actions = search.best(state.position, key, balance.left_j)
        row = self.table.row(state.position, key, actions[0])
        option = next((each for each in options if each.action == row.action), None)
        if option is None:
            raise ConfigurationError(
                f"the best schedule has {row.action} at experience {state.position}, which is not "
                "among the options; use the stream of the table"
            )
        gain = self.table.metric(row) - self.table.metric(self.table.row(state.position, key, SKIP))
        known = dataclasses.replace(
            option,
            cost_j=Estimate(mean=row.energy_j, sd=0.0, upper=row.energy_j),
            gain=Estimate(mean=gain, sd=0.0, upper=gain),
        )
        sentence = (
            f"First of the best schedule of the table for the {format_energy(balance.left_j)} "
            f"left; {row.action} for {format_energy(row.energy_j)}"
        )
        return decided(
            known,
            Reason.FIXED,
            sentence,
            alternatives=tuple(
                Alternative(option=known)
                if each is option
                else Alternative(option=each, why_lost="not in the best schedule")
                for each in options
            ),
        )

    def _where(self, state: State) -> str:
        if len(state.history) == HISTORY_KEPT and state.history[0].position > 0:
            raise ConfigurationError(
                f"the history of experience {state.position} no longer reaches back to the first "
                f"one; use an Oracle for at most {HISTORY_KEPT} experiences"
            )
        acted = {
            past.position: Action(mode=past.mode, step_fraction=past.step_fraction)
            for past in state.history
        }
        key = UNTRAINED
        for position in range(state.position):  # without a decision it was skipped
            key = self.table.row(position, key, acted.get(position, SKIP)).after
        return key


class _Search:
    """Find the best path through a table."""

    def __init__(
        self,
        table: RecordedTable,
        modes: Collection[UpdateMode] | None,
        step_fractions: Collection[float] | None,
    ) -> None:
        self._num_experiences = table.num_experiences
        self._rows: dict[Place, list[_Step]] = {}
        for place, rows in table.rows.items():
            allowed = [row for row in rows if _allowed(row.action, modes, step_fractions)]
            self._rows[place] = [(row, table.metric(row)) for row in allowed]

    def best(self, position: int, key: str, left_j: float) -> list[Action]:
        """Return the best actions from a place on, the cheapest of equally good ones."""
        most_j = left_j * (1 + _ROUNDING)
        bounds, known = self._relax(position, key, most_j)
        labels = {key: [_Label(0.0, 0.0)]}
        for now in range(position, self._num_experiences):
            reached: dict[str, list[_Label]] = {}
            for at, paths in labels.items():
                for row, metric in self._rows[now, at]:
                    ahead = [(price, most[now + 1, row.after]) for price, most in bounds]
                    for path in paths:
                        spent_j, total = path.spent_j + row.energy_j, path.total + metric
                        if spent_j > most_j:
                            break  # paths are sorted by joules
                        rest_j = most_j - spent_j
                        most = total + min(each + price * rest_j for price, each in ahead)
                        if most >= known - _ROUNDING:
                            reached.setdefault(row.after, []).append(
                                _Label(spent_j, total, row, path)
                            )
            labels = {at: _undominated(paths) for at, paths in reached.items()}
        ends = [path for paths in labels.values() for path in paths]
        return max(ends, key=lambda path: (round(path.total, 9), -path.spent_j)).actions()

    def _relax(
        self, position: int, key: str, left_j: float
    ) -> tuple[list[tuple[float, dict[Place, float]]], float]:
        """Return bounds on the rest of each place, for some prices, and a feasible total."""
        known = -math.inf

        def fits(price: float) -> bool:
            nonlocal known
            spent_j, total = self._follow(position, key, price)
            if spent_j <= left_j:
                known = max(known, total)
            return spent_j <= left_j

        low, high = 0.0, 0.0
        if not fits(0.0):
            used_j = [row.energy_j for rows in self._rows.values() for row, _ in rows]
            high = 1e-6 / max(used_j)
            while not fits(high) and math.isfinite(high):
                low, high = high, 4.0 * high
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                low, high = (low, middle) if fits(middle) else (middle, high)
        prices = dict.fromkeys(factor * high for factor in _AROUND)
        return [(price, self._ahead(position, price)[0]) for price in prices], known

    def _follow(self, position: int, key: str, price: float) -> tuple[float, float]:
        """Return the summed joules and metrics of the best path at a price."""
        _, steps = self._ahead(position, price)
        spent_j, total = 0.0, 0.0
        for now in range(position, self._num_experiences):
            row, metric = steps[now, key]
            spent_j, total, key = spent_j + row.energy_j, total + metric, row.after
        return spent_j, total

    def _ahead(self, position: int, price: float) -> tuple[dict[Place, float], dict[Place, _Step]]:
        """Return the largest sum of ``metric - price * joules`` from each place on."""
        most: dict[Place, float] = defaultdict(float)  # 0 after the end
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


def _undominated(paths: list[_Label]) -> list[_Label]:
    """Return the paths that no other one beats in both joules and metric, the cheapest first."""
    kept: list[_Label] = []
    for path in sorted(paths, key=lambda path: (path.spent_j, -path.total)):
        if not kept or path.total > kept[-1].total + _EQUAL:
            kept.append(path)
    return kept
