"""Policies judged on a recorded table: the real controller, with nothing to train."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from greentrain.budget import Balance, overrun
from greentrain.control.action import SKIP, Action, Candidate, State, UpdateMode
from greentrain.control.controller import BudgetController, broke
from greentrain.control.cost import CostModel
from greentrain.control.decision import Decision
from greentrain.control.policies.priced import Policy
from greentrain.control.utility import UtilityModel
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.simulation.recorded_table import UNTRAINED, RecordedRow, RecordedTable

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
_ROUNDING = 1e-9
"""Share of a budget within which sums of floating-point numbers count as equal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """What a schedule of updates comes to on a table.

    Args:
        actions: What was done with each experience.
        metrics: The metric after each, oriented.
        energy_j: Joules of each, the look at it included.
        budget_j: Joules that there were; infinite where nothing was asked for.
        violations: Experiences for which more was spent than there was.
        overrun_j: Joules drawn beyond reservations.
        decisions: The decisions; empty for a schedule that nobody decided.
    """

    actions: tuple[Action, ...]
    metrics: tuple[float, ...]
    energy_j: tuple[float, ...]
    budget_j: float = math.inf
    violations: int = 0
    overrun_j: float = 0.0
    decisions: tuple[Decision, ...] = ()

    @property
    def anytime(self) -> float:
        """The mean of the metric after each experience."""
        return math.fsum(self.metrics) / len(self.metrics)

    @property
    def spent_j(self) -> float:
        """Joules in all."""
        return math.fsum(self.energy_j)


class MemoryAccount:
    """An account that lasts as long as a simulation.

    Args:
        total_j: Joules that may be spent.

    Example:
        >>> account = MemoryAccount(10.0)
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
        """Return where the budget stands."""
        return Balance(
            total_j=self._total_j,
            spent_j=self._spent_j,
            reserved_j=math.fsum(self._open.values()),
            overrun_j=self._overrun_j,
        )

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Set joules aside.

        Raises:
            BudgetExceeded: If fewer are left.
        """
        left_j = self.balance().left_j
        if upper_bound_j > left_j + _ROUNDING * self._total_j:
            raise BudgetExceeded(
                f"{purpose} asks for {upper_bound_j:g} J, and {left_j:g} J are left",
                asked_j=upper_bound_j,
                left_j=left_j,
            )
        self._reservations += 1
        self._open[str(self._reservations)] = upper_bound_j
        return str(self._reservations)

    def settle(self, reservation: str, actual_j: float) -> float:
        """Record what was drawn, and return the overrun in joules."""
        overrun_j = overrun(self._open.pop(reservation), actual_j)
        self._spent_j += actual_j
        self._overrun_j += overrun_j
        return overrun_j


def simulate(
    table: RecordedTable,
    policy: Policy | None,
    budget_j: float,
    *,
    look_j: float = 0.0,
    calibrated: bool = True,
    utility: UtilityModel | None = None,
) -> Simulated:
    """Take a policy through a table, under a budget.

    A real :class:`BudgetController` decides, with a cost and a utility model that learn as they go.
    The calibration of the cost model is the line through the table's own joules. An update draws
    what the table says: where that is more than was reserved, the rest is an overrun, because no
    guard can cut a training that is over.

    Args:
        table: The table.
        policy: The policy; the controller's own if ``None``.
        budget_j: Joules that may be spent.
        look_j: Joules of looking at an experience. Whoever cannot pay them skips it.
        calibrated: Whether the cost model is calibrated before the first training. Otherwise the
            controller begins it within a cap, as a stream with a budget in joules does; the guard
            that would cut it there leaves the most effort that the table has within the cap.
        utility: A utility model, in place of a fresh one.

    Raises:
        ConfigurationError: If the budget is not above 0, or ``look_j`` is below 0.
    """
    if not (budget_j > 0 and look_j >= 0):
        raise ConfigurationError(
            f"budget_j is {budget_j!r} and look_j is {look_j!r}; the one is above 0, the other is "
            "0 or more"
        )
    account, cost = MemoryAccount(budget_j), CostModel()
    fixed_j, step_j = calibration(table)
    if calibrated:
        cost.calibrate(fixed_j=fixed_j, step_j=step_j)
    controller = BudgetController(account, policy=policy, cost=cost, utility=utility)
    walk, decisions, violations = _Walk(table), [], 0
    for position in range(table.num_experiences):
        if account.balance().left_j < look_j * (1 - _ROUNDING):
            decisions.append(broke(f"{account.balance().left_j:g} J are left: too little to look"))
            walk.take(table.row(position, walk.key, SKIP), 0.0)
            continue
        if look_j:
            account.settle(account.reserve(look_j, "look"), look_j)
        candidates = [
            Candidate(action=row.action, steps=row.steps)
            for row in table.rows[position, walk.key]
            if row.action.mode is not UpdateMode.SKIP
        ]
        state, decision = controller.decide(
            walk.state(position), candidates, keep_j=look_j * (table.num_experiences - position - 1)
        )
        row = table.row(position, walk.key, decision.action)
        if not cost.calibrated:
            row = _cut(table, row, decision.cost_j.upper)
            cost.calibrate(fixed_j=fixed_j, step_j=step_j)
        reservation = controller.reserve(decision, str(decision.action))
        if reservation is not None:
            account.settle(reservation, row.energy_j)
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
        decisions.append(decision)
        walk.take(row, look_j)
        over = account.balance().spent_j > budget_j * (1 + _ROUNDING)
        violations += over and row.energy_j + look_j > 0
    return walk.outcome(
        budget_j=budget_j,
        violations=violations,
        overrun_j=account.balance().overrun_j,
        decisions=tuple(decisions),
    )


def follow(table: RecordedTable, actions: Sequence[Action]) -> Simulated:
    """Return what a schedule comes to.

    Args:
        table: The table.
        actions: One for each experience.

    Raises:
        ConfigurationError: If one of them was not recorded, or there are not enough of them.
    """
    if len(actions) != table.num_experiences:
        raise ConfigurationError(
            f"there are {len(actions)} actions for {table.num_experiences} experiences; give one for each"
        )
    walk = _Walk(table)
    for position, action in enumerate(actions):
        walk.take(table.row(position, walk.key, action), 0.0)
    return walk.outcome()


def train_once(table: RecordedTable) -> Simulated:
    """Return what training once and never again comes to: 0 % of the gap."""
    return follow(table, [FULL, *[SKIP] * (table.num_experiences - 1)])


def always_full(table: RecordedTable) -> Simulated:
    """Return what retraining in full at each experience comes to: 100 % of the gap."""
    return follow(table, [FULL] * table.num_experiences)


def share_of_gap(anytime: float, once: float, full: float) -> float | None:
    """Return the share of the gap between training once and always in full that is closed.

    Args:
        anytime: The anytime metric of what is judged.
        once: That of training once.
        full: That of retraining in full at each experience.

    Returns:
        The share; may be below 0 or above 1, and is ``None`` where there is no gap to close.

    Example:
        >>> round(share_of_gap(0.875, once=0.85, full=0.9), 6)
        0.5
        >>> share_of_gap(0.875, once=0.9, full=0.9) is None
        True
    """
    return (anytime - once) / (full - once) if full > once else None


def calibration(table: RecordedTable) -> tuple[float, float]:
    """Return the joules of an update around its steps, and those of a step.

    The least-squares line through the updates of a table, each weighted by one over its joules;
    through zero where it would begin below.
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
    """Return the row of the same update mode that a guard with this cap comes nearest to."""
    rows = table.rows[row.position, row.before]
    same = [each for each in rows if each.action.mode is row.action.mode]
    within = [each for each in same if each.energy_j <= cap_j]
    if within:
        return max(within, key=lambda each: each.energy_j)
    return min(same, key=lambda each: each.energy_j)


class _Walk:
    """Where a model stands on a table, and how it came there."""

    def __init__(self, table: RecordedTable) -> None:
        self.key = UNTRAINED
        self._table = table
        self._rows: list[RecordedRow] = []
        self._energy_j: list[float] = []
        self._last: float | None = None
        self._best: float | None = None

    def take(self, row: RecordedRow, look_j: float) -> None:
        """Go on to where an action leads."""
        self._rows.append(row)
        self._energy_j.append(row.energy_j + look_j)
        self.key = row.after
        if row.steps and row.kept:
            self._last = row.metric_after
            known = [each for each in (self._best, self._last) if each is not None]
            self._best = max(known, default=None)

    def state(self, position: int) -> State:
        """Return what a look finds here."""
        look, header = self._table.looks[position, self.key], self._table.header
        kept = [row for row in self._rows if row.steps and row.kept]
        fulls = [row.position for row in kept if row.action.mode is UpdateMode.FULL_RETRAIN]
        ceiling = 1.0 if header.more_is_better else 0.0
        known = self._best is not None and self._best <= ceiling
        return State(
            position=position,
            num_experiences=self._table.num_experiences,
            has_model=self.key != UNTRAINED,
            metric_before=look.metric_before,
            metric_new=look.metric_new,
            metric_last=self._last,
            metric_best=self._best,
            metric_ceiling=ceiling if known else None,
            n_new=look.n_new,
            n_stored=look.n_stored,
            n_pending=look.n_pending,
            warm_starts=sum(row.position > max(fulls, default=-1) for row in kept),
            since_update=position - kept[-1].position if kept else 0,
            since_full=position - fulls[-1] if fulls else 0,
            metric_past=look.metric_past,
            loss_new=look.loss_new,
            loss_past=look.loss_past,
            unseen=look.unseen,
            shift=look.shift,
            shift_by=look.shift_by,
            weight_growth=look.weight_growth,
            slope=look.slope,
        )

    def outcome(
        self,
        *,
        budget_j: float = math.inf,
        violations: int = 0,
        overrun_j: float = 0.0,
        decisions: tuple[Decision, ...] = (),
    ) -> Simulated:
        """Return what it came to."""
        return Simulated(
            actions=tuple(row.action for row in self._rows),
            metrics=tuple(self._table.metric(row) for row in self._rows),
            energy_j=tuple(self._energy_j),
            budget_j=budget_j,
            violations=violations,
            overrun_j=overrun_j,
            decisions=decisions,
        )
