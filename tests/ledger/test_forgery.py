"""What a forger does to a ledger, and that it shows: against its own rows, or exported heads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Float, Integer, create_engine, make_url, text, update

from greentrain.errors import ConfigurationError, GreentrainError, LedgerError
from greentrain.ledger import ExportedHeads, Ledger, Verification, verify
from greentrain.ledger.hashing import row_hash
from greentrain.ledger.multi import verify_all
from greentrain.ledger.schema import CONTENT, RUN_CHAIN, entries, metadata
from tests.ledger.cluster import Cluster
from tests.ledger.events import window
from tests.ledger.test_verify import alter, query, remove, story

__all__ = ["story"]  # a fixture

KEY = "a key that is long enough"
NUMBERS = [
    (table.name, column.name)
    for table in metadata.sorted_tables
    for column in table.columns
    if isinstance(column.type, (Float, Integer))
]


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GREENTRAIN_LEDGER_KEY", raising=False)


@pytest.fixture
def database(story: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(story, tmp_path / "ledger.db"))


def verified(
    url: str | Path, exported: ExportedHeads | None = None, **options: Any
) -> Verification:
    ledger = Ledger(str(url), create=False, **options)
    try:
        return verify(ledger, exported)
    finally:
        ledger.close()


def export(database: Path) -> ExportedHeads:
    ledger = Ledger(str(database), create=False)
    try:
        return ExportedHeads(exported_utc="new year", heads=ledger.heads())
    finally:
        ledger.close()


# PostgreSQL: one story, and a copy of its database for each forgery


@pytest.fixture(scope="module")
def told(cluster: Cluster) -> Iterator[str]:
    from greentrain.budget import Budget
    from tests.ledger.test_verify import tell

    cluster.run("CREATE DATABASE told")
    ledger = Ledger(cluster.url("told"))
    for name in ("one", "two"):
        tell(ledger, ledger.open_budget(name, Budget.parse("1 Wh", num_experiences=2)), name)
    assert verify(ledger) == Verification(rows=2 * 20, failures=(), notes=())
    ledger.close()
    yield "told"


def forge(url: str, *statements: str) -> list[Any]:
    """Change a database behind the ledger's back; return what the last statement gave."""
    engine = create_engine(make_url(url))
    rows: list[Any] = []
    with engine.begin() as connection:
        connection.execute(text("SET session_replication_role = replica"))  # no foreign keys
        for statement in statements:
            result = connection.execute(text(statement))
            rows = list(result) if result.returns_rows else []
    engine.dispose()
    return rows


def test_an_altered_number_is_found_on_postgresql_too(cluster: Cluster, told: str) -> None:
    url = cluster.copy(told)
    missed = []
    for table, column in NUMBERS:
        key = metadata.tables[table].c[0].name
        ((first, before),) = forge(
            url, f"SELECT {key}, {column} FROM {table} ORDER BY {key} LIMIT 1"
        )
        after = (before or 0) + 1000
        forge(url, f"UPDATE {table} SET {column} = {after} WHERE {key} = {first}")
        if verified(url).ok:
            missed.append((table, column))
        now = after if column == key else first
        back = "NULL" if before is None else before
        forge(url, f"UPDATE {table} SET {column} = {back} WHERE {key} = {now}")
    assert missed == []
    assert verified(url).ok


@pytest.mark.parametrize(
    "statements",
    [
        ["DELETE FROM windows WHERE entry_id = (SELECT min(entry_id) FROM windows)"],
        [
            "DELETE FROM entries WHERE id = (SELECT min(entry_id) FROM windows)",
            "DELETE FROM windows WHERE entry_id = (SELECT min(entry_id) FROM windows)",
        ],
        [
            "INSERT INTO closings (entry_id, run_id, status) VALUES (999, 'x', 'completed')",
        ],
        [
            "DELETE FROM entries WHERE chain = 'run:' || (SELECT min(run_id) FROM runs)",
        ],
    ],
)
def test_rows_taken_out_or_put_in_are_found_on_postgresql_too(
    cluster: Cluster, told: str, statements: list[str]
) -> None:
    url = cluster.copy(told)
    forge(url, *statements)
    assert verified(url).exit_code == 1


# Heads inside the ledger


def test_an_opening_row_holds_the_heads_of_what_changed_since(ledger: Ledger) -> None:
    first = ledger.open_run("fit", "one")
    second = ledger.open_run("fit", "two")
    first.close()
    second.close()
    ledger.open_run("fit", "three").close()
    heads = [json.loads(row["heads"]) for row in ledger.rows("run")]
    assert heads[:2] == [{}, {}]
    assert {chain: head[0] for chain, head in heads[2].items()} == {first.chain: 1, second.chain: 1}
    (one, *_) = ledger.rows("closing", run_id=first.run_id)
    assert one["entry_id"] == 3
    assert heads[2][first.chain][1] == ledger.heads()[first.chain]["head"]


def rehash(database: Path, key: bytes | None = None) -> None:
    """Compute all hashes anew, as a forger would who has the program and not the key."""
    engine = create_engine(f"sqlite:///{database}")
    heads: dict[str, str] = {}
    openings: dict[str, str] = {}
    counts: dict[str, int] = {}
    with engine.begin() as connection:
        for entry in connection.execute(entries.select().order_by(entries.c.id)).mappings().all():
            table = CONTENT[entry["kind"]]
            held = (
                connection.execute(table.select().where(table.c.entry_id == entry["id"]))
                .mappings()
                .one()
            )
            first = openings.get(entry["chain"], entry["prev_hash"])
            new = {
                **entry,
                "seq": counts.get(entry["chain"], 0),
                "prev_hash": heads.get(entry["chain"], first),
            }
            new["hash"] = row_hash(new, held, key)
            connection.execute(update(entries).where(entries.c.id == entry["id"]).values(new))
            heads[entry["chain"]] = new["hash"]
            counts[entry["chain"]] = new["seq"] + 1
            if entry["kind"] == "run":
                openings["run:" + held["run_id"]] = new["hash"]
    engine.dispose()


def test_a_tail_whose_hashes_were_computed_anew_shows_in_the_next_opening_row(
    database: Path,
) -> None:
    alter(
        database,
        "UPDATE windows SET duration_s = 37 WHERE entry_id = (SELECT MIN(entry_id) FROM windows)",
    )
    rehash(database)
    found = verified(database)
    assert "names another head of run:" in found.failures[0]
    assert found.exit_code == 1


def test_a_run_that_was_taken_out_whole_is_named_by_the_next_row(database: Path) -> None:
    ((run_id,),) = query(database, "SELECT run_id FROM runs WHERE name = 'one'")
    remove(database, "run", "one")
    rehash(database)
    found = verified(database)
    assert f"of run:{run_id}, which was removed whole" in found.failures[0]


# Heads outside of it


def cut(database: Path, rows: int) -> None:
    """Take the last rows out of every table."""
    alter(
        database,
        "DELETE FROM entries WHERE id > (SELECT MAX(id) FROM entries) - :rows",
        *(
            f"DELETE FROM {table.name} WHERE entry_id NOT IN (SELECT id FROM entries)"
            for table in CONTENT.values()
        ),
        rows=rows,
    )


@pytest.mark.parametrize("rows", [1, 2, 5, 19, 20, 21, 41])
def test_a_tail_that_was_cut_off_shows_against_exported_heads(database: Path, rows: int) -> None:
    kept = export(database)
    assert verified(database, kept) == Verification(rows=60, failures=(), notes=())
    cut(database, rows)
    found = verified(database, kept)
    assert "was cut off" in found.failures[0]
    assert "new year" in found.failures[0]
    assert found.exit_code == 1


@pytest.mark.parametrize("rows", [1, 18])
def test_a_run_without_its_closing_row_is_uncovered(database: Path, rows: int) -> None:
    early = export(database)
    cut(database, rows)
    found = verified(database)
    assert (found.failures, len(found.uncovered), found.exit_code) == ((), 1, 3)
    assert verified(database, export(database)).exit_code == 0
    assert verified(database, early).exit_code == 1


def test_a_ledger_rewritten_as_a_whole_shows_against_exported_heads(database: Path) -> None:
    kept = export(database)
    cut(database, 20)
    alter(database, "UPDATE outcomes SET metric_after = 0.99")
    alter(database, "UPDATE runs SET heads = '{}'", "UPDATE budgets SET heads = '{}'")
    rehash(database)
    assert not verified(database).ok  # the heads that the rows hold are missed
    assert any("was replaced" in failure for failure in verified(database, kept).failures)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99])
def test_a_file_that_was_truncated_is_found(database: Path, share: float) -> None:
    whole = database.read_bytes()
    database.write_bytes(whole[: int(len(whole) * share)])
    try:
        assert verified(database).exit_code in (1, 4)
    except GreentrainError as refused:
        assert str(database) in str(refused)


# A key


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "sealed.db"
    ledger = Ledger(str(path), key=KEY)
    for name in ("one", "two"):
        with ledger.open_run("fit", name) as run:
            run.record(window(by_source={"cpu": 1.0}))
    assert verify(ledger).ok
    ledger.close()
    return path


def test_a_key_is_needed_to_verify_and_to_write(
    sealed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert KEY.encode() not in sealed.read_bytes()
    needed = "created with a key, .*; set the environment variable GREENTRAIN_LEDGER_KEY"
    with pytest.raises(LedgerError, match=needed):
        verified(sealed)
    ledger = Ledger(str(sealed))
    with pytest.raises(LedgerError, match=needed):
        ledger.open_run("fit", "three")
    assert len(ledger.rows("run")) == 2  # reading needs none
    ledger.close()
    monkeypatch.setenv("GREENTRAIN_LEDGER_KEY", KEY)
    assert verified(sealed).ok


def test_another_key_fails_on_the_first_row(sealed: Path) -> None:
    other = Ledger(str(sealed), key=KEY + "!")
    found = verify(other)
    assert len(found.failures) == 1
    assert found.failures[0].startswith("row 0 of runs (run): was altered, or written with another")
    with pytest.raises(LedgerError, match="created with another key"):
        other.open_run("fit", "three")
    other.close()


def test_a_ledger_that_was_rewritten_without_the_key_is_found(sealed: Path) -> None:
    alter(sealed, "UPDATE entries SET prev_hash = :zeros WHERE id = 1", zeros="0" * 64)
    rehash(sealed)
    assert verified(sealed).failures != ()  # its heads
    found = verified(sealed, key=KEY)
    assert len(found.failures) == 1
    assert "row 0 of runs (run): was altered, or written without a key" in found.failures[0]


def test_rows_rewritten_without_the_key_are_found(sealed: Path) -> None:
    alter(sealed, "UPDATE windows SET energy_j = 0.5")
    rehash(sealed)
    assert "row 0 of runs (run): was altered" in verified(sealed, key=KEY).failures


def test_a_ledger_begun_without_a_key_takes_none_later(database: Path) -> None:
    ledger = Ledger(str(database), key=KEY)
    with pytest.raises(LedgerError, match="created without a key, and a key was given"):
        ledger.open_run("fit", "four")
    ledger.close()


def test_a_short_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="6 characters long; it takes 16") as caught:
        Ledger(str(tmp_path / "x.db"), key="hunter")
    assert "hunter" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# The command


def test_heads_are_written_and_compared(database: Path, tmp_path: Path) -> None:
    kept = tmp_path / "heads.json"
    lines, code = verify_all([str(database)], kept)
    assert (code, kept.exists()) == (0, True)
    assert f"The heads were written to {kept}" in lines[-1]
    lines, code = verify_all([str(database)], kept)
    runs = json.loads(kept.read_text())["ledgers"][str(database)]["heads"][RUN_CHAIN]
    assert code == 0
    assert f"of the runs {runs['head']} after 3 rows. They cover 60 of 60 rows" in lines[-1]
    moved = Path(shutil.move(database, tmp_path / "moved.db"))
    cut(moved, 1)
    lines, code = verify_all([str(moved)], kept)
    assert code == 1
    assert "was cut off" in next(line for line in lines if line.startswith("FAILED"))


def test_a_report_holds_heads_too(database: Path, tmp_path: Path) -> None:
    from greentrain.report import build, write

    ledger = Ledger(str(database))
    (report,) = write(build(ledger), tmp_path / "out", ("json",))
    ledger.close()
    assert verify_all([str(database)], report)[1] == 0
    cut(database, 1)
    assert verify_all([str(database)], report)[1] == 1


def test_heads_of_a_ledger_that_follows_not_are_not_written(database: Path, tmp_path: Path) -> None:
    alter(database, "UPDATE windows SET energy_j = 1")
    lines, code = verify_all([str(database)], tmp_path / "heads.json")
    assert code == 1
    assert not (tmp_path / "heads.json").exists()
    assert len([line for line in lines if line.startswith("FAILED")]) == 18
    assert "because the ledger has failures" in lines[-1]


def test_several_ledgers_are_verified_at_once(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(database, tmp_path / "second.db")
    cut(tmp_path / "second.db", 1)
    monkeypatch.chdir(tmp_path)
    lines, code = verify_all(["*.db", "ledger.db"], Path("heads.json"))
    assert code == 3
    assert [line for line in lines if line.startswith("ledger ")] == [
        "ledger ledger.db",
        "ledger second.db",
    ]
    assert verify_all(["ledger.db", "sqlite:///second.db"], Path("heads.json"))[1] == 0
    assert verify_all(["second.db"], Path("heads.json"))[1] == 0
    alter(database, "UPDATE windows SET energy_j = 1")
    assert verify_all(["*.db"], Path("heads.json"))[1] == 1
    with pytest.raises(ConfigurationError, match=r"holds no heads of 'third\.db'"):
        shutil.copy("second.db", "third.db")
        verify_all(["third.db"], Path("heads.json"))


@pytest.mark.parametrize("text_", ["", "[]", '{"ledgers": 3}', '{"ledgers": {"x": {}}}'])
def test_a_file_without_heads_is_refused(database: Path, tmp_path: Path, text_: str) -> None:
    (tmp_path / "heads.json").write_text(text_)
    with pytest.raises(ConfigurationError, match="holds no heads; give a file"):
        verify_all([str(database)], tmp_path / "heads.json")


def test_a_pattern_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no ledger matches '.*\*\.db'"):
        verify_all([str(tmp_path / "*.db")])
