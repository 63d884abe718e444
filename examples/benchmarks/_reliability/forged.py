"""Forge a ledger that has a key: random cells, and its structure."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from _results import Row

from _reliability import ROOT  # noqa: F401  (for the tests' helpers)
from greentrain.budget import Budget
from greentrain.errors import GreentrainError
from greentrain.ledger import ExportedHeads, Ledger, verify
from greentrain.ledger.schema import CONTENT, metadata
from tests.ledger.test_forgery import cut, export, rehash
from tests.ledger.test_integrity import INDEXES, empty_index, forge
from tests.ledger.test_verify import alter, query, remove, swap, tell

KEY = "a key that is long enough"
CELLS, QUICK_CELLS, QUICK_EVERY = 5_000, 40, 3
NAMES = ("one", "two", "three")
TABLES = {table.name: table for table in metadata.sorted_tables}
CONTENT_TABLES = sorted(table.name for table in CONTENT.values())
VALUES: dict[str, str] = {
    "nothing": "NULL",
    "zero": "0",
    "next number": "{} + 1",
    "smallest change": "{} * (1 + 3e-16)",
    "negative": "-{}",
    "infinite": "9e999",
    "number as text": "CAST({} AS TEXT)",
    "bytes": "CAST({} AS BLOB)",
    "no UTF-8": "CAST(x'ff' AS TEXT)",
    "empty text": "''",
    "one more letter": "COALESCE({}, '') || 'x'",
    "other case": "upper({})",
    "cut": "substr({}, 1, length({}) - 1)",
    "with NUL": "COALESCE({}, '') || char(0) || 'x'",
    "of another row": "(SELECT {} FROM {table} ORDER BY random() LIMIT 1)",
}
"""SQL of forged values; ``{}`` is the present one."""


def forged(folder: Path, *, quick: bool) -> list[Row]:
    """Return the rows of forged cells and of structural forgeries."""
    ledger = _ledger(folder)
    missed: Counter[str] = Counter()
    count = 0
    for name, found in cells(ledger, QUICK_CELLS if quick else CELLS):
        count += 1
        missed[name] += not found
    structural = dict(structures(ledger, every=QUICK_EVERY if quick else 1))
    return [
        _row("cells", sum(missed.values()), count, [name for name in missed if missed[name]]),
        _row(
            "structures: triggers, a view, indexes, rows deleted, inserted and swapped, runs and "
            "budgets taken out, hashes computed again, tails cut off with exported heads",
            sum(not found for found in structural.values()),
            len(structural),
            [name for name, found in structural.items() if not found],
        ),
    ]


def cells(ledger: Path, count: int, seed: int = 0) -> Iterator[tuple[str, bool]]:
    """Forge a cell at a time, and yield its column and value, and whether it was found."""
    chance, database = random.Random(seed), ledger.with_name("forged.db")
    while count:
        table = TABLES[chance.choice(sorted(TABLES))]
        column = chance.choice(table.columns.keys())
        value = chance.choice(sorted(VALUES))
        rowid = chance.choice(query(ledger, f"SELECT rowid FROM {table}"))[0]
        shutil.copy(ledger, database)
        set_to = VALUES[value].replace("{table}", table.name).replace("{}", column)
        try:
            alter(database, f"UPDATE {table} SET {column} = {set_to} WHERE rowid = {rowid}")
        except sqlite3.Error:  # refused by the database: a key that exists, a missing value
            continue
        before, after = (_cell(one, table.name, column, rowid) for one in (ledger, database))
        if before == after:
            continue
        count -= 1
        yield f"{table}.{column}: {value}", is_found(database)


def structures(ledger: Path, every: int = 1) -> Iterator[tuple[str, bool]]:
    """Yield the names of structural forgeries, and whether they were found."""
    heads = export(ledger)
    for name, act in [*_structures().items()][::every]:
        database = Path(shutil.copy(ledger, ledger.with_name("forged.db")))
        act(database)
        yield name, is_found(database, heads if name.startswith("cut") else None)


def is_found(database: Path, heads: ExportedHeads | None = None) -> bool:
    """Return whether ``verify`` has failures; an error other than our own is none."""
    try:
        with closing(Ledger(str(database), create=False, key=KEY)) as ledger:
            return not verify(ledger, heads).ok
    except GreentrainError:
        return True
    except Exception:
        return False


def _structures() -> dict[str, Callable[[Path], Any]]:
    """Return what forgers do, by its name."""
    acts: dict[str, Callable[[Path], Any]] = {
        "a view": lambda path: forge(path, "CREATE VIEW handy AS SELECT * FROM windows"),
        "contents of windows swapped": partial(_swap, "windows"),
        "contents of settlements swapped": partial(_swap, "settlements"),
        "contents of outcomes swapped": partial(_swap, "outcomes"),
        "a whole reservation deleted": lambda path: alter(
            path, "DELETE FROM settlements", "DELETE FROM reservations"
        ),
        "hashes computed without the key": lambda path: (
            alter(path, "UPDATE windows SET energy_j = 0.5"),
            rehash(path),
        ),
    }
    for table in TABLES:
        acts[f"a trigger on {table}"] = partial(
            forge,
            script=f"CREATE TRIGGER sly BEFORE INSERT ON {table} BEGIN SELECT RAISE(IGNORE); END;",
        )
    for index in INDEXES:
        acts[f"index {index} emptied"] = partial(empty_index, index=index)
    for table in CONTENT_TABLES:
        row = f"(SELECT MIN(entry_id) FROM {table})"
        acts[f"a row of {table} deleted"] = partial(
            _alter, f"DELETE FROM {table} WHERE entry_id = {row}"
        )
    for kind in ("run", "budget"):
        for name in NAMES[:2]:
            acts[f"{kind} {name} taken out"] = partial(remove, kind=kind, name=name)
    for rows in (1, 2, 5, 18, 19, 20, 40):
        acts[f"cut off: the last {rows} rows"] = partial(cut, rows=rows)
    return acts


def _swap(table: str, path: Path) -> None:
    one, two = (row[0] for row in query(path, f"SELECT entry_id FROM {table} LIMIT 2"))
    swap(path, table, "entry_id", one, two)


def _alter(statement: str, path: Path) -> None:
    alter(path, statement)


def _cell(database: Path, table: str, column: str, rowid: object) -> list[object]:
    """Return the type and the exact value of a cell; nothing if its row has another number now."""
    with closing(sqlite3.connect(database)) as connection:
        connection.text_factory = bytes
        query = f"SELECT typeof({column}), {column} FROM {table} WHERE rowid = ?"
        return connection.execute(query, (rowid,)).fetchall()


def _ledger(folder: Path) -> Path:
    """Return a ledger with a key, and with rows of every kind."""
    path = folder / "keyed.db"
    with closing(Ledger(str(path), key=KEY)) as ledger:
        for name in NAMES:
            tell(ledger, ledger.open_budget(name, Budget.parse("1 Wh", num_experiences=2)), name)
    return path


def _row(what: str, missed: int, count: int, names: list[str]) -> Row:
    return Row(
        id="forged",
        what=f"forged {what}: not found, or a traceback",
        value=float(missed),
        unit="forgeries",
        reach=0.0,
        better="equal",
        seeds=count,
        note="in a ledger with a key" + "".join(f"; {name}" for name in names[:5]),
    )
