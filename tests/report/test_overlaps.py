"""What two runs measured of one thing at once is counted once, and each run's own figures stay."""

from __future__ import annotations

import dataclasses
import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.carbon import Emissions
from greentrain.report import build
from greentrain.report.overlaps import Overlaps
from greentrain.report.row_helpers import readable
from greentrain.report.times import length, own_times, with_times
from greentrain.units import utc_text
from tests.ledger.events import CALIBRATION
from tests.report.ledgers import SOURCES, STARTED, window

NAMES = st.sampled_from(["gpu:0", "cpu"])
POWER_W = {"gpu:0": 100.0, "cpu": 40.0}
ONE_WH = Emissions(grams=0.6, intensity_g_per_kwh=400.0)


def row(entry: int, run: str, started_s: float, duration_s: float, joules: dict) -> dict:
    """A window as the report reads it."""
    return {
        "entry_id": entry,
        "run_id": run,
        "started_utc": utc_text(datetime.fromtimestamp(started_s, UTC)),
        "duration_s": duration_s,
        "energy_j": math.fsum(joules.values()) if joules else None,
        "emissions_g": None,
        "market_emissions_g": None,
        "joules": joules,
    }


def run(name: str, host: str = "abc") -> dict:
    """A run whose sources have no UUIDs; runs are opened in the order of their names."""
    return {"run_id": name, "kind": "fit", "opened_utc": name, "host": host, "sources": []}


def test_of_two_runs_at_once_the_second_gives_up_the_share_of_its_time(ledger):
    first = ledger.open_run("fit", "first", environment={"host": "abc"}, sources=SOURCES)
    second = ledger.open_run("fit", "second", environment={"host": "abc"}, sources=SOURCES)
    window(first, 3600.0, 1800.0)  # 36 s
    # Its first 9 s of 36 are the other run's last ones: a quarter of 5400 J and of its grams.
    window(second, 3600.0, 1800.0, started=STARTED + timedelta(seconds=27), emissions=ONE_WH)
    first.close()
    second.close()
    report = build(ledger)
    assert [one["energy_j"] for one in report["runs"]] == [5400.0, 5400.0]
    assert [one["overlap_j"] for one in report["runs"]] == [0.0, 1350.0]
    assert report["totals"]["energy_j"] == 5400.0 + 0.75 * 5400.0
    assert report["totals"]["overlap_j"] == 1350.0
    assert report["carbon"]["emissions_g"] == pytest.approx(0.45)
    gpu, cpu = sorted(report["overlaps"], key=lambda one: one["energy_j"], reverse=True)
    assert (gpu["counted_in"], gpu["not_again_in"]) == (first.run_id, second.run_id)
    assert (gpu["source"], gpu["host"], gpu["uuid"]) == ("gpu:0", "abc", None)
    assert (gpu["duration_s"], gpu["energy_j"]) == (9.0, 900.0)
    assert gpu["emissions_g"] == pytest.approx(0.6 * 900 / 5400)
    assert (cpu["source"], cpu["energy_j"]) == ("cpu", 450.0)
    assert report["totals"]["overlap_note"].startswith("1 pair of runs metered the same source")
    assert {one["name"]: one["energy_j"] for one in report["totals"]["sources"]} == {
        "gpu:0": 6300.0,
        "cpu": 3150.0,
    }
    assert report["totals"]["by_phase"][0]["energy_j"] == report["totals"]["energy_j"]


@pytest.mark.parametrize(("inside_j", "left_j"), [(3600.0, 1800.0), (9000.0, 0.0)])
def test_a_run_inside_a_measured_command_shows_its_phases(ledger, inside_j, left_j):
    environment = {"host": "abc"}
    around = ledger.open_run("measure", "python", environment=environment, sources=SOURCES)
    fit = ledger.open_run("fit", "model", environment=environment, sources=SOURCES)
    # Of 36 s at 150 W, the fit has 24 s: an epoch of 18 s, and a validation of 6 s.
    for phase, after_s, duration_s in (("train_epoch", 6, 18.0), ("validation", 24, 6.0)):
        joules = inside_j * duration_s / 24.0
        window(
            fit,
            joules * 2 / 3,
            joules / 3,
            phase=phase,
            started=STARTED + timedelta(seconds=after_s),
            duration_s=duration_s,
        )
    fit.close()
    window(around, 3600.0, 1800.0, phase="measure", emissions=ONE_WH)
    around.close()
    report = build(ledger)
    totals = report["totals"]
    assert totals["energy_j"] == 5400.0  # of the command, as before
    assert report["carbon"]["emissions_g"] == pytest.approx(0.6)
    phases = {one["phase"]: one["energy_j"] for one in totals["by_phase"]}
    moved_j = 5400.0 - left_j
    assert phases == {
        "train_epoch": pytest.approx(0.75 * moved_j),
        "validation": pytest.approx(0.25 * moved_j),
        "measure": pytest.approx(left_j),
    }
    wh = {one["phase"]: one["energy_wh"] for one in totals["by_phase"]}
    assert wh["train_epoch"] == pytest.approx(0.75 * moved_j / 3600)


def test_what_is_stated_of_a_run_is_that_runs_alone(ledger):
    stated = [dataclasses.replace(each, method="given") for each in SOURCES]
    for name in ("first", "second"):
        with ledger.open_run("fit", name, environment={"host": "abc"}, sources=stated) as run_log:
            window(run_log, 3600.0, 1800.0)
    report = build(ledger)
    assert report["overlaps"] == []
    assert report["totals"]["energy_j"] == 2 * 5400.0


def test_cards_are_known_by_their_uuid_and_hosts_have_processors_of_their_own(ledger):
    for host, number in (("a", 0), ("b", 1), ("c", 0)):
        card = dataclasses.replace(SOURCES[0], uuid=f"GPU-{number}")
        environment = {"host": host}
        with ledger.open_run("fit", host, environment=environment, sources=[card]) as of_host:
            window(of_host, 3600.0, 1800.0)
    report = build(ledger)
    # The card of "a" was moved into "c", whose clock is wrong; each host's processor is its own.
    (overlap,) = report["overlaps"]
    assert (overlap["uuid"], overlap["source"], overlap["host"]) == ("GPU-0", "gpu:0", "c")
    assert report["totals"]["energy_j"] == 3 * 5400.0 - 3600.0


def test_a_report_on_one_run_alone_has_all_that_it_measured(ledger):
    for name in ("first", "second"):
        with ledger.open_run("fit", name, sources=SOURCES) as one:
            window(one, 3600.0, 1800.0)
    assert build(ledger)["totals"]["energy_j"] == 5400.0
    alone = build(ledger, run=one.run_id)
    assert (alone["totals"]["energy_j"], alone["overlaps"]) == (5400.0, [])
    assert alone["totals"]["overlap_note"] is None


def test_node_and_facility_count_once_too(ledger):
    environment = {"carbon": {"pue": 1.5}}
    for name in ("first", "second"):
        with ledger.open_run("fit", name, environment=environment, sources=SOURCES) as one:
            window(one, 3600.0, 1800.0)
            one.append("calibration", **{**CALIBRATION, "boundary": "gpu+cpu"})
    report = build(ledger)
    assert [one["node"]["energy_j"] for one in report["runs"]] == [6750.0, 6750.0]
    assert report["totals"]["node"]["energy_j"] == 6750.0  # 5400 J at 1.25
    assert report["totals"]["facility"]["energy_j"] == 1.5 * 6750.0


def test_what_a_run_could_not_measure_is_left_to_the_other(ledger):
    for joules in (None, 1800.0):
        with ledger.open_run("fit", "model", sources=SOURCES) as one:
            window(one, 3600.0, joules)
    report = build(ledger)
    assert report["totals"]["energy_j"] == 5400.0
    assert [one["source"] for one in report["overlaps"]] == ["gpu:0"]


def test_time_inside_a_phase_that_another_phase_had_is_not_its_own():
    # An hour of fitting, of which 10 s are its own, around one epoch of 3590 s.
    fit = row(2, "a", 0.0, 10.0, {"cpu": 100.0})
    epoch = row(1, "a", 4.0, 3590.0, {"cpu": 35900.0})
    other = row(3, "b", 3595.0, 5.0, {"cpu": 50.0})
    assert own_times([epoch, fit]) == [
        ((4_000_000, 3_594_000_000),),
        ((0, 4_000_000), (3_594_000_000, 3_600_000_000)),
    ]
    windows = with_times([epoch, fit, other])
    (overlap,) = Overlaps([run("a"), run("b")], windows).listed(windows)
    assert (overlap["duration_s"], overlap["energy_j"]) == (5.0, 50.0)


def test_clocks_that_differ_by_milliseconds_are_no_overlap():
    # The meter's clock says 1.001 s, that of the dates says 1 s: nothing is left for later.
    windows = with_times([row(n, "a", float(n), 1.001, {"cpu": 1.0}) for n in range(5)])
    later = with_times([row(9, "b", 5.0, 10.0, {"cpu": 1.0})])
    overlap = sum(
        one["duration_s"]
        for one in Overlaps([run("a"), run("b")], [*windows, *later]).listed([*windows, *later])
    )
    assert overlap == pytest.approx(0.001)  # of the last one alone


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 50), st.integers(1, 20), st.sets(NAMES)),
        max_size=12,
    )
)
def test_what_is_counted_is_the_power_over_the_time_that_anybody_measured(drawn):
    """Of sources of constant power, sums over any runs are power times the time covered."""
    names = [run("abcd"[number]) for number in range(4)]
    windows, covered = [], {name: set() for name in POWER_W}
    ends = dict.fromkeys("abcd", 0)
    for entry, (number, gap_s, duration_s, sources) in enumerate(drawn):
        of_run = "abcd"[number]
        started_s = ends[of_run] + gap_s
        ends[of_run] = started_s + duration_s
        joules = {name: POWER_W[name] * duration_s for name in sorted(sources)}
        windows.append(row(entry, of_run, float(started_s), float(duration_s), joules))
        for name in sources:
            covered[name] |= set(range(started_s, started_s + duration_s))
    windows = with_times(windows)
    overlaps = Overlaps(names, windows)
    counted = overlaps.counted(windows)
    for name, power_w in POWER_W.items():
        counted_j = math.fsum(one["joules"].get(name, 0.0) for one in counted)
        assert counted_j == pytest.approx(power_w * len(covered[name]), abs=1e-6)
    off_j = math.fsum(one["energy_j"] for one in overlaps.listed(windows))
    measured_j = math.fsum(one["energy_j"] or 0.0 for one in windows)
    assert measured_j - off_j == pytest.approx(
        math.fsum(one["energy_j"] or 0.0 for one in counted), abs=1e-6
    )


@given(st.recursive(st.integers(0, 9), lambda inside: st.lists(inside, max_size=4), max_leaves=12))
def test_nested_phases_get_back_the_moments_in_which_they_were_open(tree):
    """Phases as a recorder makes them: own seconds, then a phase inside, then own seconds."""
    rows, expected = [], []

    def spend(node: int | list, now_s: int) -> int:
        started_s, own = now_s, []
        for part in [node] if isinstance(node, int) else node:
            if isinstance(part, int):
                own.append((now_s * 10**6, (now_s + part) * 10**6))
                now_s += part
            else:
                now_s = spend(part, now_s)
        rows.append(row(len(rows), "a", float(started_s), length(own) / 1e6, {}))
        expected.append(seconds(own))
        return now_s

    spend([1, tree, 1] if isinstance(tree, int) else [1, *tree, 1], 0)
    for spans, own_s in zip(own_times(rows), expected, strict=True):
        assert seconds(spans) == own_s
        assert length(spans) == 10**6 * len(own_s)


def seconds(spans) -> list[int]:
    return [us for start, end in spans for us in range(start, end, 10**6)]


def test_windows_that_were_tampered_with_are_unknown_and_not_fatal():
    bad = {**row(1, "a", 0.0, 1.0, {}), "by_source": "not JSON", "duration_s": "x"}
    del bad["joules"]
    (read,) = with_times(readable([{**bad, "energy_j": float("nan")}]))
    assert (read["joules"], read["energy_j"], read["times"]) == ({}, None, ((0, 0),))
