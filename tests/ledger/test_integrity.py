"""What a forger adds to the database itself: nothing is granted through it, and it shows."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from greentrain.budget import Budget
from greentrain.errors import BudgetExceeded, LedgerError
from greentrain.ledger import Ledger, verify
from greentrain.ledger.schema import CONTENT, metadata
from tests.ledger.cluster import Cluster
from tests.ledger.test_verify import tell

KEY = "a key that is long enough"
TERMS = Budget.parse("1 Wh", num_experiences=2)
TABLES = sorted(table.name for table in metadata.sorted_tables)
INDEXES = sorted(str(index.name) for table in metadata.sorted_tables for index in table.indexes)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a key, and 350 J of 3,600 J used."""
    path = tmp_path_factory.mktemp("keyed") / "ledger.db"
    with closing(Ledger(str(path), key=KEY)) as ledger:
        tell(ledger, ledger.open_budget("one", TERMS), "one")
    return path


@pytest.fixture
def database(keyed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(keyed, tmp_path / "ledger.db"))


def forge(database: Path, script: str) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.executescript(script)


def empty_index(database: Path, index: str) -> None:
    """Let an index use the pages of an empty one."""
    forge(
        database,
        f"""
        CREATE TABLE bare (a);
        CREATE INDEX empty ON bare (a);
        PRAGMA writable_schema = ON;
        UPDATE sqlite_master SET rootpage = (
            SELECT rootpage FROM sqlite_master WHERE name = 'empty') WHERE name = '{index}';
        DELETE FROM sqlite_master WHERE name IN ('empty', 'bare');
        """,
    )


def failures(url: str | Path, key: str | None = KEY) -> tuple[str, ...]:
    with closing(Ledger(str(url), create=False, key=key)) as ledger:
        return verify(ledger).failures


def take(url: str | Path, joules: float, key: str | None = KEY) -> str:
    with closing(Ledger(str(url), key=key)) as ledger, ledger.open_run("stream", "next") as run:
        return ledger.account(ledger.open_budget("one", TERMS), run).reserve(joules, "update")


def test_an_unaltered_ledger_is_clean(database: Path) -> None:
    assert failures(database) == ()
    assert take(database, 3200.0)
    with pytest.raises(BudgetExceeded):
        take(database, 100.0)


@pytest.mark.parametrize("event", ["BEFORE INSERT", "AFTER INSERT", "BEFORE DELETE"])
@pytest.mark.parametrize("table", TABLES)
def test_a_foreign_trigger_is_refused_and_named(database: Path, table: str, event: str) -> None:
    forge(database, f"CREATE TRIGGER sly {event} ON {table} BEGIN SELECT RAISE(IGNORE); END;")
    named = f"the trigger 'sly' on the table '{table}' is not of greentrain"
    with pytest.raises(LedgerError, match=named):
        take(database, 100.0)
    assert [one for one in failures(database) if named in one]


def test_a_foreign_view_is_refused_and_named(database: Path) -> None:
    forge(database, "CREATE VIEW handy AS SELECT * FROM windows;")
    with pytest.raises(LedgerError, match="the view 'handy' is not of greentrain"):
        take(database, 100.0)
    assert failures(database) == (
        "the view 'handy' is not of greentrain and can hide or change rows",
    )


@pytest.mark.parametrize("table", ["entries", "reservations"])
@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
def test_a_trigger_that_appears_during_a_run_grants_nothing(
    database: Path, table: str, when: str
) -> None:
    key = metadata.tables[table].c[0].name
    body = (
        "SELECT RAISE(IGNORE)"
        if when == "BEFORE"
        else f"DELETE FROM {table} WHERE {key} = NEW.{key}"
    )
    with closing(Ledger(str(database), key=KEY)) as ledger, ledger.open_run("fit", "on") as run:
        account = ledger.account(ledger.open_budget("one", TERMS), run)
        account.settle(account.reserve(100.0, "update"), 100.0)
        forge(database, f"CREATE TRIGGER sly {when} INSERT ON {table} BEGIN {body}; END;")
        with pytest.raises(LedgerError, match=r"dropped a new row|FOREIGN KEY"):
            account.reserve(100.0, "update")
        forge(database, "DROP TRIGGER sly;")
        assert account.balance().left_j == 3600.0 - 350.0 - 100.0
    assert failures(database) == ()


@pytest.mark.parametrize("index", INDEXES)
def test_an_emptied_index_grants_nothing_and_is_found(database: Path, index: str) -> None:
    empty_index(database, index)
    found = failures(database)
    assert any("damaged" in one for one in found), found
    with pytest.raises((LedgerError, BudgetExceeded)):
        take(database, 3400.0)  # 3,250 J are left


def test_windows_of_a_reservation_that_vanished_are_named(database: Path) -> None:
    forge(database, "DELETE FROM settlements; DELETE FROM reservations;")
    named = [one for one in failures(database) if "which is not in the ledger" in one]
    assert len(named) == 2
    assert named[0].startswith("2 window(s) with")


# PostgreSQL


@pytest.fixture(scope="module")
def server(cluster: Cluster) -> Iterator[str]:
    cluster.run("CREATE DATABASE keyed")
    with closing(Ledger(cluster.url("keyed"), key=KEY)) as ledger:
        tell(ledger, ledger.open_budget("one", TERMS), "one")
    yield "keyed"


@pytest.mark.parametrize("table", sorted(table.name for table in CONTENT.values()))
@pytest.mark.parametrize("how", ["trigger", "rule", "policy"])
def test_what_was_added_on_a_server_is_refused_and_named(
    cluster: Cluster, server: str, table: str, how: str
) -> None:
    url = cluster.copy(server)
    statements = {
        "trigger": f"CREATE TRIGGER sly BEFORE INSERT ON {table} "
        "FOR EACH ROW EXECUTE FUNCTION no()",
        "rule": f"CREATE RULE sly AS ON INSERT TO {table} DO INSTEAD NOTHING",
        "policy": f"CREATE POLICY sly ON {table} USING (false)",
    }
    engine = create_engine(make_url(url))
    with engine.begin() as connection:
        connection.execute(
            text(
                "CREATE FUNCTION no() RETURNS trigger AS 'BEGIN RETURN NULL; END' LANGUAGE plpgsql"
            )
        )
        connection.execute(text(statements[how]))
    engine.dispose()
    named = f"the {how} 'sly' on the table '{table}' is not of greentrain"
    with pytest.raises(LedgerError, match=named):
        take(url, 100.0)
    assert [one for one in failures(url) if named in one]


def test_views_beside_the_tables_of_a_server_are_allowed(cluster: Cluster, server: str) -> None:
    url = cluster.copy(server)
    engine = create_engine(make_url(url))
    with engine.begin() as connection:
        connection.execute(text("CREATE VIEW dashboard AS SELECT * FROM windows"))
    engine.dispose()
    assert failures(url) == ()
    assert take(url, 100.0)


def test_a_sequence_that_was_set_back_into_a_gap_is_refused(cluster: Cluster) -> None:
    url = cluster.new()
    with closing(Ledger(url)) as ledger, ledger.open_run("stream", "one") as run:
        account = ledger.account(ledger.open_budget("one", TERMS), run)
        engine = create_engine(make_url(url))
        with engine.begin() as connection:
            connection.execute(text("SELECT setval('entries_id_seq', 100)"))
        reservation = account.reserve(1.0, "update")
        with engine.begin() as connection:
            connection.execute(text("SELECT setval('entries_id_seq', 50)"))
        with pytest.raises(LedgerError, match="a number that is not the highest"):
            account.reserve(1.0, "update")
        with engine.begin() as connection:
            connection.execute(text("SELECT setval('entries_id_seq', 200)"))
        engine.dispose()
        account.settle(reservation, 1.0)
        assert verify(ledger).ok
