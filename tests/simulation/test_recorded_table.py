"""Recorded tables, and their files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given

from greentrain.control import SKIP, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.simulation.recorded_table import (
    UNTRAINED,
    RecordedTable,
    assemble,
    from_line,
    modelled,
    read_table,
    to_line,
)
from tests.simulation.tables import FULL, REPLAY, WARM, by_hand, header, merged, probe, row, tables


def lines(table: RecordedTable) -> list[str]:
    parts = [table.header, *table.probes.values()]
    parts += [row for rows in table.rows.values() for row in rows]
    return [to_line(part) for part in parts]


@given(tables())
def test_a_table_comes_back_from_its_lines(table):
    again = assemble(from_line(line) for line in lines(table))
    assert again.header == table.header
    assert again.probes == table.probes
    assert again.rows == table.rows


def test_a_table_comes_back_from_its_file(tmp_path):
    path = tmp_path / "table.jsonl"
    path.write_text("\n".join(lines(by_hand())) + "\n")
    assert read_table(path).rows == by_hand().rows


def test_full_costs_what_retraining_in_full_each_time_does():
    assert by_hand().full_j == 10 + 20 + 30


def test_the_keys_at_an_experience_are_those_that_can_be_reached():
    assert by_hand().keys(0) == [UNTRAINED]
    assert set(by_hand().keys(2)) == {UNTRAINED, "updated-0", "updated-1"}


def test_what_is_not_kept_leaves_the_metric_of_the_model_that_stays():
    worse = row(0, UNTRAINED, FULL, 10.0, 0.3, kept=False, after=UNTRAINED)
    table = RecordedTable(
        header(1),
        {(0, UNTRAINED): probe(0, UNTRAINED)},
        {(0, UNTRAINED): (row(0, UNTRAINED, SKIP, 0.0, 0.4), worse)},
    )
    assert table.metric(worse) == 0.4


def test_modelled_joules_follow_the_samples_and_say_so():
    table = modelled(by_hand(), joules_per_sample=0.5, fixed_j=2.0)
    full = table.row(0, UNTRAINED, FULL)
    assert full.samples == 800  # 80 for each of its 10 J
    assert full.energy_j == 2.0 + 0.5 * 800
    assert table.row(0, UNTRAINED, SKIP).energy_j == 0.0
    assert table.header.cost == "modelled: 2 J and 0.5 J per sample trained on"


@pytest.mark.parametrize(
    ("price", "named"),
    [
        ({"joules_per_sample": 0.0}, "joules_per_sample is 0.0"),
        ({"fixed_j": -1.0}, "fixed_j is -1.0"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused(price, named):
    with pytest.raises(ConfigurationError, match=named):
        modelled(by_hand(), **{"joules_per_sample": 1.0, **price})


def test_a_table_with_a_hole_is_refused():
    table = by_hand()
    rows = {place: rows for place, rows in table.rows.items() if place != (2, "updated-1")}
    with pytest.raises(ConfigurationError, match=r"experience 2 has no rows .* 'updated-1'"):
        RecordedTable(table.header, table.probes, rows)


def test_a_table_without_a_way_to_skip_is_refused():
    with pytest.raises(ConfigurationError, match="is incomplete"):
        merged({(0, UNTRAINED): {FULL: (1.0, 0.5)}})


def test_an_action_that_was_not_recorded_is_named():
    with pytest.raises(ConfigurationError, match=r"has no REPLAY at experience 1"):
        by_hand().row(1, "updated-0", REPLAY)
    assert by_hand().row(1, "updated-0", WARM).action.mode is UpdateMode.WARM_START


@pytest.mark.parametrize(
    "line", ["", "[]", '{"kind": "row"}', '{"kind": "probe", "x": 1}', "nonsense"]
)
def test_what_is_no_line_of_a_table_is_refused(line):
    with pytest.raises(ConfigurationError, match="not a line of a recorded table"):
        from_line(line)


def test_another_version_of_the_format_is_refused():
    header_line = {**json.loads(to_line(header(1))), "format": 1}
    with pytest.raises(ConfigurationError, match="format 1, and this release reads format 2"):
        from_line(json.dumps(header_line))


def test_joules_below_zero_are_refused():
    with pytest.raises(ConfigurationError, match=r"energy_j is -1\.0"):
        row(0, UNTRAINED, FULL, -1.0, 0.5)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot read the table"):
        read_table(tmp_path / "missing.jsonl")
    path = tmp_path / "table.jsonl"
    path.write_text("\n".join(lines(by_hand())[1:]))
    with pytest.raises(ConfigurationError, match=r"table.jsonl: the table has 0 headers"):
        read_table(path)
