"""A large ledger is verified in a second process, with the same result."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from greentrain.errors import LedgerError
from greentrain.ledger import (
    Ledger,
    LedgerAtMoment,
    Verification,
    second_process,
    verified_meanwhile,
    verify,
)
from greentrain.ledger import verify_process as process

KEY = "a key of more than sixteen characters"


@pytest.fixture(autouse=True)
def _every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "FEWEST", 1)
    monkeypatch.setattr("os.cpu_count", lambda: 2)


@contextmanager
def _verified(*ledgers: Ledger) -> Iterator[list[Verification]]:
    with ledgers[0].reading() as first:
        parts = [LedgerAtMoment(first, ledgers[0], None)]
        with verified_meanwhile(parts) as results:
            yield results()


def _filled(path: Path, key: str | None = None) -> Ledger:
    ledger = Ledger(f"sqlite:///{path}", key=key)
    for number in range(3):
        with ledger.open_run("fit", f"run {number}"):
            pass
    return ledger


def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the ledger was verified in this process")

    monkeypatch.setattr(process, "_verified", fail)


@pytest.mark.parametrize("key", [None, KEY])
def test_the_second_process_gives_the_same_result(
    tmp_path: Path, key: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = _filled(tmp_path / "a b%20.db", key)
    expected = verify(ledger)
    _here(monkeypatch)
    with _verified(ledger) as found:
        assert found == [expected]
        assert found[0].heads == ledger.heads()
    assert found[0].ok
    ledger.close()


def test_a_forged_row_is_found_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    ledger = _filled(path)
    with sqlite3.connect(path) as forger:
        forger.execute("UPDATE runs SET name = 'another' WHERE name = 'run 1'")
    forger.close()
    expected = verify(ledger)
    _here(monkeypatch)
    with _verified(ledger) as found:
        assert found == [expected]
    assert not found[0].ok
    ledger.close()


def test_a_missing_key_is_an_error_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _filled(tmp_path / "a.db", KEY).close()
    ledger = Ledger(f"sqlite:///{tmp_path / 'a.db'}", create=False)
    _here(monkeypatch)
    with (
        ledger.reading() as rows,
        pytest.raises(LedgerError, match="was created with a key"),
        verified_meanwhile([LedgerAtMoment(rows, ledger, None)]),
    ):
        pass
    ledger.close()


def test_a_row_that_was_added_meanwhile_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    ledger = _filled(path)
    expected = verify(ledger)
    with ledger.reading() as rows:
        part = LedgerAtMoment(rows, ledger, None)
        assert rows.last_entry()
        other = Ledger(f"sqlite:///{path}")
        with other.open_run("fit", "later"):
            pass
        other.close()
        with verified_meanwhile([part]) as results:
            assert results() == [expected]
    ledger.close()


def test_a_process_that_fails_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = _filled(tmp_path / "a.db")
    monkeypatch.setattr(process, "_PROGRAM", "raise SystemExit(1)")
    with _verified(ledger) as found:
        assert found[0].ok
    for printed in ("hello", "[]", "[1]", '[{"rows": 1}]'):  # as of a sitecustomize that prints
        monkeypatch.setattr(process, "_PROGRAM", f"print({printed!r})")
        with _verified(ledger) as found:
            assert found[0].ok
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with _verified(ledger) as found:
        assert found[0].ok
    ledger.close()


@pytest.mark.parametrize("ends", ["os.kill(os.getpid(), 9)", "signal.pause()"])
def test_a_process_that_is_killed_or_gives_no_result_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    ledger = _filled(tmp_path / "a.db")
    monkeypatch.setattr(process, "_PROGRAM", f"import os, signal; {ends}")
    monkeypatch.setattr(second_process, "_PATIENCE_S", 0.0)
    with _verified(ledger) as found:
        assert found == [verify(ledger)]
    ledger.close()


def test_nothing_is_imported_from_the_present_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle to be verified may hold modules of its own."""
    ledger = _filled(tmp_path / "a.db")
    for name in ("json", "sqlite3", "greentrain"):
        (tmp_path / f"{name}.py").write_text("open('executed', 'w').close()")
    monkeypatch.chdir(tmp_path)
    with _verified(ledger) as found:
        assert found[0].ok
    assert not (tmp_path / "executed").exists()
    ledger.close()
