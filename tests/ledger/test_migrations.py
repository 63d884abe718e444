from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, inspect, make_url, text

from greentrain.budget import Budget
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, migrations, verify
from greentrain.ledger.schema import REVISIONS

SECOND = '''
"""A second revision, for the tests alone."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table("notes", sa.Column("id", sa.Integer, primary_key=True))
    with op.batch_alter_table("outcomes") as batch:
        batch.add_column(sa.Column("extra", sa.Text))
    {then}
'''


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A revision after the last one, which greentrain knows of."""
    folder = tmp_path / "more"
    folder.mkdir()
    (folder / "0002.py").write_text(SECOND.format(then="pass"))
    monkeypatch.setattr(
        "greentrain.ledger.migrations.upgrading.LOCATIONS", (*migrations.LOCATIONS, folder)
    )
    for module in ("revisions", "creation"):
        monkeypatch.setattr(f"greentrain.ledger.{module}.REVISIONS", ("0001", "0002"))
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
        assert connection.execute(text("SELECT * FROM greentrain_version")).all() == [("0002",)]
        assert inspect(connection).has_table("notes")
    assert len(newer.rows("budget")) == 1
    assert verify(newer).ok
    newer.close()


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(
    ledger: Ledger, url: str, second: Path
) -> None:
    ledger.open_run("fit", "model").close()
    (second / "0002.py").write_text(SECOND.format(then='op.execute("SELECT * FROM nowhere")'))
    shutil.rmtree(second / "__pycache__", ignore_errors=True)
    with pytest.raises(LedgerError, match="nowhere"):
        Ledger(url)
    with ledger.store.read() as connection:
        assert connection.execute(text("SELECT * FROM greentrain_version")).all() == [("0001",)]
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
