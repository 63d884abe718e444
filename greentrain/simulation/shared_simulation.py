"""Simulate many streams that pay from one budget at one price: the real controllers, no training.

Each stream has its own recorded table and controller. The experiences of all streams arrive in
turn. At each decision, a stream sees the last options of the others, as it does through a ledger.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from greentrain.control.action import Candidate, Option
from greentrain.control.controller import BudgetController
from greentrain.control.cost import CostModel
from greentrain.control.forecast import Prospect
from greentrain.control.update_modes import UpdateMode
from greentrain.decisions.stream_budget import RECENT, experiences_of, newest
from greentrain.errors import ConfigurationError
from greentrain.ledger import DecisionSummary
from greentrain.simulation.recorded_table import RecordedTable
from greentrain.simulation.simulator import InMemoryAccount, calibration, learn_from
from greentrain.simulation.table_path import SimulationResult, TablePath

_MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
_ROUNDING = 1e-9


def simulate_shared(tables: Sequence[RecordedTable], budget_j: float) -> list[SimulationResult]:
    """Simulate streams that pay from one budget, each with the default policy.

    An update uses the joules of its table. If these are more than was reserved, the rest is an
    overrun, because no guard can cut a recorded training.

    Args:
        tables: The table of each stream; several streams may have the same one.
        budget_j: Joules that all streams together may spend.

    Returns:
        The result of each stream. Its ``violations`` counts the stream's updates after which more
        than the budget was spent.

    Raises:
        ConfigurationError: If there is no table, or ``budget_j`` is not above 0.

    Example:
        >>> simulate_shared([], 10.0)
        Traceback (most recent call last):
        ...
        greentrain.errors.ConfigurationError: tables is empty and budget_j is 10.0; give ...
    """
    if not tables or not budget_j > 0:
        raise ConfigurationError(
            f"tables is {'empty' if not tables else 'given'} and budget_j is {budget_j!r}; give at "
            "least one table, and joules above 0"
        )
    account, peers = InMemoryAccount(budget_j), _Peers()
    streams = [_Stream(f"{number}", table, account) for number, table in enumerate(tables)]
    left = sum(table.num_experiences for table in tables)
    for position in range(max(table.num_experiences for table in tables)):
        for stream in streams:
            if position < stream.table.num_experiences:
                stream.decide(position, left, peers)
                left -= 1
    return [stream.result(budget_j) for stream in streams]


class _Stream:
    """One stream: its table, its path through it and its controller."""

    def __init__(self, name: str, table: RecordedTable, account: InMemoryAccount) -> None:
        self.name, self.table, self._account = name, table, account
        cost = CostModel()
        fixed_j, step_j = calibration(table)
        cost.calibrate(fixed_j=fixed_j, step_j=step_j)
        self._controller = BudgetController(account, cost=cost)
        self._path = TablePath(table)
        self._violations, self._overrun_j = 0, 0.0

    def decide(self, position: int, left: int, peers: _Peers) -> None:
        """Decide about an experience, and follow the decision.

        Args:
            position: Number of the experience.
            left: Experiences of all streams that are left, this one included.
            peers: The other streams.
        """
        table, path, controller = self.table, self._path, self._controller
        candidates = [
            Candidate(action=row.action, steps=row.steps)
            for row in table.rows[position, path.key]
            if row.action.mode is not UpdateMode.SKIP
        ]
        state = dataclasses.replace(path.state(position), num_experiences=position + left)
        others = peers.prospects(self.name, left - 1)
        state, decision = controller.decide(state, candidates, others=others)
        row = table.row(position, path.key, decision.action)
        reservation = controller.reserve(decision, str(decision.action))
        if reservation is not None:
            self._overrun_j += self._account.settle(reservation, row.energy_j)
            balance = self._account.balance()
            self._violations += balance.spent_j > balance.total_j * (1 + _ROUNDING)
        learn_from(row, controller, decision, state)
        path.take(row, 0.0)
        options = [alternative.option for alternative in decision.alternatives]
        peers.add(self.name, str(decision.reason), options)

    def result(self, budget_j: float) -> SimulationResult:
        """Return the result so far."""
        return self._path.outcome(
            budget_j=budget_j, violations=self._violations, overrun_j=self._overrun_j
        )


class _Peers:
    """The last decisions of all streams, with their options."""

    def __init__(self) -> None:
        self._recent: deque[tuple[DecisionSummary, list[Option]]] = deque(maxlen=RECENT)
        self._count = 0

    def add(self, stream: str, reason: str, options: list[Option]) -> None:
        """Add a decision."""
        self._count += 1
        summary = DecisionSummary(
            entry_id=self._count,
            stream=stream,
            experience_id=f"{self._count}",
            reason=reason,
            moment=_MOMENT,
        )
        self._recent.appendleft((summary, options))

    def prospects(self, stream: str, ahead: int) -> tuple[Prospect, ...]:
        """Return the last options of other streams, and the experiences that they represent."""
        recent = [summary for summary, _ in self._recent]
        chosen = newest(recent, stream)
        options = {summary.entry_id: options for summary, options in self._recent}
        weights = experiences_of([each.stream for each in recent], chosen, stream, ahead)
        return tuple(zip((options[each.entry_id] for each in chosen), weights, strict=True))
