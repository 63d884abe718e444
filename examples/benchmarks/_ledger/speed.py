"""Measure the time of the ledger for one window, a verification and a balance."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from _results import Row
from sqlalchemy import Connection, create_engine, func, select

from greentrain.budget import Budget
from greentrain.ledger import Ledger, RunLog, verify
from greentrain.ledger.budgets import total_columns
from greentrain.ledger.events import window_content
from greentrain.ledger.hashing import row_hash
from greentrain.ledger.schema import CONTENT, entries
from greentrain.money import BudgetTotals, period_name
from greentrain.units import utc_text
from tests.ledger.cluster import Cluster, programs
from tests.ledger.events import CPU, window

_ENGINES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_NO_SERVER = "not run: no PostgreSQL server is installed"
_BATCH = 1000


def speed(folder: Path, *, quick: bool) -> list[Row]:
    """Return the times on each installed engine; only those on SQLite have a target."""
    rows: list[Row] = []
    with _urls(folder) as urls:
        for engine in _ENGINES:
            rows += _of_engine(engine, urls.get(engine), quick=quick)
    return sorted(rows, key=lambda row: row.id)


def _of_engine(engine: str, url: str | None, *, quick: bool) -> Iterator[Row]:
    held_to = engine == "sqlite"
    name = _ENGINES[engine]
    count = 3_000 if quick else 100_000
    append = Row(
        id="append_ms",
        what=f"one window on {name}, from the call until it is on disk",
        value=None,
        unit="ms",
        reach=5.0 if held_to else None,
        note=_NO_SERVER,
    )
    checked = Row(
        id="verify_s",
        what=f"verify on {name}",
        value=None,
        unit="s",
        reach=10.0 if held_to else None,
        note=_NO_SERVER,
    )
    balance = Row(
        id="balance_ms",
        what=f"the balance of one budget on {name}",
        value=None,
        unit="ms",
        reach=20.0 if held_to else None,
        note=_NO_SERVER,
    )
    if url is None:
        yield from (append, checked, balance)
        return
    ledger = Ledger(url)
    yield _median(append, _append_ms(ledger, 50 if quick else 300), "a window, then a flush")
    paid = _Paid(ledger, url)
    paid.grow(count // 3 + 1)
    verified_s = [_timed(lambda: _verified(ledger)) for _ in range(1 if quick else 3)]
    yield _median(
        checked,
        verified_s,
        f"{paid.rows:,} rows: a third each of reservations, windows and settlements",
    )
    paid.grow(count // 2 - paid.payments)
    balance_ms = [1e3 * _timed(lambda: ledger.balance(paid.budget)) for _ in range(200)]
    yield _median(balance, balance_ms, f"of {2 * paid.payments:,} rows of one budget")
    ledger.close()


@contextmanager
def _urls(folder: Path) -> Iterator[dict[str, str]]:
    urls = {"sqlite": f"sqlite:///{folder / 'ledger.db'}"}
    servers = programs()
    if servers is None:
        yield urls
        return
    cluster = Cluster(servers)
    try:
        yield {**urls, "postgresql": cluster.new()}
    finally:
        cluster.remove()


def _append_ms(ledger: Ledger, times: int) -> list[float]:
    with ledger.open_run("fit", "benchmark", sources=[CPU]) as run:

        def one() -> None:
            run.record(window(by_source={"cpu": 1.0}))
            run.flush()

        one()
        return [1e3 * _timed(one) for _ in range(times)]


class _Paid:
    """A run that reserves, uses and settles energy, many times in each transaction."""

    def __init__(self, ledger: Ledger, url: str) -> None:
        self._ledger = ledger
        self._url = url
        self._terms = Budget(energy_j=1e9)
        self.budget = ledger.open_budget("benchmark", self._terms)
        self._run: RunLog = ledger.open_run("stream", "benchmark")
        self._totals = BudgetTotals()
        self.payments = 0

    @property
    def rows(self) -> int:
        """Number of its rows in the ledger."""
        return 3 * self.payments

    def grow(self, payments: int) -> None:
        """Add some payments; the first time row by row, as the ledger does."""
        if not self.payments:
            for kind, content in self._payment():
                self._run.append(kind, **content)
            payments -= 1
        engine = create_engine(self._url)
        end = self.payments + payments
        while self.payments < end:
            rows = [row for _ in range(min(_BATCH, end - self.payments)) for row in self._payment()]
            with engine.begin() as connection:
                _append_all(connection, self._run.chain, rows, utc_text(self._ledger.now()))
        engine.dispose()

    def _payment(self) -> Iterator[tuple[str, dict[str, object]]]:
        self.payments += 1
        name, run_id = f"reservation {self.payments}", self._run.run_id
        common = {
            "reservation_id": name,
            "budget_id": self.budget,
            "period": period_name(self._terms, self._ledger.now()),
            "run_id": run_id,
        }
        self._totals = self._totals.reserve(10.0)
        reserved = {"amount_j": 10.0, "amount_g": None, "purpose": "update"}
        yield "reservation", {**common, **reserved, **total_columns(self._totals)}
        used = window(by_source={"cpu": 8.0}, reservation_id=name)
        yield "window", window_content(run_id, used, None)
        self._totals = self._totals.settle(10.0, 8.0)
        settled = {"actual_j": 8.0, "actual_g": None, "overrun_j": 0.0, "overrun_g": None}
        yield "settlement", {**common, **settled, "released": None, **total_columns(self._totals)}


def _append_all(
    connection: Connection, chain: str, rows: list[tuple[str, dict[str, object]]], now: str
) -> None:
    """Append rows to a chain as the ledger does, but all at once: 100,000 of them take minutes."""
    last = connection.execute(
        select(entries.c.seq, entries.c.hash)
        .where(entries.c.chain == chain)
        .order_by(entries.c.seq.desc())
        .limit(1)
    ).one()
    first_id = connection.execute(select(func.max(entries.c.id))).scalar_one() + 1
    head, spine = last.hash, []
    held: dict[str, list[dict[str, object]]] = {}
    for number, (kind, content) in enumerate(rows):
        entry = {
            "kind": kind,
            "chain": chain,
            "seq": last.seq + 1 + number,
            "recorded_utc": now,
            "prev_hash": head,
        }
        head = row_hash(entry, content)
        spine.append({"id": first_id + number, **entry, "hash": head})
        held.setdefault(kind, []).append({"entry_id": first_id + number, **content})
    connection.execute(entries.insert(), spine)
    for kind, contents in held.items():
        connection.execute(CONTENT[kind].insert(), contents)


def _verified(ledger: Ledger) -> None:
    found = verify(ledger)
    if not found.ok:
        raise RuntimeError(f"the benchmark's own ledger does not verify: {found.failures[0]}")


def _median(row: Row, values: list[float], note: str) -> Row:
    return Row(
        id=row.id,
        what=row.what,
        value=statistics.median(values),
        unit=row.unit,
        reach=row.reach,
        seeds=len(values),
        interval=(min(values), max(values)),
        note=f"{note}; median, with the lowest and highest",
    )


def _timed(call: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    call()
    return time.perf_counter() - began_s
