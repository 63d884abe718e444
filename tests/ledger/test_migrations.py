from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import (
    Column,
    Connection,
    MetaData,
    Text,
    create_engine,
    inspect,
    make_url,
    text,
)

from greentrain.budget import Budget
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, migrations, verify
from greentrain.ledger.schema import CONTENT, REVISIONS, entries, metadata
from tests.ledger.test_ledger import OUTCOME
from tests.ledger.test_verify import tell

SECOND = '''
"""A second revision, for the tests alone."""

import sqlalchemy as sa
from alembic import op

revision = "0900"
down_revision = "LAST"


def upgrade() -> None:
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))
    with op.batch_alter_table("outcomes") as batch:
        batch.add_column(sa.Column("extra", sa.Text))
    {then}
'''.replace("LAST", REVISIONS[-1])


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A revision after the last one, which greentrain knows of."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "0900.py").write_text(SECOND.format(then="pass"))
    monkeypatch.setattr(
        "greentrain.ledger.migrations.upgrading.LOCATIONS", (*migrations.LOCATIONS, folder)
    )
    for module in ("revisions", "creation"):
        monkeypatch.setattr(f"greentrain.ledger.{module}.REVISIONS", (*REVISIONS, "0900"))
    return folder


def described(connection: Connection) -> dict[str, Any]:
    """Return what the database says of its tables, in no particular order."""
    seen = inspect(connection)
    return {
        table: {
            "columns": [(one["name"], str(one["type"]), one["nullable"]) for one in columns],
            "primary": seen.get_pk_constraint(table),
            "foreign": seen.get_foreign_keys(table),
            "unique": sorted(map(str, seen.get_unique_constraints(table))),
            "indexes": sorted(map(str, seen.get_indexes(table))),
        }
        for table in seen.get_table_names()
        for columns in [seen.get_columns(table)]
    }


def test_the_revisions_make_what_an_empty_database_is_given(
    ledger: Ledger, request: pytest.FixtureRequest
) -> None:
    with ledger.store.read() as connection:
        at_once = described(connection)
    on_server = ledger.store.path is None
    url = request.getfixturevalue("cluster").new() if on_server else "sqlite://"
    engine = create_engine(make_url(url))
    with engine.begin() as connection:
        migrations.upgrade(connection)
        by_steps = described(connection)
    engine.dispose()
    assert by_steps == at_once


def test_the_revisions_follow_one_another_in_the_order_that_is_known() -> None:
    scripts = ScriptDirectory.from_config(migrations.config())
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS
    assert {path.stem for path in migrations.LOCATIONS[0].glob("[0-9]*.py")} == set(REVISIONS)


def test_an_older_ledger_is_brought_up_to_date(ledger: Ledger, url: str, second: Path) -> None:
    ledger.open_budget("digits", Budget(energy_j=1.0))
    newer = Ledger(url, create=False)
    with newer.store.read() as connection:
        assert connection.execute(text("SELECT * FROM greentrain_version")).all() == [("0900",)]
        assert inspect(connection).has_table("notes")
    assert len(newer.rows("budget")) == 1
    assert verify(newer).ok
    newer.close()


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(
    ledger: Ledger, url: str, second: Path
) -> None:
    ledger.open_run("fit", "model").close()
    (second / "0900.py").write_text(SECOND.format(then='op.execute("SELECT * FROM nowhere")'))
    shutil.rmtree(second / "__pycache__", ignore_errors=True)
    with pytest.raises(LedgerError, match="nowhere"):
        Ledger(url)
    with ledger.store.read() as connection:
        assert connection.execute(text("SELECT * FROM greentrain_version")).all() == [
            (REVISIONS[-1],)
        ]
        assert not inspect(connection).has_table("notes")
    assert verify(ledger).ok


def test_a_newer_ledger_is_refused(ledger: Ledger, url: str) -> None:
    with ledger.store.write() as connection:
        connection.execute(text("UPDATE greentrain_version SET version_num = '9999'"))
    with pytest.raises(LedgerError, match=r"newer greentrain: .* 9999, .* up to \d+; upgrade"):
        Ledger(url)


def test_alembic_is_not_imported_to_open_a_ledger_that_is_up_to_date(tmp_path: Path) -> None:
    code = (
        "import sys, greentrain.ledger as ledger\n"
        "for _ in range(2): ledger.Ledger(sys.argv[1]).close()\n"
        "print('alembic' in sys.modules, 'psycopg' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.db")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "False"]


# A column that a later greentrain adds

COLUMN = '''
"""Add the column ``extra`` to the outcomes, for the tests alone."""

import sqlalchemy as sa
from alembic import op

revision = "0900"
down_revision = "LAST"


def upgrade() -> None:
    op.add_column("outcomes", sa.Column("extra", sa.Text))
'''.replace("LAST", REVISIONS[-1])


@pytest.fixture
def later(second: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Turn this greentrain into the later one, which has the column."""
    (second / "0900.py").write_text(COLUMN)
    for module in ("revisions", "creation"):
        monkeypatch.setattr(f"greentrain.ledger.{module}.REVISIONS", REVISIONS)

    def begin() -> None:
        tables = MetaData(naming_convention=metadata.naming_convention)
        entries.to_metadata(tables)
        wider = CONTENT["outcome"].to_metadata(tables)
        wider.append_column(Column("extra", Text))
        monkeypatch.setitem(CONTENT, "outcome", wider)  # type: ignore[arg-type]
        for module in ("revisions", "creation"):
            monkeypatch.setattr(f"greentrain.ledger.{module}.REVISIONS", (*REVISIONS, "0900"))

    return begin


def test_a_new_column_changes_no_old_hash_and_is_hashed(
    ledger: Ledger, url: str, later: Callable[[], None]
) -> None:
    tell(ledger, ledger.open_budget("old", Budget.parse("1 Wh", num_experiences=2)), "old")
    before = ledger.heads()
    ledger.close()
    later()
    newer = Ledger(url)
    assert newer.heads() == before
    assert verify(newer).failures == ()
    assert [row["extra"] for row in newer.rows("outcome")] == [None, None]
    # Rows with the column, and rows of an older greentrain that has no value for it.
    run_id = tell(newer, newer.open_budget("new", Budget.parse("1 Wh", num_experiences=2)), "new")
    with newer.open_run("stream", "more") as run:
        for extra in ("a", "null", ""):
            run.append("outcome", **{**OUTCOME, "extra": extra})
    assert [row["extra"] for row in newer.rows("outcome")] == [None] * 4 + ["a", "null", ""]
    assert newer.rows("outcome", run_id=run_id) != []
    assert verify(newer).failures == ()
    newer.close()


@pytest.mark.parametrize(
    ("change", "seq"),
    [
        ("extra = 'b' WHERE extra = 'a'", "row 1"),
        ("extra = NULL WHERE extra = 'a'", "row 1"),
        ("extra = '' WHERE extra IS NULL", "row 0"),
        ("extra = 'a' WHERE extra IS NULL", "row 0"),
        ("extra = 'null' WHERE extra IS NULL", "row 0"),
        ("extra = metric, metric = 'a' WHERE extra = 'a'", "row 1"),
        ("energy_j = NULL WHERE extra = 'a'", "row 1"),
    ],
)
def test_a_change_of_a_new_column_is_found(
    ledger: Ledger, url: str, later: Callable[[], None], change: str, seq: str
) -> None:
    with ledger.open_run("stream", "old") as run:
        run.append("outcome", **OUTCOME)
        ledger.close()
        later()
        newer = Ledger(url)
        with newer.store.write() as connection:
            newer.store.append(
                connection, "outcome", run.chain, {**OUTCOME, "run_id": run.run_id, "extra": "a"}
            )
    assert verify(newer).failures == ()
    with newer.store.write() as connection:
        assert connection.execute(text(f"UPDATE outcomes SET {change}")).rowcount == 1
    assert verify(newer).failures == (f"{seq} of {run.chain} (outcome): was altered",)
    newer.close()


def test_a_ledger_of_a_pre_release_is_refused_in_one_sentence(ledger: Ledger, url: str) -> None:
    with ledger.store.write() as connection:
        connection.execute(text("UPDATE greentrain_version SET version_num = '0001'"))
    for create in (True, False):
        with pytest.raises(LedgerError) as caught:
            Ledger(url, create=create)
        assert str(caught.value) == (
            f"the ledger {ledger.name!r} was written by a pre-release of greentrain (revision "
            "0001) and cannot be upgraded; read it with that version, and use another file or "
            "database for new runs"
        )


@pytest.mark.parametrize(
    "change",
    [
        """metrics = '[{"name": "acc", "value": 0.99, "mode": "max"}]'""",
        "metrics = NULL",
        "resumed_j = NULL",
    ],
)
def test_a_forged_metric_of_a_fit_is_found_and_an_old_closing_row_stays_valid(
    tmp_path: Path, change: str
) -> None:
    path = tmp_path / "old.db"
    ledger = Ledger(str(path))
    ledger.open_run("fit", "old").close()
    heads = ledger.heads()
    with ledger.store.write() as connection:  # the tables of revision 0005
        connection.execute(text("DROP TABLE events"))
        for table, column in (
            ("closings", "metrics"),
            ("closings", "resumed_j"),
            ("decisions", "waiting"),
            ("outcomes", "shifted_g"),
        ):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        connection.execute(text("UPDATE greentrain_version SET version_num = '0005'"))
    ledger.close()
    newer = Ledger(str(path), create=False)
    assert newer.heads() == heads
    fit = newer.open_run("fit", "new")
    fit.close(metrics='[{"name": "acc", "value": 0.5, "mode": "max"}]', resumed_j=2.0)
    assert [row["resumed_j"] for row in newer.rows("closing")] == [None, 2.0]
    assert verify(newer).ok
    with newer.store.write() as connection:
        where = f"WHERE run_id = '{fit.run_id}'"
        connection.execute(text(f"UPDATE closings SET {change} {where}".replace(":", r"\:")))
    assert verify(newer).failures == (f"row 0 of {fit.chain} (closing): was altered",)
    newer.close()
