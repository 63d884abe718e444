"""Read what happens in a ledger now: running phases, their power, and the last decisions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, or_, select

from greentrain.errors import ConfigurationError
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.schema import (
    closings,
    decisions,
    entries,
    heartbeats,
    outcomes,
    run_chain,
    runs,
    windows,
)
from greentrain.money import BudgetStatus

ALIVE = timedelta(minutes=1)
"""Time without a row after which a run no longer counts as running: six heartbeats."""
_RUNS = 50
_OPEN_RUNS = 200
_STREAMS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePhase:
    """The newest measured phase of a run.

    Args:
        phase: Name of the phase, such as ``"train_epoch"``.
        epoch: The epoch, if there is one.
        started: When the phase began.
        power_w: Mean power between its last two rows, or since it began; ``None`` if unknown.
        complete: Whether every source was measured; otherwise the power is a lower bound.
        is_open: Whether the phase had not ended at its last row.
    """

    phase: str
    epoch: int | None
    started: datetime
    power_w: float | None
    complete: bool
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveDecision:
    """A decision, and what is known of its outcome.

    Args:
        run: Name of the run that decided.
        experience_id: The experience.
        update_mode: The chosen mode.
        step_fraction: The chosen step fraction.
        sentence: The reason in one sentence.
        decided: When it was recorded.
        done: Whether its outcome is recorded.
        energy_j: Joules of the experience; ``None`` if unknown, or before the outcome.
        kept: Whether the model was kept; ``None`` before the outcome.
    """

    run: str
    experience_id: str
    update_mode: str
    step_fraction: float
    sentence: str
    decided: datetime
    done: bool
    energy_j: float | None
    kept: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """The newest run of a name.

    Args:
        name: Its name.
        kind: Its kind, such as ``"stream"``.
        status: ``"running"``, ``"silent"`` (not closed, and without a row for a minute), or the
            status of its closing row.
        since: When it began to have this status.
        phase: Its newest phase; ``None`` before the first.
        update: The decision whose outcome is still open; ``None`` between updates.
    """

    name: str
    kind: str
    status: str
    since: datetime
    phase: LivePhase | None
    update: LiveDecision | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveView:
    """Runs, budgets and decisions of a ledger at one moment.

    Args:
        moment: The moment, by the ledger's clock.
        runs: The newest run of each of the last five names, and all that run; the newest first.
        budgets: Each budget with its status in the present period, by name.
        decisions: The last decisions, the newest first.
    """

    moment: datetime
    runs: tuple[LiveRun, ...]
    budgets: dict[str, BudgetStatus]
    decisions: tuple[LiveDecision, ...]

    @property
    def is_empty(self) -> bool:
        """Return whether the ledger holds neither a run nor a budget."""
        return not self.runs and not self.budgets


def live_view(ledger: Ledger, *, last: int = 5) -> LiveView:
    """Return what happens in a ledger now.

    A few rows of each run are read, so a frame of a large ledger costs no more.

    Args:
        ledger: The ledger, which is only read. Another process may write to it.
        last: Number of decisions.

    Raises:
        ConfigurationError: If ``last`` is negative.
        LedgerError: If the ledger cannot be read.
    """
    if last < 0:
        raise ConfigurationError(f"last is {last!r}; it must be a number of decisions, 0 or more")
    moment = ledger.now()
    budgets = {row["name"]: ledger.status(row["budget_id"]) for row in ledger.rows("budget")}
    with ledger.store.read() as connection:
        return LiveView(
            moment=moment,
            runs=_runs(connection, moment),
            budgets=budgets,
            decisions=_decisions(connection, last),
        )


def _runs(connection: Connection, moment: datetime) -> tuple[LiveRun, ...]:
    begun = (
        select(runs.c.run_id, runs.c.name, runs.c.kind, closings.c.status, entries.c.recorded_utc)
        .join(entries, entries.c.id == runs.c.entry_id)
        .outerjoin(closings, closings.c.run_id == runs.c.run_id)
        .order_by(runs.c.entry_id.desc())
    )
    newest = connection.execute(begun.limit(_RUNS)).all()
    # A run of weeks may be older than many that have ended.
    not_closed = connection.execute(begun.where(closings.c.status.is_(None)).limit(_OPEN_RUNS))
    held = {row.run_id for row in newest}
    newest = [*newest, *(row for row in not_closed if row.run_id not in held)]
    found: list[LiveRun] = []
    names: set[tuple[str, str]] = set()
    for row in newest:
        known = (row.kind, row.name) in names or len(names) >= _STREAMS
        if known and row.status is not None:
            continue
        last = _last_sign(connection, row.run_id) or datetime.fromisoformat(row.recorded_utc)
        status = row.status or ("running" if moment - last <= ALIVE else "silent")
        if known and status != "running":
            continue
        names.add((row.kind, row.name))
        open_decision = _decisions(connection, 1, run_id=row.run_id)
        found.append(
            LiveRun(
                name=row.name,
                kind=row.kind,
                status=status,
                since=datetime.fromisoformat(row.recorded_utc) if status == "running" else last,
                phase=_phase(connection, row.run_id),
                update=next((one for one in open_decision if not one.done), None),
            )
        )
    return tuple(found)


def _last_sign(connection: Connection, run_id: str) -> datetime | None:
    """Return when a run appended the last row after its opening row; ``None`` without one."""
    last: str | None = connection.execute(
        select(entries.c.recorded_utc)
        .where(entries.c.chain == run_chain(run_id))
        .order_by(entries.c.seq.desc())
        .limit(1)
    ).scalar()
    return None if last is None else datetime.fromisoformat(last)


def _phase(connection: Connection, run_id: str) -> LivePhase | None:
    ended = connection.execute(
        select(windows)
        .where(windows.c.run_id == run_id)
        .order_by(windows.c.entry_id.desc())
        .limit(1)
    ).first()
    beaten = connection.execute(
        select(heartbeats)
        .where(heartbeats.c.run_id == run_id)
        .order_by(heartbeats.c.entry_id.desc())
        .limit(1)
    ).first()
    if beaten is None or (ended is not None and ended.entry_id > beaten.entry_id):
        return None if ended is None else _live_phase(ended, None, is_open=False)
    before = connection.execute(
        select(heartbeats)
        .where(
            heartbeats.c.run_id == run_id,
            heartbeats.c.phase == beaten.phase,
            heartbeats.c.started_utc == beaten.started_utc,
            heartbeats.c.entry_id < beaten.entry_id,
        )
        .order_by(heartbeats.c.entry_id.desc())
        .limit(1)
    ).first()
    return _live_phase(beaten, before, is_open=True)


def _live_phase(row: Row[Any], before: Row[Any] | None, *, is_open: bool) -> LivePhase:
    energy_j, duration_s = row.energy_j, row.duration_s
    if before is not None and None not in (energy_j, before.energy_j):
        since_s = duration_s - before.duration_s
        if since_s > 0:
            energy_j, duration_s = energy_j - before.energy_j, since_s
    known = energy_j is not None and duration_s > 0
    return LivePhase(
        phase=row.phase,
        epoch=row.epoch,
        started=datetime.fromisoformat(row.started_utc),
        power_w=max(0.0, energy_j) / duration_s if known else None,
        complete=bool(row.complete),
        is_open=is_open,
    )


def _decisions(
    connection: Connection, last: int, *, run_id: str | None = None
) -> tuple[LiveDecision, ...]:
    of_the_same = or_(
        outcomes.c.reservation_id == decisions.c.reservation_id,
        and_(  # nothing was reserved for a skip
            outcomes.c.reservation_id.is_(None),
            decisions.c.reservation_id.is_(None),
            outcomes.c.run_id == decisions.c.run_id,
            outcomes.c.experience_id == decisions.c.experience_id,
            outcomes.c.position == decisions.c.position,
        ),
    )
    query = (
        select(
            *(runs.c.name, decisions.c.experience_id, decisions.c.update_mode),
            *(decisions.c.step_fraction, decisions.c.sentence, decisions.c.entry_id),
            *(entries.c.recorded_utc, outcomes.c.entry_id.label("outcome")),
            *(outcomes.c.energy_j, outcomes.c.kept),
        )
        .join(runs, runs.c.run_id == decisions.c.run_id)
        .join(entries, entries.c.id == decisions.c.entry_id)
        .outerjoin(outcomes, of_the_same)
        .order_by(decisions.c.entry_id.desc())
        .limit(last)
    )
    if run_id is not None:
        query = query.where(decisions.c.run_id == run_id)
    return tuple(
        LiveDecision(
            run=row.name,
            experience_id=row.experience_id,
            update_mode=row.update_mode,
            step_fraction=row.step_fraction,
            sentence=row.sentence,
            decided=datetime.fromisoformat(row.recorded_utc),
            done=row.outcome is not None,
            energy_j=row.energy_j,
            kept=None if row.kept is None else bool(row.kept),
        )
        for row in connection.execute(query)
    )
