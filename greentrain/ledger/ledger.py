"""The durable record of measurements, decisions and payments."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from greentrain.budget import Balance, Budget
from greentrain.errors import ConfigurationError
from greentrain.ledger.account import CarbonRate, LedgerAccount
from greentrain.ledger.budgets import Terms, open_budget, present, read_status, read_terms
from greentrain.ledger.decision_rows import DecisionSummary, alternatives_of, decisions_since
from greentrain.ledger.events import EmissionsLike, SourceLike, WindowLike, source_content
from greentrain.ledger.hashing import canonical, config_sha256
from greentrain.ledger.heads import all_heads
from greentrain.ledger.heartbeat import Heartbeat
from greentrain.ledger.outbox import replay_left_behind
from greentrain.ledger.placement import slurm_job
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.release import Release, release
from greentrain.ledger.row_reader import RowReader
from greentrain.ledger.row_stream import LedgerRows, read_rows
from greentrain.ledger.rows import BudgetRow, Head, Heads, RecoveredWindowRow
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import RUN_CHAIN, SCHEMA_VERSION, run_chain
from greentrain.ledger.signatures import Signer
from greentrain.ledger.snapshot import Snapshot, take_snapshot
from greentrain.ledger.sql_store import SqlStore
from greentrain.ledger.store import LedgerStore
from greentrain.money import BudgetStatus
from greentrain.naming import check_name, check_place, check_tag
from greentrain.units import utc_now

DEFAULT_URL = "sqlite:///greentrain.db"


class Ledger(RowReader):
    """An append-only, hash-chained record in one SQLite file or in a PostgreSQL database.

    A ledger may be used from several threads. The methods that change it are atomic, also across
    processes and hosts: see :class:`greentrain.ledger.LedgerStore`.

    Args:
        url: ``sqlite:///FILE``, the file alone, or ``postgresql+psycopg://USER@HOST/DATABASE``. A
            new file can be read by its owner only.
        create: ``False`` to refuse a ledger that does not exist, and to write no rows that wait in
            local files.
        keep_open: ``False`` to close the database after each transaction, for a process that may
            fork.
        key: A secret that rows are hashed with, so that no one without it can rewrite the ledger;
            ``GREENTRAIN_LEDGER_KEY`` if ``None``. It is not stored. A ledger that was created with
            a key accepts no row without it.
        clock: Function that returns the present time as an aware time. It dates the rows and renews
            the budgets. If ``None``, this host's clock, or the server's with PostgreSQL.

    Raises:
        ConfigurationError: If the URL or the key cannot be used, or the ledger is missing and
            ``create`` is not set.
        LedgerError: If the database holds something else, or a ledger that this version of
            greentrain cannot read.

    Example:
        >>> from greentrain import Budget
        >>> ledger = Ledger.in_memory()
        >>> budget = ledger.open_budget("digits", Budget.parse("1 Wh"))
        >>> with ledger.open_run("stream", "digits") as run:
        ...     account = ledger.account(budget, run)
        ...     reservation = account.reserve(600.0, "probe")
        ...     overrun_j = account.settle(reservation, 100.0)
        >>> ledger.balance(budget).left_j
        3500.0
    """

    store: LedgerStore
    """The database; used by the modules of ``greentrain.ledger`` only."""
    clock: Callable[[], datetime]
    """The clock; a simulation may replace it."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        create: bool = True,
        keep_open: bool = True,
        key: str | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        url = check_place(url, "the ledger", DEFAULT_URL)
        self.clock = clock or utc_now
        store = SqlStore(url, create=create, keep_open=keep_open, key=key, clock=self.now)
        self.store = store
        self.clock = clock or store.default_clock
        if create:
            replay_left_behind(self.store)

    @classmethod
    def in_memory(
        cls, *, key: str | None = None, clock: Callable[[], datetime] = utc_now
    ) -> Ledger:
        """Return a new ledger in memory, for tests and simulations.

        It has all features of a ledger in a file and leaves no file behind. Other processes cannot
        open it, a forked process has a copy of it, and :meth:`close` deletes its rows. Its threads
        share one connection and take turns, so a transaction also waits for those that only read.

        Args:
            key: See :class:`Ledger`.
            clock: See :class:`Ledger`.

        Raises:
            ConfigurationError: If the key cannot be used.
        """
        ledger = cls.__new__(cls)
        ledger.clock = clock
        ledger.store = SqlStore(None, key=key, clock=ledger.now)
        return ledger

    @property
    def url(self) -> str:
        """The URL, without secrets."""
        return self.store.url

    @property
    def name(self) -> str:
        """Name for messages: the file, or the URL without secrets."""
        return self.store.name

    @property
    def public_name(self) -> str:
        """Name for reports: the file's name or the database's name, without folder and server."""
        return self.store.public_name

    def now(self) -> datetime:
        """Return the present time by the ledger's clock."""
        return self.clock()

    def open_run(
        self,
        kind: str,
        name: str,
        *,
        environment: Mapping[str, Any] | None = None,
        sources: Callable[[], Iterable[SourceLike]] | Iterable[SourceLike] = (),
        beat: Callable[[], Iterable[WindowLike]] | None = None,
        emissions: Callable[[WindowLike], EmissionsLike] | None = None,
        heartbeat_s: float = 10.0,
        team: str | None = None,
        project: str | None = None,
    ) -> RunLog:
        """Start a run, and append its opening row.

        The row has been written when this returns. The functions among the arguments are called in
        a separate thread, which ends when the run is closed.

        Args:
            kind: ``"stream"``, ``"fit"`` or ``"measure"``.
            name: Name that people use for it.
            environment: Versions and hardware, without names of users and paths.
            sources: The meter's sources, or a function that returns them and may wait for the
                hardware. The function is called before the first window is written. It is called
                again when the run is closed, and sources that changed are recorded again.
            beat: Function that returns the open phases as windows that end now. Their energy is
                written every ``heartbeat_s`` seconds, so that at most that much is lost if the
                process is killed.
            emissions: Function that returns the grams of such a window.
            heartbeat_s: Seconds between two heartbeats.
            team: Tag of the team, for sums over teams.
            project: Tag of the project, for sums over projects.

        Raises:
            ConfigurationError: If ``heartbeat_s``, a name, a tag or a number of a source cannot be
                used.
            LedgerError: If the row cannot be written.
        """
        if not (math.isfinite(heartbeat_s) and heartbeat_s > 0):
            raise ConfigurationError(
                f"heartbeat_s is {heartbeat_s!r}; it must be in seconds, above 0"
            )
        kind = check_name(kind, "the kind of a run", "fit")
        name = check_name(name, "the name of a run", "digits")
        run_id = str(uuid.uuid4())
        known = () if callable(sources) else sources
        described = [source_content(run_id, source) for source in known]
        content = {
            "run_id": run_id,
            "kind": kind,
            "name": name,
            "environment": canonical({"schema": SCHEMA_VERSION, **(environment or {})}),
            **slurm_job(),
            "team": check_tag(team, "team"),
            "project": check_tag(project, "project"),
        }
        signer = Signer.configured()  # an invalid key is an error before anything is written
        with self.store.write() as connection:
            self.store.append(connection, "run", RUN_CHAIN, content)
            for source in described:
                self.store.append(connection, "source", run_chain(run_id), source)
        heartbeat = None
        if beat is not None or callable(sources):
            heartbeat = Heartbeat(
                run_id,
                sources=sources if callable(sources) else tuple,
                beat=beat or tuple,
                emissions=emissions,
            )
        settings = (environment or {}).get("settings")
        return RunLog(
            self.store,
            run_id,
            heartbeat=heartbeat,
            heartbeat_s=heartbeat_s,
            config_sha256=None if settings is None else config_sha256(settings),
            signer=signer,
        )

    def open_budget(self, name: str, budget: Budget) -> str:
        """Return the id of the budget of this name, and create the budget if there is none.

        Amounts that earlier runs spent from it stay spent, even if those runs crashed. The amount
        of a budget with a parent is promised by the parent.

        Raises:
            ConfigurationError: If the ledger has another budget of this name or no such parent, the
                terms do not fit those of the parent, or the amount is not known yet. Also if the
                name cannot be stored.
            BudgetExceeded: If the parent has less left than the amount.
        """
        return open_budget(self.store, check_name(name, "the name of a budget", "digits"), budget)

    def find_budget(self, name: str) -> BudgetRow | None:
        """Return the row of the budget of this name; ``None`` if there is none."""
        return next(iter(self.rows("budget", name=name)), None)

    def terms(self, budget_id: str) -> Terms:
        """Return the terms of a budget.

        Raises:
            LedgerError: If there is no such budget.
        """
        with self.store.read() as connection:
            return read_terms(connection, budget_id)

    def account(
        self, budget_id: str, run: RunLog, *, carbon: CarbonRate | None = None
    ) -> LedgerAccount:
        """Return the account through which a run pays from a budget.

        Args:
            budget_id: The budget.
            run: The run.
            carbon: Upper bound of the grams per joule, such as a
                :class:`greentrain.carbon.CarbonAccount`; required for a budget of carbon.

        Raises:
            ConfigurationError: If the budget is of carbon and no intensity is known.
            LedgerError: If there is no such budget.
        """
        return LedgerAccount(self.store, budget_id, run, carbon=carbon)

    def balance(self, budget_id: str) -> Balance:
        """Return the balance of a budget of energy.

        Raises:
            ConfigurationError: If the budget is of carbon.
            LedgerError: If there is no such budget.
        """
        status = self.status(budget_id)
        if status.unit != "J":
            raise ConfigurationError(
                f"the budget {budget_id!r} is of carbon and has no balance in joules; call "
                "Ledger.status instead"
            )
        return status.balance()

    def status(self, budget_id: str) -> BudgetStatus:
        """Return the status of a budget in the present period, in the budget's unit.

        Raises:
            LedgerError: If there is no such budget.
        """
        with self.store.read() as connection:
            terms = read_terms(connection, budget_id)
            return read_status(connection, terms, present(connection, terms, self.now()))

    def release(self, reservation: str, actual: float | None = None) -> Release:
        """Settle the reservation of a run that died.

        Args:
            reservation: Id of the reservation.
            actual: Amount used, in the budget's unit; ``None`` for the sum of the run's windows and
                last heartbeats.

        Raises:
            ConfigurationError: If the amount is negative or not finite.
            LedgerError: If there is no such open reservation. Without an amount also if the run may
                still be active, or not everything was measured.
        """
        return release(self.store, reservation, actual)

    def windows(self) -> list[RecoveredWindowRow]:
        """Return all windows in order, and the last heartbeats of phases that never closed.

        See :func:`greentrain.ledger.with_recovered`.
        """
        return with_recovered(self.rows("window"), self.rows("heartbeat"), self.rows("closing"))

    def decisions_since(self, budget_id: str, after: int = 0) -> list[DecisionSummary]:
        """Return the decisions that all runs recorded about a budget after an entry, in order.

        Args:
            budget_id: The budget.
            after: ``entry_id`` of the last decision already read; 0 for all decisions. A decision
                with a smaller number is never added later, because writers take turns.
        """
        return decisions_since(self.store, budget_id, after)

    def alternatives(self, entry_ids: Collection[int]) -> dict[int, list[dict[str, Any]]]:
        """Return the options that decisions compared, by ``entry_id`` of the decision."""
        return alternatives_of(self.store, entry_ids)

    def snapshot(self) -> Snapshot:
        """Return all rows as they are now, read in one transaction.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        return take_snapshot(self.store)

    @contextmanager
    def reading(self, as_of: Heads | None = None) -> Iterator[LedgerRows]:
        """Read rows as they are at one moment, without having all of them in memory.

        The ledger must not be used for anything else before the ``with`` block ends.

        Args:
            as_of: Heads of an earlier moment: rows that were appended later are left out.

        Raises:
            LedgerError: If the ledger cannot be read.
        """
        with read_rows(self.store, as_of=as_of) as rows:
            yield rows

    def heads(self) -> dict[str, Head]:
        """Return the heads of all chains, to be kept elsewhere and compared later."""
        with self.store.read() as connection:
            return all_heads(connection)

    def close(self) -> None:
        """Close the database; a later call of another method opens it again."""
        self.store.close()

    def _rows(self, kind: str, equals: Mapping[str, Any]) -> list[dict[str, Any]]:
        return self.store.rows(kind, **equals)
