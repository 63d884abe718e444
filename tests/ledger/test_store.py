from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from greentrain.budget import Budget
from greentrain.errors import ConfigurationError, GreentrainError, LedgerError
from greentrain.ledger import Ledger
from greentrain.ledger.creation import STATEMENTS, create_file
from greentrain.ledger.schema import REVISIONS
from tests.ledger.events import window
from tests.prepared import CONTEXT


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("url", ["sqlite:///greentrain.db", "greentrain.db"])
def test_a_url_or_a_file_names_the_ledger(url: str, here: Path) -> None:
    ledger = Ledger(url)
    assert (here / "greentrain.db").exists()
    assert ledger.url == "sqlite:///greentrain.db"
    ledger.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "://x",
        ":memory:",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:ledger.db?mode=memory&uri=true",
        "sqlite:///ledger.db?nosuch=1",
        "sqlite://greentrain.db",
        "sqlite://folder/ledger.db",
        "sqlite+nosuch:///ledger.db",
        "nosuch://ledger",
        "postgresql://team:secret@host:port/ledger",
        "postgresql+psycopg2://team:secret@host/ledger",
        "mysql://team:secret@host/ledger",
    ],
)
def test_a_url_that_names_no_sqlite_file_is_refused_in_one_sentence(url: str, here: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Ledger(url)
    message = str(caught.value)
    assert "ledger" in message
    assert "'sqlite:///greentrain.db'" in message
    assert "\n" not in message
    assert "secret" not in message
    assert list(here.iterdir()) == []


def test_whoever_only_reads_creates_nothing(here: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"'missing\.db' does not exist"):
        Ledger("sqlite:///missing.db", create=False)
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("create", [True, False])
def test_a_text_is_no_ledger_and_stays_as_it_is(here: Path, create: bool) -> None:
    text = here / "notes.txt"
    text.write_text("not a database, but a good many words " * 100)
    before = text.read_bytes()
    with pytest.raises(LedgerError, match=r"'notes\.txt' cannot be read, .*is not a database"):
        Ledger("notes.txt", create=create)
    assert text.read_bytes() == before


@pytest.mark.parametrize("create", [True, False])
def test_another_database_is_no_ledger_and_stays_as_it_is(here: Path, create: bool) -> None:
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE runs (x)")
    other.close()
    with pytest.raises(LedgerError, match=r"'other\.db' is not a greentrain ledger"):
        Ledger("other.db", create=create)
    with sqlite3.connect("other.db") as other:
        tables = other.execute("SELECT name FROM sqlite_master").fetchall()
    other.close()
    assert tables == [("runs",)]


def test_a_folder_is_no_ledger(here: Path) -> None:
    (here / "folder.db").mkdir()
    with pytest.raises(GreentrainError, match=r"folder\.db"):
        Ledger("folder.db")


def test_its_owner_alone_may_read_it(here: Path) -> None:
    ledger = Ledger("sqlite:///deep/down/greentrain.db")
    with ledger.open_run("fit", "model"):
        pass
    files = [path for path in (here / "deep" / "down").iterdir() if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    ledger.close()


@pytest.mark.parametrize(
    "error", [None, OSError("no links here"), sqlite3.OperationalError("full")]
)
def test_a_ledger_comes_whole_where_it_can(
    here: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    if error is not None:

        def refuse(*_: object) -> None:
            raise error

        monkeypatch.setattr("os.link", refuse)
    Ledger("x.db").close()
    assert [path.name for path in here.iterdir()] == ["x.db"]
    assert stat.S_IMODE((here / "x.db").stat().st_mode) == 0o600
    with closing(sqlite3.connect("x.db")) as database:
        made = database.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL").fetchall()
        assert sorted(sql for (sql,) in made) == sorted(text.strip() for text in STATEMENTS[:-1])
        assert database.execute("SELECT * FROM greentrain_version").fetchall() == [(REVISIONS[-1],)]
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_empty_file_becomes_a_ledger_and_one_that_is_there_stays(here: Path) -> None:
    (here / "empty.db").touch()
    Ledger("empty.db").close()
    ledger = Ledger("empty.db", create=False)
    with ledger.open_run("fit", "model"):
        pass
    create_file(here / "empty.db")
    assert len(ledger.rows("run")) == 1
    ledger.close()


def test_a_folder_that_cannot_be_created_is_one_sentence(here: Path) -> None:
    (here / "file").write_text("in the way")
    with pytest.raises(ConfigurationError, match=r"cannot create the ledger 'file/x\.db': "):
        Ledger("sqlite:///file/x.db")


def test_a_naive_time_is_refused_and_nothing_is_recorded(ledger: Ledger) -> None:
    run = ledger.open_run("fit", "model")
    with pytest.raises(ConfigurationError, match="naive"):
        run.record(window(started=datetime(2026, 1, 1), by_source={}))
    assert ledger.rows("window") == []


def test_a_row_is_there_whole_or_not_at_all(ledger: Ledger) -> None:
    with pytest.raises(RuntimeError, match="in the middle"), ledger.store.write() as connection:
        ledger.store.append(connection, "run", "runs", _opening())
        raise RuntimeError("in the middle")
    assert ledger.rows("run") == []
    assert ledger.heads() == {}


def test_a_database_that_refuses_is_one_sentence(ledger: Ledger) -> None:
    with ledger.store.write() as connection:
        ledger.store.append(connection, "run", "runs", _opening())
    failing = pytest.raises(LedgerError, match=r"(?i)unique constraint")
    with failing as caught, ledger.store.write() as connection:
        ledger.store.append(connection, "run", "runs", _opening())
    assert "\n" not in str(caught.value)


def _opening() -> dict[str, str]:
    return {"run_id": "r", "kind": "fit", "name": "n", "environment": "{}"}


def _open_all_at_once(folder: str) -> None:
    for number in range(5):
        ledger = Ledger(f"sqlite:///{folder}/{number}.db")
        ledger.open_budget("shared", Budget(energy_j=1.0))
        ledger.close()


def test_processes_that_create_one_ledger_at_once_agree(here: Path) -> None:
    workers = [CONTEXT.Process(target=_open_all_at_once, args=(str(here),)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    for number in range(5):
        ledger = Ledger(str(here / f"{number}.db"), create=False)
        assert len(ledger.rows("budget")) == 1
        ledger.close()
