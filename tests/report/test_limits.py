"""A document lists the last windows and experiences; its figures and the CSV files cover all."""

from __future__ import annotations

import csv
import json
import math
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import (
    SCHEMA_VERSION,
    build,
    build_and_write,
    check,
    decided,
    measured,
    write,
)
from greentrain.report.exports import facts
from greentrain.report.limits import MOST_POINTS, thinned
from greentrain.report.sums import Sum
from greentrain.report.write import render_json
from tests.report.ledgers import SOURCES, stream, window


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """Two streams of two experiences with a window, and a fit of four windows."""
    stream(ledger)
    stream(ledger, name="other")
    with ledger.open_run("fit", "mine", sources=SOURCES) as run:
        for epoch in range(4):
            window(run, 10.0 + epoch, 1.0, epoch=epoch)
    return ledger


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "MOST_WINDOWS", 2)
    monkeypatch.setattr(decided, "MOST_EXPERIENCES", 1)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_figures_cover_what_is_not_listed(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = build(filled)
    assert whole["left_out"] == {"windows": 0, "experiences": 0}
    monkeypatch.setattr(measured, "MOST_WINDOWS", 2)
    monkeypatch.setattr(decided, "MOST_EXPERIENCES", 1)
    cut = build(filled)
    assert cut["left_out"] == {"windows": 4, "experiences": 3}
    assert cut["windows"] == whole["windows"][-2:]
    assert cut["experiences"] == whole["experiences"][-1:]
    listed = ("windows", "experiences", "left_out")
    assert {name: cut[name] for name in cut if name not in listed} == {
        name: whole[name] for name in whole if name not in listed
    }
    schema = files("greentrain.report") / "schema" / f"report-{SCHEMA_VERSION}.json"
    held = json.loads(render_json(cut))
    jsonschema.Draft202012Validator(json.loads(schema.read_text())).validate(held)
    assert check(render_json(cut), [filled]).ok


def test_the_csv_files_list_all(filled: Ledger, few: None, tmp_path: Path) -> None:
    document, paths = build_and_write(filled, tmp_path / "new", ("csv", "json"))
    assert document["left_out"] == {"windows": 4, "experiences": 3}
    assert [path.name for path in paths] == [
        "report.runs.csv",
        "report.experiences.csv",
        "report.windows.csv",
        "report.hours.csv",
        "report.budgets.csv",
        "report.json",
    ]
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted(
        path.name for path in paths
    )
    assert [row["position"] for row in rows(paths[1])] == ["0", "1", "0", "1"]
    assert [float(row["energy (J)"]) for row in rows(paths[2])] == [5400, 5400, 11, 12, 13, 14]


@pytest.mark.parametrize("way", ["streamed", "rendered"])
def test_each_window_has_the_tags_of_its_run(tmp_path: Path, way: str) -> None:
    with closing(Ledger.in_memory()) as ledger:
        for team, project in (("night", "digits"), (None, None)):
            with ledger.open_run("fit", "of a team", team=team, project=project) as run:
                window(run, 11.0, 1.0)
        if way == "streamed":
            _, paths = build_and_write(ledger, tmp_path, ("csv",))
        else:
            paths = write(build(ledger), tmp_path, ("csv",))
    found = [(row["team"], row["project"]) for row in rows(paths[2])]
    assert found == [("night", "digits"), ("", "")]


def test_a_document_that_lists_all_gives_the_same_csv_either_way(
    filled: Ledger, tmp_path: Path
) -> None:
    _, streamed = build_and_write(filled, tmp_path / "a", ("csv",))
    written = write(build(filled), tmp_path / "b", ("csv",))
    assert [one.read_bytes() for one in streamed] == [one.read_bytes() for one in written]


def test_csv_files_are_not_cut_silently(filled: Ledger, few: None, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="build_and_write"):
        write(build(filled), tmp_path, ("csv",))
    assert list(tmp_path.glob("report*")) == []


def test_the_energy_of_fine_tuning_is_unknown_if_not_all_is_listed(
    filled: Ledger, few: None
) -> None:
    assert facts.fine_tuning_j(build(filled)) is None


def test_an_unknown_format_leaves_no_file(filled: Ledger, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not known"):
        build_and_write(filled, tmp_path, ("csv", "odt"))
    assert list(tmp_path.glob(".report*")) == []


def test_spending_keeps_its_first_and_last_point() -> None:
    points = list(range(3 * MOST_POINTS))
    kept = thinned(points)
    assert (len(kept), kept[0], kept[-1]) == (MOST_POINTS, 0, points[-1])
    assert list(kept) == sorted(set(kept))


@given(st.lists(st.none() | st.floats(-1e9, 1e9), max_size=300), st.integers(0, 300))
def test_a_sum_is_rounded_once(values: list[float | None], place: int) -> None:
    first, second = Sum(), Sum()
    for value in values[:place]:
        first.add(value)
    for value in values[place:]:
        second.add(value)
    second.compress()
    first.join(second)
    known = [value for value in values if value is not None]
    assert first.total == (math.fsum(known) if known else None)
    assert first.known == len(known)
