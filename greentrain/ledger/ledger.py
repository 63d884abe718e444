"""The durable record of what was measured, decided and paid."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from greentrain.budget import Balance, Budget
from greentrain.errors import ConfigurationError
from greentrain.ledger.account import CarbonRate, LedgerAccount
from greentrain.ledger.budgets import Terms, open_budget, read_status, read_terms
from greentrain.ledger.heads import all_heads
from greentrain.ledger.heartbeat import Heartbeat
from greentrain.ledger.outbox import replay_left_behind
from greentrain.ledger.postgres import shown
from greentrain.ledger.recovery import with_recovered
from greentrain.ledger.release import Release, release
from greentrain.ledger.rows import EmissionsLike, SourceLike, WindowLike, source_content
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import (
    RUN_CHAIN,
    SCHEMA_VERSION,
    canonical,
    run_chain,
)
from greentrain.ledger.store import Store
from greentrain.money import BudgetStatus
from greentrain.units import utc_now

DEFAULT_URL = "sqlite:///greentrain.db"


class Ledger:
    """An append-only, hash-chained record in one SQLite file, or in a PostgreSQL database.

    Args:
        url: ``sqlite:///FILE``, or the file alone, which is created, readable by its owner only; or
            ``postgresql+psycopg://USER@HOST/DATABASE``.
        create: Whether a missing ledger is created; ``False`` for those who only read.
        keep_open: Whether the database stays open from one transaction to the next; ``False`` for
            those who may fork meanwhile.
        key: A secret that rows are hashed with, so that nobody without it can rewrite the ledger;
            that of the environment variable ``GREENTRAIN_LEDGER_KEY`` if ``None``. It is not
            stored, and a ledger that was begun with it takes no row without.
        clock: The present time, aware: it dates the rows and renews the budgets.

    Raises:
        ConfigurationError: If the URL or the key cannot be used, or the ledger is missing and not
            to be created.
        LedgerError: If the database holds something else, or the ledger of a newer greentrain.

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

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        create: bool = True,
        keep_open: bool = True,
        key: str | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.store = Store(url, create=create, keep_open=keep_open, key=key, clock=clock)
        if create:
            replay_left_behind(self.store)

    @property
    def url(self) -> str:
        """Where the ledger lies, without any password."""
        return shown(self.store.url)

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
    ) -> RunLog:
        """Begin a run: its opening row is chained to that of the run before it.

        The opening row is written when this returns. What the run is given to call is called in a
        thread of its own, which ends when the run is closed.

        Args:
            kind: ``"stream"``, ``"fit"`` or ``"measure"``.
            name: What people call it.
            environment: Versions and hardware; no user's names or paths.
            sources: The meter's sources; or gives them, and may wait for the hardware. It is called
                before the first window is written, and again when the run is closed: what changed
                since is written once more.
            beat: Gives the phases that are open, as windows that end now. What they have drawn is
                written every ``heartbeat_s`` seconds, so that no more is lost if the process is
                killed.
            emissions: Works out the grams of such a window.
            heartbeat_s: Seconds from one heartbeat to the next.

        Raises:
            ConfigurationError: If ``heartbeat_s`` or a number of a source is not as above.
            LedgerError: If the row cannot be written.
        """
        if not (math.isfinite(heartbeat_s) and heartbeat_s > 0):
            raise ConfigurationError(f"heartbeat_s is {heartbeat_s!r}; it is in seconds, above 0")
        run_id = str(uuid.uuid4())
        known = () if callable(sources) else sources
        described = [source_content(run_id, source) for source in known]
        content = {
            "run_id": run_id,
            "kind": kind,
            "name": name,
            "environment": canonical({"schema": SCHEMA_VERSION, **(environment or {})}),
        }
        with self.store.write() as connection:
            self.store.append(connection, "run", RUN_CHAIN, content)
            for source in described:
                self.store.append(connection, "source", run_chain(run_id), source)
        watch = None
        if beat is not None or callable(sources):
            watch = Heartbeat(
                run_id,
                sources=sources if callable(sources) else tuple,
                beat=beat or tuple,
                emissions=emissions,
            )
        return RunLog(self.store, run_id, watch=watch, heartbeat_s=heartbeat_s)

    def open_budget(self, name: str, budget: Budget) -> str:
        """Return the budget of this name, opened now if there is none yet.

        What earlier runs spent of it stays spent, whatever became of them.

        A budget with a parent is promised out of it.

        Raises:
            ConfigurationError: If the ledger has another budget of this name, there is no such
                parent, the terms do not go with the parent's, or the amount is not known yet.
            BudgetExceeded: If the parent has less left than it would promise.
        """
        return open_budget(self.store, name, budget)

    def find_budget(self, name: str) -> dict[str, Any] | None:
        """Return the budget row of this name, or ``None``."""
        rows = self.store.rows("budget", name=name)
        return rows[0] if rows else None

    def terms(self, budget_id: str) -> Terms:
        """Return what a budget allows, and when it was opened.

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
            carbon: How many grams a joule may stand for, such as a
                :class:`greentrain.carbon.CarbonAccount`; needed for a budget of carbon.

        Raises:
            ConfigurationError: If the budget is of carbon and no intensity is known.
            LedgerError: If there is no such budget.
        """
        return LedgerAccount(self.store, budget_id, run, carbon=carbon)

    def balance(self, budget_id: str) -> Balance:
        """Return where a budget of energy stands.

        Raises:
            ConfigurationError: If the budget is of carbon: ask for its standing.
            LedgerError: If there is no such budget.
        """
        status = self.status(budget_id)
        if status.unit != "J":
            raise ConfigurationError(
                f"the budget {budget_id!r} is of carbon and has no balance in joules; ask for its "
                "status"
            )
        return status.balance()

    def status(self, budget_id: str) -> BudgetStatus:
        """Return where a budget stands, in its own unit and in the present period.

        Raises:
            LedgerError: If there is no such budget.
        """
        with self.store.read() as connection:
            return read_status(connection, read_terms(connection, budget_id), self.store.clock())

    def release(self, reservation: str, actual: float | None = None) -> Release:
        """Settle the reservation of a run that died.

        Args:
            reservation: Its id.
            actual: What was drawn, in the budget's unit; by default what its windows and its last
                heartbeats say.

        Raises:
            ConfigurationError: If the amount is negative or not finite.
            LedgerError: If there is no such open reservation; without an amount also if its run may
                still be at work, or not everything was measured.
        """
        return release(self.store, reservation, actual)

    def rows(self, kind: str, **equals: Any) -> list[dict[str, Any]]:
        """Return all rows of a kind (``"run"``, ``"window"``, ``"decision"``, ...), in order."""
        return self.store.rows(kind, **equals)

    def windows(self) -> list[dict[str, Any]]:
        """Return all windows in order, with those that a killed run's heartbeats tell of.

        Each has ``recovered``: see :func:`with_recovered`.
        """
        return with_recovered(self.rows("window"), self.rows("heartbeat"), self.rows("closing"))

    def heads(self) -> dict[str, dict[str, Any]]:
        """Return (count, head) of every chain: what can be kept elsewhere and compared later."""
        with self.store.read() as connection:
            return all_heads(connection)

    def close(self) -> None:
        """Let go of the database file; whatever is asked of the ledger later opens it again."""
        self.store.close()
