"""Rows that are hashed in a second process: the result is that of one process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greentrain.budget import Budget
from greentrain.ledger import ExportedHeads, Ledger, Verification, verify, verify_hashes
from tests.ledger.test_verify import alter, story, tell

__all__ = ["story"]  # a fixture

KEY = "a key that is long enough"


@pytest.fixture(scope="module")
def keyed(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("keyed") / "keyed.db"
    ledger = Ledger(f"sqlite:///{path}", key=KEY)
    tell(ledger, ledger.open_budget("one", Budget.parse("1 Wh", num_experiences=2)), "one")
    ledger.close()
    return path


@pytest.fixture
def second(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Return a function that has rows hashed in a second process from then on."""

    def use() -> None:
        monkeypatch.setattr(verify_hashes, "FEWEST", 0)
        monkeypatch.setattr(verify_hashes.os, "cpu_count", lambda: 2)

    return use


def verified(path: Path, key: str | None = None, **options) -> Verification:
    ledger = Ledger(f"sqlite:///{path}", create=False, key=key)
    try:
        return verify(ledger, **options)
    finally:
        ledger.close()


LAST = "entry_id = (SELECT max(entry_id) FROM windows)"
FORGERIES = [
    f"UPDATE windows SET energy_j = energy_j + 1 WHERE {LAST}",
    "UPDATE runs SET heads = '[]'",
    "UPDATE runs SET name = 'other'",
    f"DELETE FROM windows WHERE {LAST}",
    "UPDATE entries SET hash = 'f' WHERE seq = 3",
    "UPDATE entries SET seq = 'text' WHERE seq = 3",
    "UPDATE entries SET seq = seq + 1000 WHERE seq = 3",
]


@pytest.mark.parametrize("statement", ["SELECT 1", *FORGERIES])
@pytest.mark.parametrize("key", [None, KEY])
def test_a_second_process_finds_what_one_finds(story, keyed, tmp_path, second, statement, key):
    database = Path(shutil.copy(story if key is None else keyed, tmp_path / "copy.db"))
    alter(database, statement)
    alone = verified(database, key)
    second()
    assert verified(database, key) == alone
    assert alone.ok == (statement == "SELECT 1")


@pytest.mark.parametrize("program", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_a_second_process_that_fails_leaves_the_work_to_this_one(
    story, tmp_path, second, monkeypatch, program
):
    database = Path(shutil.copy(story, tmp_path / "copy.db"))
    alter(database, FORGERIES[0])
    alone = verified(database)
    second()
    monkeypatch.setattr(verify_hashes, "_PROGRAM", program)
    assert verified(database) == alone


def test_without_an_interpreter_there_is_one_process(story, second, monkeypatch):
    second()
    monkeypatch.setattr(sys, "executable", "")
    assert verified(story).ok
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    assert verified(story).ok


def test_a_second_process_hashes_only_the_rows_that_are_new(story, tmp_path, second):
    database = Path(shutil.copy(story, tmp_path / "copy.db"))
    ledger = Ledger(f"sqlite:///{database}", create=False)
    exported = ExportedHeads(exported_utc="new year", heads=ledger.heads())
    tell(ledger, ledger.open_budget("three", Budget.parse("1 Wh", num_experiences=2)), "three")
    ledger.close()
    alter(database, FORGERIES[0])
    alone = verified(database, exported=exported, new_only=True)
    second()
    again = verified(database, exported=exported, new_only=True)
    assert again == alone and not again.ok and again.earlier
