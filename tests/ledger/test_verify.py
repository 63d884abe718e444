from __future__ import annotations

import gc
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Boolean, Float, Integer

from greentrain.budget import Budget
from greentrain.ledger import Ledger, RunLog, verify
from greentrain.ledger.events import window_content
from greentrain.ledger.hashing import canonical
from greentrain.ledger.schema import CONTENT, metadata
from greentrain.units import utc_now
from tests.ledger.events import CALIBRATION, CPU, window

TABLES = {table.name: table for table in metadata.sorted_tables}
CONTENT_TABLES = sorted(table.name for table in CONTENT.values())


def tell(ledger: Ledger, budget: str, name: str) -> str:
    """Record a stream of two experiences, with rows of every kind, and return its run's id."""
    with ledger.open_run("stream", name, sources=[CPU]) as run:
        account = ledger.account(budget, run)
        for position, actual_j in enumerate((100.0, 250.0)):
            reservation = account.reserve(300.0, "update")
            run.append(
                "decision",
                budget_id=budget,
                experience_id=f"{position}",
                position=position,
                reservation_id=reservation,
                update_mode="REPLAY",
                step_fraction=1.0,
                reason="best",
                sentence="replaying pays most",
                predicted_j=200.0,
                upper_bound_j=300.0,
                min_gain_per_j=0.25,
                state=canonical({}),
                alternatives=canonical([]),
            )
            for epoch, share in enumerate((0.25, 0.75)):
                draw(run, reservation, share * actual_j, epoch)
            account.settle(reservation, actual_j)
            run.append(
                "outcome",
                experience_id=f"{position}",
                position=position,
                reservation_id=reservation,
                metric="val_acc",
                metric_before=0.5,
                metric_after=0.75,
                steps=10,
                planned_steps=12,
                energy_j=actual_j,
                kept=True,
            )
        beat = window("validation", by_source={"cpu": 1.0}, reservation_id=reservation)
        run.append("heartbeat", **window_content(run.run_id, beat, None))
        run.append("calibration", **CALIBRATION)
        run.append("event", topic="waiting", experience_id="0-first", content="{}")
        run.append("replay", spool_id="s", line=1)
    return run.run_id


def draw(run: RunLog, reservation: str | None, energy_j: float | None, epoch: int = 0) -> None:
    run.record(
        window(
            by_source={"cpu": energy_j}, duration_s=36.0, epoch=epoch, reservation_id=reservation
        )
    )


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two streams on two budgets, and a third stream after them."""
    path = tmp_path_factory.mktemp("story") / "ledger.db"
    ledger = Ledger(str(path))
    for name in ("one", "two", "three"):
        budget = ledger.open_budget(name, Budget.parse("1 Wh", num_experiences=2))
        tell(ledger, budget, name)
    ledger.close()
    return path


@pytest.fixture
def database(story: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(story, tmp_path / "ledger.db"))


def alter(database: Path, *statements: str, **values: object) -> int:
    """Change the file behind the ledger's back, and return how many rows that changed."""
    with closing(sqlite3.connect(database)) as connection, connection:
        return sum(connection.execute(statement, values).rowcount for statement in statements)


def query(database: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(statement).fetchall()


def failures(database: Path) -> tuple[str, ...]:
    ledger = Ledger(str(database), create=False)
    try:
        found = verify(ledger)
        assert found.ok is not bool(found.failures)
        return found.failures
    finally:
        ledger.close()


def heads(database: Path) -> dict[str, dict[str, object]]:
    ledger = Ledger(str(database), create=False)
    try:
        return ledger.heads()
    finally:
        ledger.close()


def test_an_untouched_ledger_follows(database: Path) -> None:
    ledger = Ledger(str(database), create=False)
    found = verify(ledger)
    ledger.close()
    # Three times an opening, a source, a budget, a heartbeat, a calibration, an event, a replay, a
    # closing, and twice (reservation, decision, two windows, settlement, outcome).
    assert (found.rows, found.failures, found.notes, found.ok) == (3 * (8 + 12), (), (), True)


def test_an_empty_ledger_follows(ledger: Ledger) -> None:
    found = verify(ledger)
    assert (found.rows, found.ok, found.notes) == (0, True, ())


@pytest.mark.parametrize("table", sorted(TABLES))
def test_an_altered_cell_is_found(database: Path, table: str) -> None:
    ledger = Ledger(str(database), create=False)
    for column in TABLES[table].columns:
        for where in ("MIN", "MAX"):
            row = f"rowid = (SELECT {where}(rowid) FROM {table})"
            ((rowid, before),) = query(
                database, f"SELECT rowid, {column.name} FROM {table} WHERE {row}"
            )
            forged = _forged(column.type, column.name)
            assert alter(database, f"UPDATE {table} SET {column.name} = {forged} WHERE {row}") == 1
            assert not verify(ledger).ok, (table, column.name, where)
            # Where the id is what was altered, the row has another one.
            now = query(
                database,
                f"SELECT rowid FROM {table} WHERE rowid IN ({rowid}, {rowid} + 1000)",
            )[-1][0]
            alter(
                database,
                f"UPDATE {table} SET {column.name} = :before WHERE rowid = :now",
                before=before,
                now=now,
            )
    assert verify(ledger).ok
    ledger.close()


def _forged(kind: object, column: str) -> str:
    if isinstance(kind, Boolean):
        return f"1 - {column}"
    if isinstance(kind, (Integer, Float)):
        return f"COALESCE({column}, 0) + 1000"
    return f"COALESCE({column}, '') || 'x'"


def test_the_smallest_change_is_found(database: Path) -> None:
    alter(database, "UPDATE windows SET energy_j = energy_j * (1 + 3e-16) WHERE energy_j = 25.0")
    assert query(database, "SELECT COUNT(*) FROM windows WHERE energy_j = 25.0") == [(0,)]
    assert len(failures(database)) == 3


@pytest.mark.parametrize("forged", ["-1", "2", "1 + 3e-16", "9e999", "x'31'"])
def test_another_value_for_true_is_found(database: Path, forged: str) -> None:
    alter(database, f"UPDATE outcomes SET kept = {forged} WHERE kept = 1")
    assert len(failures(database)) == 6


def test_a_chain_that_is_no_text_is_found(database: Path) -> None:
    alter(database, "UPDATE entries SET chain = CAST(chain AS BLOB) WHERE id = 9")
    assert failures(database)


@pytest.mark.parametrize(("table", "column"), [("reservations", "purpose"), ("entries", "hash")])
def test_a_text_that_is_no_utf_8_is_found_without_a_traceback(
    database: Path, caplog: pytest.LogCaptureFixture, table: str, column: str
) -> None:
    alter(database, f"UPDATE {table} SET {column} = CAST(x'ff' AS TEXT)")
    assert failures(database)
    gc.collect()
    assert caplog.records == []


def test_an_emptied_cell_is_found(database: Path) -> None:
    alter(database, "UPDATE outcomes SET metric_before = NULL")
    assert len(failures(database)) == 6


@pytest.mark.parametrize("which", ["MIN", "MAX"])
@pytest.mark.parametrize("table", CONTENT_TABLES)
def test_a_row_deleted_from_a_table_is_found(database: Path, table: str, which: str) -> None:
    alter(
        database,
        f"DELETE FROM {table} WHERE entry_id = (SELECT {which}(entry_id) FROM {table})",
    )
    assert any("its content was removed" in failure for failure in failures(database))


def test_a_row_deleted_from_the_spine_is_found(database: Path) -> None:
    alter(database, "DELETE FROM entries WHERE id = (SELECT MAX(id) FROM entries)")
    assert "1 row(s) of closings were inserted without an entry" in failures(database)


@pytest.mark.parametrize("table", [name for name in CONTENT_TABLES if name != "closings"])
def test_a_row_deleted_with_its_entry_is_found_where_others_follow(
    database: Path, table: str
) -> None:
    (entry,) = query(database, f"SELECT MIN(entry_id) FROM {table}")[0]
    alter(
        database,
        "DELETE FROM entries WHERE id = :entry",
        f"DELETE FROM {table} WHERE entry_id = :entry",
        entry=entry,
    )
    assert failures(database)


def test_what_is_cut_off_at_the_end_shows_in_the_heads(database: Path) -> None:
    kept = heads(database)
    (entry,) = query(database, "SELECT MAX(entry_id) FROM closings")[0]
    alter(
        database,
        "DELETE FROM entries WHERE id = :entry",
        "DELETE FROM closings WHERE entry_id = :entry",
        entry=entry,
    )
    assert failures(database) == ()
    assert heads(database) != kept


@pytest.mark.parametrize("table", CONTENT_TABLES)
def test_a_row_inserted_without_an_entry_is_found(database: Path, table: str) -> None:
    columns = [column.name for column in TABLES[table].columns if column.name != "entry_id"]
    unique = {column.name for column in TABLES[table].columns if column.unique}
    values = [f"{name} || 'x'" if name in unique else name for name in columns]
    alter(
        database,
        f"INSERT INTO {table} (entry_id, {', '.join(columns)})"
        f" SELECT 999, {', '.join(values)} FROM {table} LIMIT 1",
    )
    assert f"1 row(s) of {table} were inserted without an entry" in failures(database)


def test_a_window_inserted_with_an_entry_is_found(database: Path) -> None:
    alter(
        database,
        "INSERT INTO entries (id, kind, chain, seq, recorded_utc, prev_hash, hash)"
        " SELECT 999, kind, chain, 999, recorded_utc, hash, prev_hash FROM entries"
        " WHERE kind = 'window' LIMIT 1",
        "INSERT INTO windows SELECT 999, run_id, NULL, phase, epoch, started_utc, duration_s,"
        " energy_j, by_source, complete, emissions_g, intensity_g_per_kwh, intensity_by_hour,"
        " NULL, NULL, NULL"
        " FROM windows LIMIT 1",
    )
    assert any(
        "rows were removed, inserted or reordered" in failure for failure in failures(database)
    )


def test_rows_whose_contents_changed_places_are_found(database: Path) -> None:
    one, two = (row[0] for row in query(database, "SELECT entry_id FROM windows LIMIT 2"))
    swap(database, "windows", "entry_id", one, two)
    assert sum("was altered" in failure for failure in failures(database)) == 2


def test_rows_that_changed_places_in_their_chain_are_found(database: Path) -> None:
    statement = "SELECT id FROM entries WHERE kind = 'window' ORDER BY id LIMIT 2"
    one, two = (row[0] for row in query(database, statement))
    swap(database, "entries", "id", one, two)
    swap(database, "windows", "entry_id", one, two)
    assert any(
        "rows were removed, inserted or reordered" in failure for failure in failures(database)
    )


def swap(database: Path, table: str, column: str, one: object, two: object) -> None:
    alter(
        database,
        f"UPDATE {table} SET {column} = -1 WHERE {column} = :one",
        f"UPDATE {table} SET {column} = :one WHERE {column} = :two",
        f"UPDATE {table} SET {column} = :two WHERE {column} = -1",
        one=one,
        two=two,
    )


def remove(database: Path, kind: str, name: str) -> None:
    """Take a run with its opening row and all its rows, or a budget, out of every table."""
    table = CONTENT[kind].name
    ((identity, opening),) = query(
        database, f"SELECT {kind}_id, entry_id FROM {table} WHERE name = '{name}'"
    )
    statements = ["DELETE FROM entries WHERE id = :opening"]
    if kind == "run":
        statements.append("DELETE FROM entries WHERE chain = 'run:' || :identity")
    statements += [
        f"DELETE FROM {each} WHERE entry_id NOT IN (SELECT id FROM entries)"
        for each in CONTENT_TABLES
    ]
    alter(database, *statements, opening=opening, identity=identity)


@pytest.mark.parametrize("kind", ["run", "budget"])
@pytest.mark.parametrize("name", ["one", "two"])
def test_what_was_taken_out_whole_is_found_where_others_follow(
    database: Path, kind: str, name: str
) -> None:
    remove(database, kind, name)
    chain = {"run": "runs", "budget": "budgets"}[kind]
    assert any(f"of {chain}" in failure and "removed" in failure for failure in failures(database))


def test_a_run_taken_out_from_the_end_shows_in_the_heads(database: Path) -> None:
    kept = heads(database)
    remove(database, "run", "three")
    assert failures(database) == ()
    assert heads(database)["runs"] != kept["runs"]


def test_an_opening_row_that_is_missing_is_named(database: Path) -> None:
    alter(
        database,
        "DELETE FROM entries WHERE kind = 'run' AND id = (SELECT MAX(entry_id) FROM runs)",
        "DELETE FROM runs WHERE entry_id = (SELECT MAX(entry_id) FROM runs)",
    )
    assert any("the run's opening row was removed" in failure for failure in failures(database))


@pytest.fixture
def run(ledger: Ledger) -> Iterator[RunLog]:
    with ledger.open_run("fit", "model") as opened:
        yield opened


@pytest.mark.parametrize(
    ("drawn_j", "settled_j", "follows"),
    [
        ([40.0, 60.0], 100.0, True),
        ([0.1, 0.2], 0.1 + 0.2, True),
        ([40.0, 60.0], 99.0, False),
        ([40.0, 60.0], 101.0, False),
        ([], 100.0, True),  # given: a note says that no window shows it
        ([], 0.0, True),
        ([40.0, None], 200.0, True),  # settled at its reservation: not everything was measured
    ],
)
def test_a_settlement_is_the_sum_of_its_windows(
    ledger: Ledger, run: RunLog, drawn_j: list[float | None], settled_j: float, follows: bool
) -> None:
    account = ledger.account(ledger.open_budget("digits", Budget(energy_j=3600.0)), run)
    reservation = account.reserve(200.0, "probe")
    draw(run, None, 1000.0)  # paid from nowhere
    for energy_j in drawn_j:
        draw(run, reservation, energy_j)
    account.settle(reservation, settled_j)
    found = verify(ledger)
    assert found.ok is follows
    assert all("its windows sum to" in failure for failure in found.failures)


def test_what_should_be_known_is_noted(ledger: Ledger) -> None:
    budget = ledger.open_budget("digits", Budget.parse("1 Wh"))
    with ledger.open_run("fit", "model") as run:
        account = ledger.account(budget, run)
        reservation = account.reserve(360.0, "probe")
        draw(run, reservation, 720.0)
        account.settle(reservation, 720.0)
        account.reserve(36.0, "update")
    left_open = ledger.open_run("fit", "left open")
    beat = window("validation", by_source={"cpu": 360.0})
    left_open.append("heartbeat", **window_content(left_open.run_id, beat, None))
    found = verify(ledger)
    assert found.failures == ()
    assert found.notes == (
        f"overrun: {reservation} used 360 J more than was reserved",
        "open: 36 J reserved for update were never settled and count as spent",
        f"unclosed: run {left_open.run_id} (left open) has no closing row",
        f"recovered: the last heartbeats of run {left_open.run_id} (left open) hold 360 J of "
        "1 phase(s) that never closed",
    )


def test_windows_that_were_recorded_before_they_ended_are_named(ledger: Ledger) -> None:
    with ledger.open_run("fit", "model") as run:
        run.record(window(by_source={"cpu": 1.0}, started=utc_now() - timedelta(seconds=1)))
        # The clock was set back by an hour within an epoch of a minute.
        ahead = utc_now() + timedelta(seconds=3540)
        run.record(window(by_source={"cpu": 1.0}, started=ahead, duration_s=60.0, epoch=3))
        run.record(window("fit", by_source={"cpu": 1.0}, started=ahead, duration_s=70.0))
    found = verify(ledger)
    assert (found.failures, found.exit_code) == ((), 0)
    (note,) = found.notes
    assert note.startswith(f"clock: 2 window(s) of run {run.run_id}, from train_epoch of epoch 3")
    assert "recorded up to 36" in note
    assert note.endswith("s before their end: the machine's clock was set back")
