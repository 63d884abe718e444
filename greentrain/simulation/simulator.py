"""Simulate policies on a recorded table: the real controller, without any training."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from greentrain.budget import Balance, overrun
from greentrain.control.action import SKIP, Action, Candidate
from greentrain.control.controller import BudgetController, broke
from greentrain.control.cost import CostModel
from greentrain.control.decision import Decision
from greentrain.control.policies.policy import Policy
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode
from greentrain.control.utility import UtilityModel
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.simulation.recorded_table import RecordedRow, RecordedTable
from greentrain.simulation.table_path import SimulationResult, TablePath
from greentrain.units import format_energy

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
_ROUNDING = 1e-9
"""Share of a budget within which sums of floating-point numbers count as equal."""


class InMemoryAccount:
    """An account in memory, for a simulation.

    Args:
        total_j: Joules that may be spent.

    Example:
        >>> account = InMemoryAccount(10.0)
        >>> account.settle(account.reserve(6.0, "update"), 7.0)
        1.0
        >>> account.balance().left_j
        3.0
    """

    def __init__(self, total_j: float) -> None:
        self._total_j = total_j
        self._spent_j = 0.0
        self._overrun_j = 0.0
        self._open: dict[str, float] = {}
        self._reservations = 0

    def balance(self) -> Balance:
        """Return the balance."""
        return Balance(
            total_j=self._total_j,
            spent_j=self._spent_j,
            reserved_j=math.fsum(self._open.values()),
            overrun_j=self._overrun_j,
        )

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Reserve joules.

        Raises:
            BudgetExceeded: If fewer are left.
        """
        left_j = self.balance().left_j
        if upper_bound_j > left_j + _ROUNDING * self._total_j:
            raise BudgetExceeded(
                f"{purpose} needs {format_energy(upper_bound_j)}, and "
                f"{format_energy(left_j)} are left",
                requested_j=upper_bound_j,
                left_j=left_j,
            )
        self._reservations += 1
        self._open[str(self._reservations)] = upper_bound_j
        return str(self._reservations)

    def settle(self, reservation: str, actual_j: float) -> float:
        """Settle a reservation, and return the overrun in joules."""
        overrun_j = overrun(self._open.pop(reservation), actual_j)
        self._spent_j += actual_j
        self._overrun_j += overrun_j
        return overrun_j


def simulate(
    table: RecordedTable,
    policy: Policy | None,
    budget_j: float,
    *,
    probe_j: float = 0.0,
    calibrated: bool = True,
    utility: UtilityModel | None = None,
) -> SimulationResult:
    """Simulate a policy on a table, under a budget.

    A real :class:`BudgetController` decides, with a cost and a utility model that learn. The cost
    model is calibrated by the line through the table's joules. An update uses the joules of the
    table. If these are more than was reserved, the rest is an overrun, because no guard can cut a
    recorded training.

    Args:
        table: The table.
        policy: The policy; the default of the controller if ``None``.
        budget_j: Joules that may be spent.
        probe_j: Joules of a probe. An experience whose probe is not affordable is skipped.
        calibrated: Whether the cost model is calibrated before the first training. Otherwise the
            controller starts that within a cap, as a stream with a budget in joules does. Its
            result is the recorded one with the largest step fraction within the cap.
        utility: A utility model, in place of a fresh one.

    Raises:
        ConfigurationError: If the budget is not above 0, or ``probe_j`` is below 0.
    """
    if not (budget_j > 0 and probe_j >= 0):
        raise ConfigurationError(
            f"budget_j is {budget_j!r} and probe_j is {probe_j!r}; set budget_j above 0, and "
            "probe_j to 0 or more"
        )
    account, cost = InMemoryAccount(budget_j), CostModel()
    fixed_j, step_j = calibration(table)
    if calibrated:
        cost.calibrate(fixed_j=fixed_j, step_j=step_j)
    controller = BudgetController(account, policy=policy, cost=cost, utility=utility)
    path, decisions, violations = TablePath(table), [], 0
    for position in range(table.num_experiences):
        left_j = account.balance().left_j
        if left_j < probe_j * (1 - _ROUNDING):
            decisions.append(broke(f"{format_energy(left_j)} left, too few for a probe"))
            path.take(table.row(position, path.key, SKIP), 0.0)
            continue
        if probe_j:
            account.settle(account.reserve(probe_j, "probe"), probe_j)
        candidates = [
            Candidate(action=row.action, steps=row.steps)
            for row in table.rows[position, path.key]
            if row.action.mode is not UpdateMode.SKIP
        ]
        state, decision = controller.decide(
            path.state(position),
            candidates,
            keep_j=probe_j * (table.num_experiences - position - 1),
        )
        row = table.row(position, path.key, decision.action)
        if not cost.calibrated:
            row = _cut(table, row, decision.cost_j.upper)
            cost.calibrate(fixed_j=fixed_j, step_j=step_j)
        reservation = controller.reserve(decision, str(decision.action))
        if reservation is not None:
            account.settle(reservation, row.energy_j)
        learn_from(row, controller, decision, state)
        decisions.append(decision)
        path.take(row, probe_j)
        over = account.balance().spent_j > budget_j * (1 + _ROUNDING)
        violations += over and row.energy_j + probe_j > 0
    return path.outcome(
        budget_j=budget_j,
        violations=violations,
        overrun_j=account.balance().overrun_j,
        decisions=tuple(decisions),
    )


def learn_from(
    row: RecordedRow, controller: BudgetController, decision: Decision, state: State
) -> None:
    """Let a controller learn from the recorded outcome of its decision."""
    controller.learn(
        decision,
        state,
        steps=row.steps,
        actual_j=row.energy_j,
        metric_after=row.metric_after,
        gain=row.gain,
        gain_sd=row.gain_sd,
        kept=row.kept,
    )


def follow(table: RecordedTable, actions: Sequence[Action]) -> SimulationResult:
    """Return the result of a schedule.

    Args:
        table: The table.
        actions: One for each experience.

    Raises:
        ConfigurationError: If an action was not recorded, or their number is wrong.
    """
    if len(actions) != table.num_experiences:
        raise ConfigurationError(
            f"there are {len(actions)} actions for {table.num_experiences} experiences; give one "
            "for each"
        )
    path = TablePath(table)
    for position, action in enumerate(actions):
        path.take(table.row(position, path.key, action), 0.0)
    return path.outcome()


def train_once(table: RecordedTable) -> SimulationResult:
    """Return the result of training once and never again: 0 % of the gap."""
    return follow(table, [FULL, *[SKIP] * (table.num_experiences - 1)])


def always_full(table: RecordedTable) -> SimulationResult:
    """Return the result of a full retraining at each experience: 100 % of the gap."""
    return follow(table, [FULL] * table.num_experiences)


def share_of_gap(anytime: float, once: float, full: float) -> float | None:
    """Return the share of the gap between training once and always retraining that is closed.

    Args:
        anytime: The anytime metric of the policy.
        once: The anytime metric of training once.
        full: The anytime metric of a full retraining at each experience.

    Returns:
        The share. It may be below 0 or above 1, and is ``None`` if there is no gap.

    Example:
        >>> round(share_of_gap(0.875, once=0.85, full=0.9), 6)
        0.5
        >>> share_of_gap(0.875, once=0.9, full=0.9) is None
        True
    """
    return (anytime - once) / (full - once) if full > once else None


def calibration(table: RecordedTable) -> tuple[float, float]:
    """Return the joules of an update without its steps, and the joules of a step.

    They are the least-squares line through the updates of a table, each weighted by one over its
    joules. The line goes through zero if it would be negative there.
    """
    rows = [row for rows in table.rows.values() for row in rows if row.steps and row.energy_j]
    if not rows:
        return 0.0, 0.0
    shares = np.array([[1.0 / row.energy_j, row.steps / row.energy_j] for row in rows])
    fixed_j, step_j = np.linalg.lstsq(shares, np.ones(len(rows)), rcond=None)[0]
    if len({row.steps for row in rows}) == 1 or fixed_j < 0 or step_j < 0:
        return 0.0, float(np.median([row.energy_j / row.steps for row in rows]))
    return float(fixed_j), float(step_j)


def _cut(table: RecordedTable, row: RecordedRow, cap_j: float) -> RecordedRow:
    """Return the row of the same update mode that is nearest to the cap of a guard."""
    rows = table.rows[row.position, row.before]
    same = [each for each in rows if each.action.mode is row.action.mode]
    within = [each for each in same if each.energy_j <= cap_j]
    if within:
        return max(within, key=lambda each: each.energy_j)
    return min(same, key=lambda each: each.energy_j)
