"""Many ledgers on a PostgreSQL server with few connections: they share, wait and let go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager

import pytest

from greentrain.budget import Budget
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, postgres, sql_store, verify
from tests.ledger.cluster import Cluster, programs

CONNECTIONS = 12
OPENERS = 30
TERMS = Budget.parse("1 Wh", num_experiences=OPENERS)


@pytest.fixture(scope="module")
def small() -> Iterator[Cluster]:
    """A server that takes few connections."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    own = Cluster(folder, max_connections=CONNECTIONS)
    yield own
    own.remove()


def backends(server: Cluster) -> int:
    """Return the connections of ledgers to a server."""
    import psycopg

    query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'greentrain'"
    with psycopg.connect(host=str(server.folder), user="greentrain", dbname="postgres") as one:
        row = one.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def in_threads(act: Callable[[int], object]) -> None:
    """Call a function with each number of an opener, all at the same time."""
    begin = threading.Barrier(OPENERS)

    def wait_and_act(number: int) -> None:
        begin.wait()
        act(number)

    with ThreadPoolExecutor(OPENERS) as threads:
        list(threads.map(wait_and_act, range(OPENERS)))


def test_the_ledgers_of_a_process_share_a_few_connections(small: Cluster) -> None:
    url = small.new()
    seen: list[int] = []
    with ExitStack() as stack:
        ledgers = [stack.enter_context(closing(Ledger(url))) for _ in range(OPENERS)]

        def pay(number: int) -> None:
            ledger = ledgers[number]
            with ledger.open_run("stream", f"{number}") as run:
                account = ledger.account(ledger.open_budget("shared", TERMS), run)
                account.settle(account.reserve(100.0, "update"), 50.0)
                if number % 10 == 0:
                    seen.append(backends(small))

        in_threads(pay)
        (budget,) = ledgers[0].rows("budget")
        assert ledgers[0].balance(budget["budget_id"]).spent_j == 50.0 * OPENERS
        assert verify(ledgers[0]).ok
    assert max(seen) <= postgres.MOST_CONNECTIONS
    assert backends(small) == 0


def test_processes_wait_for_a_connection_of_a_full_server(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = small.new()
    Ledger(url).close()
    full: list[str] = []
    search = postgres._FULL.search

    class Noted:
        def search(self, text: str) -> object:
            full.append(text)
            return search(text)

    monkeypatch.setattr(postgres, "_FULL", Noted())
    # Without sharing, each ledger is as one of another process.
    monkeypatch.setattr(
        postgres,
        "shared_engine",
        lambda url, timeout_s: postgres.open_engine(url, keep_open=True, timeout_s=timeout_s),
    )
    monkeypatch.setattr(postgres, "_UNUSED_S", 0.1)

    def work(number: int) -> None:
        with closing(Ledger(url)) as ledger, ledger.open_run("stream", f"{number}") as run:
            account = ledger.account(ledger.open_budget("shared", TERMS), run)
            account.settle(account.reserve(100.0, "update"), 50.0)

    in_threads(work)
    assert any("too many clients" in text for text in full)
    with closing(Ledger(url)) as ledger:
        assert len(ledger.rows("closing")) == OPENERS
        assert verify(ledger).ok


@contextmanager
def occupied(server: Cluster) -> Iterator[None]:
    """Use all connections of a server."""
    import psycopg

    with ExitStack() as stack:
        with pytest.raises(psycopg.OperationalError, match=r"too many|remaining"):
            for _ in range(CONNECTIONS + 1):
                stack.enter_context(
                    psycopg.connect(host=str(server.folder), user="greentrain", dbname="postgres")
                )
        yield


def test_rows_wait_in_a_file_while_the_server_has_no_connection(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_GRACE_S", 0.2)
    monkeypatch.setattr(sql_store, "BUSY_TIMEOUT_S", 0.2)
    with closing(Ledger(small.new())) as ledger:
        run = ledger.open_run("stream", "one")
        account = ledger.account(ledger.open_budget("one", TERMS), run)
        ledger.close()  # it has no connection now
        with occupied(small):
            with pytest.raises(LedgerError, match=r"no free connection.*max_connections"):
                account.reserve(1.0, "update")
            run.note("source", name="cpu", method="rapl")
            run.flush()
        run.close()
        assert [row["name"] for row in ledger.rows("source")] == ["cpu"]
        assert verify(ledger).ok


def test_connections_that_are_not_used_are_closed(
    small: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_UNUSED_S", 0.05)
    with closing(Ledger(small.new())) as ledger:
        assert ledger.rows("run") == []
        until_s = time.monotonic() + 10.0
        while backends(small) and time.monotonic() < until_s:
            time.sleep(0.02)
        assert backends(small) == 0
        assert ledger.rows("run") == []
