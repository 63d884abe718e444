"""The types of the rows, against the tables, against real rows, and against their documentation."""

from __future__ import annotations

import re
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_overloads, get_type_hints

import pytest

from greentrain.budget import Budget
from greentrain.ledger import Ledger, RecoveredWindowRow, RowReader, RowsByKind, WindowRow
from greentrain.ledger.rows import EntryRow, PaymentRow
from greentrain.ledger.schema import CONTENT
from tests.ledger.test_verify import tell

ROOT = Path(__file__).parents[2]
ROWS = {kind: get_args(rows)[0] for kind, rows in get_type_hints(RowsByKind).items()}
OUTSIDE = ("greentrain", "callbacks", "examples", "tests")


def base(hint: Any) -> Any:
    """Return the type of a field, that of its texts for a choice between texts."""
    if get_origin(hint) is UnionType or type(None) in get_args(hint):
        first, none = get_args(hint)
        assert none is type(None)
        return base(first) | None
    if get_origin(hint) is Literal:
        (found,) = {type(one) for one in get_args(hint)}
        return found
    return hint


def test_each_kind_of_row_has_a_type_and_an_overload() -> None:
    *overloads, other = get_overloads(RowReader.rows)
    typed = {}
    for one in overloads:
        hints = get_type_hints(one)
        (kind,) = get_args(hints["kind"])
        (typed[kind],) = get_args(hints["return"])
    assert typed == ROWS
    assert list(ROWS) == list(CONTENT)
    assert get_type_hints(other)["kind"] is str


@pytest.mark.parametrize("kind", CONTENT)
def test_a_row_has_just_the_columns_of_its_table(kind: str) -> None:
    columns = {
        column.name: column.type.python_type | None if column.nullable else column.type.python_type
        for column in CONTENT[kind].c
    }
    hints = {name: base(hint) for name, hint in get_type_hints(ROWS[kind]).items()}
    assert hints == {"recorded_utc": str, **columns}


@pytest.mark.parametrize("row", [EntryRow, *ROWS.values(), RecoveredWindowRow])
def test_every_field_is_documented(row: type) -> None:
    documented = {
        name
        for one in (row, EntryRow, PaymentRow, WindowRow)
        if get_type_hints(one).items() <= get_type_hints(row).items()
        for name in re.findall(r"(?m)^        (\w+): ", one.__doc__ or "")
    }
    assert documented == set(get_type_hints(row))


def test_real_rows_have_the_fields_of_their_types(ledger: Ledger) -> None:
    tell(ledger, ledger.open_budget("digits", Budget.parse("1 Wh", num_experiences=2)), "a")
    snapshot = ledger.snapshot()
    assert snapshot.by_kind() == {kind: ledger.rows(kind) for kind in CONTENT}
    for kind, row in ROWS.items():
        rows = ledger.rows(kind)
        assert rows
        assert all(set(one) == set(get_type_hints(row)) for one in rows), kind
    (window, *_) = ledger.windows()
    assert set(window) == set(get_type_hints(RecoveredWindowRow))
    first = ledger.rows("window")[0]
    assert snapshot.rows("window", epoch=0) == ledger.rows("window", epoch=0) != []
    assert first in snapshot.rows("window", epoch=0, run_id=first["run_id"])


def test_the_store_is_used_by_the_ledger_alone() -> None:
    touched = re.compile(
        r"(?i)(?<!greentrain\.)ledger\w*(\(\))?\.store\b"
        r"|\.store\.(append|clock|close|head|host|key|name|path|read|rows|url|write)\b"
    )
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in OUTSIDE
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.is_relative_to(ROOT / "greentrain" / "ledger")
        and not path.is_relative_to(ROOT / "tests" / "ledger")
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if touched.search(line)
    ]
    assert found == []
