"""The durable record of what was measured, decided and paid."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any

from sqlalchemy import Connection, func, select

from greentrain.budget import Balance, Budget, overrun
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    RUN_CHAIN,
    SCHEMA_VERSION,
    budgets,
    canonical,
    entries,
    reservations,
    run_chain,
    settlements,
)
from greentrain.ledger.store import Store
from greentrain.ledger.writer import Row, Writer
from greentrain.units import format_energy, utc_text

DEFAULT_URL = "sqlite:///greentrain.db"


class Ledger:
    """An append-only, hash-chained record in one SQLite file.

    Args:
        url: ``sqlite:///FILE``, or the file alone; it is created, readable by its owner only.
        create: Whether a missing file is created; ``False`` for those who only read.

    Raises:
        ConfigurationError: If the URL cannot be used, or the file is missing and not to be created.
        LedgerError: If the file is no ledger.

    Example:
        >>> import tempfile
        >>> from greentrain import Budget
        >>> ledger = Ledger(f"sqlite:///{tempfile.mkdtemp()}/greentrain.db")
        >>> budget = ledger.open_budget("digits", Budget.parse("1 Wh"))
        >>> with ledger.open_run("stream", "digits") as run:
        ...     account = ledger.account(budget, run)
        ...     reservation = account.reserve(600.0, "probe")
        ...     overrun_j = account.settle(reservation, 100.0)
        >>> ledger.balance(budget).left_j
        3500.0
    """

    def __init__(self, url: str = DEFAULT_URL, *, create: bool = True) -> None:
        self.store = Store(url, create=create)

    @property
    def url(self) -> str:
        """Where the ledger lies, without any password."""
        return self.store.url.render_as_string()

    def open_run(
        self,
        kind: str,
        name: str,
        *,
        environment: Mapping[str, Any] | None = None,
        sources: Iterable[Mapping[str, Any]] = (),
    ) -> RunLog:
        """Begin a run: its opening row is chained to that of the run before it.

        Args:
            kind: ``"stream"`` or ``"fit"``.
            name: What people call it.
            environment: Versions and hardware; no user's names or paths.
            sources: The meter's sources, as mappings.
        """
        run_id = str(uuid.uuid4())
        content = {
            "run_id": run_id,
            "kind": kind,
            "name": name,
            "environment": canonical({"schema": SCHEMA_VERSION, **(environment or {})}),
            "sources": canonical(list(sources)),
        }
        with self.store.write() as connection:
            self.store.append(connection, "run", RUN_CHAIN, content)
        return RunLog(self, run_id)

    def open_budget(self, name: str, budget: Budget) -> str:
        """Return the budget of this name, opened now if there is none yet.

        What earlier runs spent of it stays spent, whatever became of them.

        Raises:
            ConfigurationError: If the ledger has a budget of this name and another amount, or the
                amount is not known yet.
        """
        if budget.energy_j is None:
            raise ConfigurationError(f"the budget {budget} has no amount yet; measure it first")
        with self.store.write() as connection:
            known = connection.execute(select(budgets).where(budgets.c.name == name)).first()
            if known is None:
                budget_id = str(uuid.uuid4())
                content = {
                    "budget_id": budget_id,
                    "name": name,
                    "energy_j": budget.energy_j,
                    "horizon": budget.horizon,
                    "given_as": str(budget),
                }
                self.store.append(connection, "budget", BUDGET_CHAIN, content)
                return budget_id
        if known.energy_j != budget.energy_j or known.horizon != budget.horizon:
            raise ConfigurationError(
                f"the ledger {self.store.url.database!r} has a budget {name!r} of "
                f"{known.given_as}, and {budget} was asked for; give the stream another name or "
                "another ledger"
            )
        return str(known.budget_id)

    def find_budget(self, name: str) -> dict[str, Any] | None:
        """Return the budget row of this name, or ``None``."""
        rows = self.store.rows("budget", name=name)
        return rows[0] if rows else None

    def account(self, budget_id: str, run: RunLog) -> LedgerAccount:
        """Return the account through which a run pays from a budget."""
        return LedgerAccount(self, budget_id, run)

    def balance(self, budget_id: str) -> Balance:
        """Return where a budget stands.

        Raises:
            LedgerError: If there is no such budget.
        """
        with self.store.write() as connection:
            return read_balance(connection, budget_id)

    def rows(self, kind: str, **equals: Any) -> list[dict[str, Any]]:
        """Return all rows of a kind (``"run"``, ``"window"``, ``"decision"``, ...), in order."""
        return self.store.rows(kind, **equals)

    def heads(self) -> dict[str, dict[str, Any]]:
        """Return (count, head) of every chain: what can be kept elsewhere and compared later."""
        last = select(entries.c.chain, func.max(entries.c.seq).label("seq")).group_by(
            entries.c.chain
        )
        newest = last.subquery()
        query = (
            select(entries.c.chain, entries.c.seq, entries.c.hash)
            .join(newest, (entries.c.chain == newest.c.chain) & (entries.c.seq == newest.c.seq))
            .order_by(entries.c.chain)
        )
        with self.store.write() as connection:
            rows = connection.execute(query).all()
        return {row.chain: {"count": row.seq + 1, "head": row.hash} for row in rows}

    def close(self) -> None:
        """Let go of the database file."""
        self.store.close()


class RunLog:
    """The rows of one run; get one from :meth:`Ledger.open_run`.

    As a context manager it closes the run as ``completed``, or as ``failed`` on an exception.
    """

    def __init__(self, ledger: Ledger, run_id: str) -> None:
        self._ledger = ledger
        self.run_id = run_id
        self._closed = False
        self._writer = Writer(self._write_windows)

    @property
    def chain(self) -> str:
        """The name of this run's chain."""
        return run_chain(self.run_id)

    def window(
        self,
        phase: str,
        *,
        started: datetime,
        duration_s: float,
        by_source: Mapping[str, float | None],
        epoch: int | None = None,
        reservation_id: str | None = None,
    ) -> None:
        """Record what was drawn during one phase, in joules by source.

        Returns at once: a thread writes it, before any other row that comes after it.
        """
        known = [joules for joules in by_source.values() if joules is not None]
        self._writer.put(
            {
                "run_id": self.run_id,
                "reservation_id": reservation_id,
                "phase": phase,
                "epoch": epoch,
                "started_utc": utc_text(started),
                "duration_s": duration_s,
                "energy_j": math.fsum(known) if known else None,
                "by_source": canonical(dict(by_source)),
                "complete": len(known) == len(by_source) > 0,
            }
        )

    def append(self, kind: str, **content: Any) -> str:
        """Append a row of this run, and return its hash."""
        self.flush()
        store = self._ledger.store
        with store.write() as connection:
            return store.append(connection, kind, self.chain, {"run_id": self.run_id, **content})

    def flush(self) -> None:
        """Wait until the windows recorded so far are written."""
        self._writer.flush()

    def close(self, status: str = "completed") -> None:
        """Write the closing row, ``"completed"`` or ``"failed"``; harmless the second time."""
        if not self._closed:
            self._closed = True
            self._writer.close()
            self.append("closing", status=status)

    def _write_windows(self, rows: list[Row]) -> None:
        store = self._ledger.store
        with store.write() as connection:
            for row in rows:
                store.append(connection, "window", self.chain, row)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close("completed" if kind is None else "failed")


class LedgerAccount:
    """The :class:`greentrain.budget.Account` of one budget, paid from by one run."""

    def __init__(self, ledger: Ledger, budget_id: str, run: RunLog) -> None:
        self._ledger = ledger
        self._run = run
        self.budget_id = budget_id

    def balance(self) -> Balance:
        """Return where the budget stands now."""
        return self._ledger.balance(self.budget_id)

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        """Set joules aside, in one transaction, or refuse.

        Raises:
            ConfigurationError: If the amount is not positive.
            BudgetExceeded: If fewer joules are left.
        """
        if not (math.isfinite(upper_bound_j) and upper_bound_j > 0):
            raise ConfigurationError(
                f"cannot reserve {upper_bound_j!r} J for {purpose}; it has to be more than zero"
            )
        reservation_id = str(uuid.uuid4())
        store = self._ledger.store
        with store.write() as connection:
            balance = read_balance(connection, self.budget_id)
            if upper_bound_j > balance.left_j:
                raise BudgetExceeded(
                    f"{purpose} asks for {format_energy(upper_bound_j)}, and "
                    f"{format_energy(balance.left_j)} of {format_energy(balance.total_j)} are left "
                    f"({format_energy(balance.spent_j)} spent, "
                    f"{format_energy(balance.reserved_j)} reserved)",
                    asked_j=upper_bound_j,
                    left_j=balance.left_j,
                )
            content = {
                "reservation_id": reservation_id,
                "budget_id": self.budget_id,
                "run_id": self._run.run_id,
                "amount_j": upper_bound_j,
                "purpose": purpose,
            }
            store.append(connection, "reservation", self._run.chain, content)
        return reservation_id

    def settle(self, reservation: str, actual_j: float) -> float:
        """Record what was measured, and return the overrun in joules.

        Raises:
            LedgerError: If there is no such open reservation.
        """
        self._run.flush()
        store = self._ledger.store
        with store.write() as connection:
            row = connection.execute(
                select(reservations).where(
                    reservations.c.reservation_id == reservation,
                    reservations.c.budget_id == self.budget_id,
                )
            ).first()
            settled = connection.execute(
                select(settlements.c.entry_id).where(settlements.c.reservation_id == reservation)
            ).first()
            if row is None or settled is not None:
                raise LedgerError(
                    f"the reservation {reservation!r} is "
                    + ("settled already" if settled else "not known to this budget")
                )
            overrun_j = overrun(row.amount_j, actual_j)
            content = {
                "reservation_id": reservation,
                "budget_id": self.budget_id,
                "run_id": self._run.run_id,
                "actual_j": actual_j,
                "overrun_j": overrun_j,
            }
            store.append(connection, "settlement", self._run.chain, content)
        return overrun_j


def read_balance(connection: Connection, budget_id: str) -> Balance:
    """Sum up a budget inside a transaction.

    Raises:
        LedgerError: If there is no such budget.
    """
    total_j = connection.execute(
        select(budgets.c.energy_j).where(budgets.c.budget_id == budget_id)
    ).scalar()
    if total_j is None:
        raise LedgerError(f"the ledger has no budget {budget_id!r}")
    reserved_j = connection.execute(
        select(func.coalesce(func.sum(reservations.c.amount_j), 0.0))
        .outerjoin(settlements, settlements.c.reservation_id == reservations.c.reservation_id)
        .where(reservations.c.budget_id == budget_id, settlements.c.reservation_id.is_(None))
    ).scalar_one()
    spent_j, overrun_j = connection.execute(
        select(
            func.coalesce(func.sum(settlements.c.actual_j), 0.0),
            func.coalesce(func.sum(settlements.c.overrun_j), 0.0),
        ).where(settlements.c.budget_id == budget_id)
    ).one()
    return Balance(total_j=total_j, spent_j=spent_j, reserved_j=reserved_j, overrun_j=overrun_j)
