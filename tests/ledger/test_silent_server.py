"""A PostgreSQL server that is frozen, or that accepts connections and never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from greentrain.budget import Budget
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, postgres, sql_store, verify
from tests.ledger.cluster import Cluster, programs
from tests.ledger.events import CPU, window

TERMS = Budget.parse("1 Wh", num_experiences=2)


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    """A server of its own, because freezing it would disturb other tests."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed")
    own = Cluster(folder)
    yield own
    own.remove()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_GRACE_S", 0.3)
    monkeypatch.setattr(sql_store, "BUSY_TIMEOUT_S", 0.2)
    monkeypatch.setitem(postgres._CONNECT, "connect_timeout", 2)  # the least that libpq accepts


@contextmanager
def frozen(server: Cluster) -> Iterator[None]:
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


def test_every_statement_on_a_frozen_server_ends_with_an_error(server: Cluster) -> None:
    with closing(Ledger(server.new())) as ledger:
        run = ledger.open_run("stream", "one", sources=[CPU])
        account = ledger.account(ledger.open_budget("one", TERMS), run)
        reservation = account.reserve(100.0, "update")
        with frozen(server):
            for act in (
                account.balance,
                lambda: account.reserve(1.0, "update"),
                lambda: account.settle(reservation, 1.0),
                lambda: ledger.rows("run"),
                lambda: ledger.open_run("stream", "two"),
            ):
                with pytest.raises(LedgerError, match=r"did not answer|timeout|connection"):
                    act()
        account.settle(reservation, 1.0)
        run.close()
        assert verify(ledger).ok


def test_no_row_is_lost_on_a_frozen_server(server: Cluster) -> None:
    with closing(Ledger(server.new())) as ledger:
        run = ledger.open_run("stream", "one", sources=[CPU])
        run.flush()
        with frozen(server):
            for epoch in range(5):
                run.record(window(by_source={"cpu": 1.0}, epoch=epoch))
            run.flush()
        run.close()
        assert [row["epoch"] for row in ledger.windows()] == [0, 1, 2, 3, 4]
        assert verify(ledger).ok


def test_a_server_that_accepts_and_never_answers_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        kept: list[socket.socket] = []
        thread = threading.Thread(target=lambda: kept.append(listening.accept()[0]))
        thread.start()
        with pytest.raises(LedgerError, match="timeout"):
            Ledger(f"postgresql+psycopg://user@127.0.0.1:{port}/ledger")
        thread.join()
        for one in kept:
            one.close()
