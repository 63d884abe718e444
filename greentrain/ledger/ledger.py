"""The durable record of what was measured, decided and paid."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import func, select

from greentrain.budget import Balance, Budget
from greentrain.errors import ConfigurationError
from greentrain.ledger.account import LedgerAccount, read_balance
from greentrain.ledger.run import RunLog
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    RUN_CHAIN,
    SCHEMA_VERSION,
    budgets,
    canonical,
    entries,
)
from greentrain.ledger.store import Store

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
            kind: ``"stream"``, ``"fit"`` or ``"measure"``.
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
        return RunLog(self.store, run_id)

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
        return LedgerAccount(self.store, budget_id, run)

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
        """Let go of the database file; whatever is asked of the ledger later opens it again."""
        self.store.close()
