"""A ledger in memory does what one in a file does, and leaves nothing behind."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greentrain.budget import Budget
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger import Ledger, verify
from tests.ledger.events import CPU, NEW_YEAR, window
from tests.ledger.test_verify import tell

KEY = "a key that is long enough"
RANDOM = ("run_id", "reservation_id", "budget_id", "parent_id", "heads")
"""Columns that differ from ledger to ledger: ids, and what is hashed over them."""


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder and the temporary folder, which a ledger in memory leaves empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def memory() -> Iterator[Ledger]:
    opened = Ledger.in_memory(clock=lambda: NEW_YEAR)
    yield opened
    opened.close()


def comparable(ledger: Ledger) -> dict[str, list[dict[str, Any]]]:
    return {
        kind: [{name: row[name] for name in row if name not in RANDOM} for row in rows]
        for kind, rows in ledger.snapshot().by_kind().items()
    }


def record(ledger: Ledger) -> None:
    """Record a stream with rows of every kind, a refusal and a release."""
    parent = ledger.open_budget("team", Budget.parse("1 kWh per month"))
    child = Budget(energy_j=3600.0, num_experiences=4, per="month", parent="team")
    budget = ledger.open_budget("digits", child)
    assert ledger.open_budget("digits", child) == budget
    tell(ledger, budget, "a")
    run = ledger.open_run("fit", "killed", sources=[CPU])
    reservation = ledger.account(budget, run).reserve(100.0, "an update")
    run.record(window(by_source={"cpu": 40.0}, reservation_id=reservation))
    run.flush()
    with pytest.raises(BudgetExceeded, match=r"another needs 1 Wh, and 3,150 J of 1 Wh are left"):
        ledger.account(budget, run).reserve(3600.0, "another")
    with pytest.raises(LedgerError, match="may still be active"):
        ledger.release(reservation)
    ledger.release(reservation, 40.0)
    run.close("failed")
    assert ledger.status(parent).promised == 3600.0
    assert ledger.balance(budget).spent_j == 390.0


def test_it_records_what_a_file_records(memory: Ledger, empty: Path) -> None:
    record(memory)
    assert list(empty.iterdir()) == []
    file = Ledger("ledger.db", clock=lambda: NEW_YEAR)
    record(file)
    assert comparable(memory) == comparable(file)
    assert {head["count"] for head in memory.heads().values()} == {
        head["count"] for head in file.heads().values()
    }
    found, same = verify(memory), verify(file)
    assert (found.failures, found.exit_code) == (same.failures, same.exit_code) == ((), 0)
    file.close()


def test_budgets_follow_its_clock() -> None:
    now = [datetime(2026, 1, 31, 12, tzinfo=UTC)]
    ledger = Ledger.in_memory(clock=lambda: now[0])
    budget = ledger.open_budget("monthly", Budget.parse("1 Wh per month"))
    with ledger.open_run("stream", "a") as run:
        ledger.account(budget, run).reserve(3600.0, "all of January")
        assert ledger.balance(budget).left_j == 0.0
        now[0] += timedelta(days=1)
        assert ledger.now() == now[0]
        assert ledger.balance(budget).left_j == 3600.0
        ledger.account(budget, run).reserve(3600.0, "all of February")
    ledger.clock = lambda: datetime(2026, 3, 1, tzinfo=UTC)
    assert ledger.balance(budget).left_j == 3600.0
    assert verify(ledger).ok
    ledger.close()


def test_tampering_is_found(memory: Ledger) -> None:
    tell(memory, memory.open_budget("digits", Budget.parse("1 Wh", num_experiences=2)), "a")
    with memory.store.write() as connection:
        connection.exec_driver_sql("UPDATE windows SET energy_j = energy_j / 2")
    assert any("(window): was altered" in failure for failure in verify(memory).failures)


def test_many_threads_may_write_and_read_at_once(memory: Ledger) -> None:
    budget = memory.open_budget("shared", Budget(energy_j=100.0))
    refused: list[str] = []

    def work(number: int) -> None:
        with memory.open_run("fit", f"{number}") as run:
            account = memory.account(budget, run)
            for epoch in range(5):
                run.record(window(by_source={"cpu": 1.0}, epoch=epoch))
                try:
                    account.settle(account.reserve(6.0, "a step"), 6.0)
                except BudgetExceeded as error:
                    refused.append(str(error))
                assert memory.status(budget).within

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # 4 threads ask 5 times for 6 J: 16 times there is enough of 100 J.
    assert memory.balance(budget).spent_j == 96.0
    assert len(refused) == 4
    assert len(memory.rows("window")) == 20
    assert verify(memory).failures == ()


def test_rows_that_cannot_be_written_wait_in_memory(
    memory: Ledger, monkeypatch: pytest.MonkeyPatch, empty: Path
) -> None:
    def refuse(*_: object) -> str:
        raise LedgerError("the disk is full")

    run = memory.open_run("fit", "model")
    with monkeypatch.context() as patch:
        patch.setattr(memory.store, "append", refuse)
        run.record(window(by_source={"cpu": 1.0}, epoch=0))
        run.flush()
        assert memory.rows("window") == []
    run.record(window(by_source={"cpu": 1.0}, epoch=1))
    run.close()
    assert [row["epoch"] for row in memory.rows("window")] == [0, 1]
    assert verify(memory).ok
    assert list(empty.iterdir()) == []


def test_each_is_a_ledger_of_its_own_and_ends_with_its_close() -> None:
    one, other = Ledger.in_memory(), Ledger.in_memory()
    one.open_budget("digits", Budget(energy_j=1.0))
    assert other.rows("budget") == []
    assert one.name != other.name
    assert (one.name, one.url) == (one.public_name, "sqlite://")
    one.close()
    other.close()
    with pytest.raises(LedgerError, match="no such table"):
        one.rows("budget")
    one.close()


def test_its_rows_may_have_a_key() -> None:
    with pytest.raises(ConfigurationError, match="5 characters long"):
        Ledger.in_memory(key="short")
    ledger, plain = Ledger.in_memory(key=KEY), Ledger.in_memory()
    for one in (ledger, plain):
        one.open_run("fit", "model").close()
        assert verify(one).ok
    first = [one.snapshot().spine[0]["prev_hash"] for one in (ledger, plain)]
    assert first[0] != first[1] == "0" * 64
    ledger.close()
    plain.close()
