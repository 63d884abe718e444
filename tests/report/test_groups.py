"""Rows for streams, runs, teams, projects and months: each is the report of its runs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report.exports.tables import render_groups
from greentrain.report.groups import GROUPS, months_left_out, roll_up
from tests.report.ledgers import SOURCES, stream, window


@pytest.fixture
def tagged(ledger: Ledger) -> Ledger:
    """1 Wh of vision in November, 2 Wh of it in December, and 3 Wh without a tag in February."""
    months = (("a", "vision", 2026, 11), ("a", "vision", 2026, 12), ("=b", None, 2027, 2))
    for watt_hours, (name, team, year, month) in enumerate(months, 1):
        started = datetime(year, month, 15, tzinfo=UTC)
        with ledger.open_run("fit", name, sources=SOURCES, team=team, project="p") as run:
            window(run, 3600.0 * watt_hours, 0.0, started=started)
    return ledger


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("stream", [("a", 3), ("=b", 3)]),
        ("run", [("a", 1), ("a", 2), ("=b", 3)]),
        ("team", [("vision", 3), (None, 3)]),
        ("project", [("p", 6)]),
    ],
)
def test_the_rows_of_a_group_sum_up_its_runs(tagged, by, expected) -> None:
    *rows, total = roll_up([tagged], by)
    assert [(row["name"], row["energy_j"]) for row in rows] == [
        (name, 3600.0 * watt_hours) for name, watt_hours in expected
    ]
    assert (total["name"], total["energy_j"], total["runs"]) == ("total", 6 * 3600.0, 3)


def test_each_month_from_the_first_to_the_last_has_a_row(tagged) -> None:
    rows = {row["name"]: row["energy_j"] for row in roll_up([tagged], "month")}
    months = {"2026-11": 3600.0, "2026-12": 7200.0, "2027-01": None, "2027-02": 10800.0}
    assert {name: joules for name, joules in rows.items() if name in months} == months


def test_two_streams_of_one_name_in_two_ledgers_are_two_rows(tmp_path: Path) -> None:
    ledgers = [Ledger(str(tmp_path / name)) for name in ("a.db", "b.db")]
    for ledger in ledgers:
        stream(ledger)
    *rows, total = roll_up(ledgers, "stream")
    assert [(row["ledger"], row["energy_j"]) for row in rows] == [
        ("a.db", 5400.0),
        ("b.db", 5400.0),
    ]
    # Both metered one card at the same time: the total counts it once.
    assert total["energy_j"] == 5400.0
    for ledger in ledgers:
        ledger.close()


@pytest.mark.parametrize("by", ["", "week", "Stream", "x" * 500])
def test_an_unknown_group_is_refused(ledger, by) -> None:
    with pytest.raises(ConfigurationError, match="allowed are stream, run, team, project, month"):
        roll_up([ledger], by)


@pytest.mark.parametrize("by", GROUPS)
def test_an_empty_ledger_has_only_a_total(ledger, by) -> None:
    (total,) = roll_up([ledger], by)
    assert (total["runs"], total["energy_j"]) == (0, None)


def test_the_csv_holds_no_formula_and_no_exponent(tagged) -> None:
    header, *rows = render_groups(roll_up([tagged], "stream"), "stream").splitlines()
    assert header.startswith("row,name,ledger,kind,run id,runs")
    assert rows[1].startswith("stream,'=b,")
    assert [row.split(",")[7] for row in rows] == ["0.003", "0.003", "0.006"]


def test_a_team_named_total_is_told_from_the_total(ledger) -> None:
    for team in ("total", None):
        with ledger.open_run("fit", "a", sources=SOURCES, team=team) as run:
            window(run, 3600.0, 0.0)
    rows = render_groups(roll_up([ledger], "team"), "team").splitlines()[1:]
    assert [row.split(",")[:2] for row in rows] == [
        ["team", "total"],
        ["team", ""],
        ["total", "total"],
    ]


def test_a_clock_at_1970_makes_no_row_for_each_month_since() -> None:
    clock = [datetime(1970, 1, 2, tzinfo=UTC)]
    ledger = Ledger.in_memory(clock=lambda: clock[0])
    for year, joules in ((1970, 3600.0), (2026, 7200.0)):
        clock[0] = datetime(year, 11, 2, tzinfo=UTC)
        with ledger.open_run("fit", "a", sources=SOURCES) as run:
            window(run, joules, 0.0, started=clock[0])
    rows = roll_up([ledger], "month")
    assert [(row["name"], row["energy_j"]) for row in rows] == [
        ("1970-11", 3600.0),
        ("2026-11", 7200.0),
        ("total", 10800.0),
    ]
    assert months_left_out(rows) == 56 * 12 - 1
    ledger.close()
