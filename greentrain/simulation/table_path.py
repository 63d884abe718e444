"""The path of a model through a recorded table, and the result of a simulation."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from greentrain.control.action import Action
from greentrain.control.decision import Decision
from greentrain.control.state import State
from greentrain.control.update_modes import UpdateMode
from greentrain.simulation.recorded_table import UNTRAINED, RecordedRow, RecordedTable


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationResult:
    """Result of a schedule of updates on a table.

    Args:
        actions: The action at each experience.
        metrics: The metric after each, oriented.
        energy_j: Joules of each, including its probe.
        budget_j: The budget; infinite without one.
        violations: Experiences after which more was spent than the budget.
        overrun_j: Joules used beyond reservations.
        decisions: The decisions; empty for a given schedule.
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
        """Joules of all experiences."""
        return math.fsum(self.energy_j)


class TablePath:
    """The path of a model through a table, up to its current key.

    Args:
        table: The table.

    Attributes:
        key: Key of the model.
    """

    def __init__(self, table: RecordedTable) -> None:
        self.key = UNTRAINED
        self._table = table
        self._rows: list[RecordedRow] = []
        self._energy_j: list[float] = []
        self._last: float | None = None
        self._best: float | None = None

    def take(self, row: RecordedRow, probe_j: float) -> None:
        """Follow an action."""
        self._rows.append(row)
        self._energy_j.append(row.energy_j + probe_j)
        self.key = row.after
        if row.steps and row.kept:
            self._last = row.metric_after
            known = [each for each in (self._best, self._last) if each is not None]
            self._best = max(known, default=None)

    def state(self, position: int) -> State:
        """Return the state at the current place."""
        probe, header = self._table.probes[position, self.key], self._table.header
        kept = [row for row in self._rows if row.steps and row.kept]
        fulls = [row.position for row in kept if row.action.mode is UpdateMode.FULL_RETRAIN]
        ceiling = 1.0 if header.more_is_better else 0.0
        known = self._best is not None and self._best <= ceiling
        return State(
            num_experiences=self._table.num_experiences,
            has_model=self.key != UNTRAINED,
            metric_last=self._last,
            metric_best=self._best,
            metric_ceiling=ceiling if known else None,
            warm_starts=sum(row.position > max(fulls, default=-1) for row in kept),
            since_update=position - kept[-1].position if kept else 0,
            since_full=position - fulls[-1] if fulls else 0,
            **{name: value for name, value in asdict(probe).items() if name != "before"},
        )

    def outcome(
        self,
        *,
        budget_j: float = math.inf,
        violations: int = 0,
        overrun_j: float = 0.0,
        decisions: tuple[Decision, ...] = (),
    ) -> SimulationResult:
        """Return the result so far."""
        return SimulationResult(
            actions=tuple(row.action for row in self._rows),
            metrics=tuple(self._table.metric(row) for row in self._rows),
            energy_j=tuple(self._energy_j),
            budget_j=budget_j,
            violations=violations,
            overrun_j=overrun_j,
            decisions=decisions,
        )
