"""The report document against ledgers whose figures can be worked out by hand."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from datetime import timedelta

import pytest

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.energy import Source
from greentrain.energy.boundary import boundary
from greentrain.errors import ConfigurationError
from greentrain.report import build
from greentrain.report.energy_totals import boundary_of
from greentrain.report.write import render_json
from tests.ledger.events import CALIBRATION
from tests.ledger.events import window as drawn
from tests.report.ledgers import SOURCES, STARTED, come, decide, heartbeat, stream, window


def test_totals_are_the_windows_and_their_uncertainty_is_by_sensor(ledger):
    run = stream(ledger, close=False)
    window(run, 3600.0, 1800.0, epoch=1)
    run.close()
    totals = build(ledger)["totals"]
    assert totals["energy_wh"] == 3.0  # twice 1 Wh of the card and half a Wh of the processor
    assert totals["duration_s"] == 72.0
    assert totals["boundary"] == "gpu+cpu"
    assert totals["without_budget_j"] == 5400.0
    # The card's 5 % of 7200 J and the processor's 20 % of 3600 J, in quadrature.
    assert totals["standard_uncertainty_j"] == pytest.approx((360.0**2 + 720.0**2) ** 0.5)
    assert totals["interval"]["high_j"] == pytest.approx(10800 + 2 * (360**2 + 720**2) ** 0.5)
    assert {s["name"]: s["energy_j"] for s in totals["sources"]} == {"gpu:0": 7200.0, "cpu": 3600.0}


def test_one_sensor_over_two_runs_is_one_source(ledger):
    stream(ledger, name="a")
    stream(ledger, name="b")
    totals = build(ledger)["totals"]
    assert [source["energy_j"] for source in totals["sources"]] == [7200.0, 3600.0]
    assert totals["standard_uncertainty_j"] == pytest.approx((360.0**2 + 720.0**2) ** 0.5)


def test_a_budget_names_its_overrun_and_says_whether_it_was_kept(ledger):
    stream(ledger)
    (budget,) = build(ledger)["budgets"]
    assert (budget["total_wh"], budget["spent_wh"], budget["left_wh"]) == (2.0, 1.5, 0.5)
    assert budget["kept"] is True
    (overrun,) = budget["overruns"]
    assert (overrun["reserved_j"], overrun["actual_j"], overrun["overrun_j"]) == (5e3, 5.4e3, 400.0)
    assert [point["spent_j"] for point in budget["spending"]] == [5400.0]


def test_a_budget_used_beyond_its_total_is_not_kept(ledger):
    run = ledger.open_run("stream", "x")
    account = ledger.account(ledger.open_budget("x", Budget.parse("1 Wh")), run)
    account.settle(account.reserve(3600.0, "all"), 3700.0)
    run.close()
    (budget,) = build(ledger)["budgets"]
    assert budget["kept"] is False
    assert budget["left_j"] == 0.0


def test_experiences_carry_decision_and_outcome(ledger):
    stream(ledger)
    report = build(ledger)
    first, second = report["experiences"]
    assert (first["update_mode"], first["metric_after"], first["overrun_j"]) == (
        "FULL_RETRAIN",
        0.9,
        400.0,
    )
    assert first["budget_left_after_j"] == 7200.0 - 5400.0
    assert first["update_energy_j"] == 5400.0
    assert second["update_mode"] == "SKIP"
    summary = report["summary"]
    assert summary["update_modes"] == {
        "SKIP": 1,
        "FINE_TUNE": 0,
        "REPLAY": 0,
        "WARM_START": 0,
        "FULL_RETRAIN": 1,
    }
    assert summary["final_metric"] == 0.8
    assert summary["anytime_metric"] == pytest.approx((0.9 + 0.8) / 2)


UNKNOWN_CARD = Source(name="gpu:0", method="counter", relative_uncertainty=None)


def test_what_was_not_measured_is_unknown_and_named(ledger):
    run = ledger.open_run("fit", "model", sources=[UNKNOWN_CARD])
    window(run, None, 1800.0)
    window(run, None, None)
    run.close()
    report = build(ledger)
    assert report["totals"]["energy_j"] == 1800.0
    assert report["totals"]["complete"] is False
    assert report["totals"]["interval"] is None
    assert "the uncertainty of cpu is not known" in report["totals"]["interval_note"]
    assert {source["name"] for source in report["not_measured"]["sources"]} == {"gpu:0", "cpu"}
    assert report["runs"][0]["windows_incomplete"] == 2


def test_a_decision_without_an_outcome_was_interrupted(ledger):
    run = ledger.open_run("stream", "x")
    budget = ledger.open_budget("x", Budget.parse("1 Wh"))
    reservation = ledger.account(budget, run).reserve(100.0, "update")
    decide(run, budget, 0, update_mode="REPLAY", step_fraction=1.0, reservation_id=reservation)
    report = build(ledger)
    assert report["runs"][0]["status"] == "unclosed"
    assert report["experiences"][0]["status"] == "interrupted"
    assert report["experiences"][0]["interruption"] == "killed, or still running"
    assert report["summary"]["interrupted"] == 1
    assert report["budgets"][0]["open_reservations"][0]["amount_j"] == 100.0
    run.close()


def test_an_empty_ledger_and_a_run_without_windows_are_reports_too(ledger):
    report = build(ledger)
    assert report["totals"]["energy_j"] is None
    assert report["period"] == {"first_utc": None, "last_utc": None}
    ledger.open_run("fit", "model").close()
    report = build(ledger)
    assert report["totals"]["energy_j"] is None
    assert report["not_measured"]["runs_without_windows"] == [report["runs"][0]["run_id"]]


def test_one_run_alone_and_the_budget_that_it_shares(ledger):
    stream(ledger, name="a")
    other = stream(ledger, name="b")
    report = build(ledger, run=other.run_id)
    assert [run["name"] for run in report["runs"]] == ["b"]
    assert [budget["name"] for budget in report["budgets"]] == ["b"]
    assert report["totals"]["energy_j"] == 5400.0
    assert f"run:{other.run_id}" in report["verification"]["heads"]
    with pytest.raises(ConfigurationError, match="has no run 'nobody'"):
        build(ledger, run="nobody")


def test_the_same_ledger_gives_the_same_bytes(ledger):
    stream(ledger)
    assert render_json(build(ledger)) == render_json(build(ledger))
    assert json.loads(render_json(build(ledger)))["schema_version"] == 3


def test_no_grams_are_claimed_and_no_folder_is_named(ledger, tmp_path):
    stream(ledger)
    report = build(ledger)
    assert report["carbon"]["emissions_g"] is None
    assert report["carbon"]["sentence"] == "no zone was given, so no grams are claimed"
    assert str(tmp_path) not in render_json(report)
    assert report["verification"]["command"] == "greentrain verify ledger.db"


def test_a_ledger_that_was_altered_says_so_in_its_report(ledger, tmp_path):
    stream(ledger)
    with sqlite3.connect(tmp_path / "ledger.db") as database:
        database.execute("update windows set energy_j = 1.0, by_source = 'not JSON'")
    database.close()
    report = build(ledger)
    assert report["verification"]["ok"] is False
    assert any("was altered" in failure for failure in report["verification"]["failures"])


def test_windows_of_a_validation_have_a_phase_of_their_own(ledger):
    run = ledger.open_run("fit", "model")
    run.record(drawn("validation", by_source={"cpu": 10.0}))
    run.record(drawn("train_epoch", duration_s=9.0, by_source={"cpu": 90.0}, epoch=0))
    run.close()
    phases = {one["phase"]: one["energy_j"] for one in build(ledger)["totals"]["by_phase"]}
    assert phases == {"validation": 10.0, "train_epoch": 90.0}


def test_metrics_of_two_streams_are_not_mixed(ledger):
    stream(ledger, name="a")
    run = stream(ledger, name="b", close=False)
    decide(run, ledger.find_budget("b")["budget_id"], 2)
    come(run, 2, metric_after=0.1)
    run.close()
    summary = build(ledger)["summary"]
    assert summary["final_metric"] is None
    assert [one["final_metric"] for one in summary["by_stream"]] == [0.8, 0.1]


CARBON = {
    "intensity": {
        "source": "a table",
        "zone": "DE",
        "data_year": 2023,
        "signal": "average",
        "basis": "life-cycle",
    },
    "pue": 1.2,
    "pue_source": "given by the user",
}

GRAMS = Emissions(grams=0.96, intensity_g_per_kwh=400.0)


def test_grams_are_the_windows_and_say_where_they_come_from(ledger):
    run = ledger.open_run("fit", "model", environment={"carbon": CARBON}, sources=SOURCES)
    window(run, 3600.0, 3600.0, emissions=GRAMS)  # 2 Wh x 1.2 x 0.4
    run.close()
    carbon = build(ledger)["carbon"]
    assert carbon["emissions_g"] == 0.96
    assert carbon["complete"] is True
    assert carbon["intensities"] == [CARBON]
    # The energy is 2 Wh, give or take 5 % and 20 % of 1 Wh each, in quadrature, times two.
    spread = 2 * (0.05**2 + 0.2**2) ** 0.5 / 2
    assert carbon["interval"]["high_g"] == pytest.approx(0.96 * (1 + spread))


def test_a_zone_whose_intensity_was_never_known_claims_no_grams(ledger):
    with ledger.open_run("fit", "model", environment={"carbon": CARBON}) as run:
        window(run, 3600.0, 1800.0)
    carbon = build(ledger)["carbon"]
    assert carbon["emissions_g"] is None
    assert carbon["sentence"].startswith("no window has both a known energy and a known intensity")


def test_grams_of_a_part_are_not_sold_as_all(ledger):
    run = ledger.open_run("fit", "model", environment={"carbon": CARBON}, sources=SOURCES)
    window(run, 3600.0, 3600.0, emissions=GRAMS)
    window(run, 3600.0, 3600.0)
    run.close()
    carbon = build(ledger)["carbon"]
    assert carbon["complete"] is False
    assert carbon["covered_j"] == 7200.0
    assert "the grams cover only a part" in carbon["sentence"]


def test_a_source_is_as_it_was_last_described(ledger):
    now = list(SOURCES)
    run = ledger.open_run("fit", "model", sources=lambda: now)
    window(run, 3600.0, 1800.0)
    run.flush()
    now = [SOURCES[0], dataclasses.replace(SOURCES[1], relative_uncertainty=None, note="shared")]
    run.close()
    report = build(ledger)
    assert [source["note"] for source in report["runs"][0]["sources"]] == [None, "shared"]
    assert [source["windows"] for source in report["totals"]["sources"]] == [1, 1]
    assert report["totals"]["interval_note"].startswith("the uncertainty of cpu is not known")


def test_a_card_is_one_sensor_under_two_names(ledger):
    for number in range(2):
        card = dataclasses.replace(SOURCES[0], name=f"gpu:{number}", uuid="GPU-1")
        with ledger.open_run("fit", "model", sources=[card]) as run:
            later = STARTED + timedelta(hours=number)
            run.record(drawn(by_source={card.name: 3600.0}, started=later))
    totals = build(ledger)["totals"]
    assert [source["name"] for source in totals["sources"]] == ["gpu:0", "gpu:1"]
    assert totals["standard_uncertainty_j"] == pytest.approx(0.05 * 7200)  # not in quadrature


# A run that was killed


def test_what_was_recovered_counts_and_is_said_to_be_so(ledger):
    run = ledger.open_run("fit", "model", sources=SOURCES)
    window(run, 3600.0, 1800.0, phase="validation")
    run.flush()
    heartbeat(run, 100.0, 50.0)
    heartbeat(run, 1800.0, 900.0)
    report = build(ledger)
    run.close()
    totals = report["totals"]
    assert (totals["energy_j"], totals["recovered_j"], totals["duration_s"]) == (8100, 2700, 54)
    assert (totals["windows"], totals["windows_recovered"], totals["complete"]) == (2, 1, False)
    assert "the unmeasured part adds to it" in totals["interval_note"]
    (gap,) = report["not_measured"]["after_last_heartbeat"]
    assert (gap["run_id"], gap["energy_j"]) == (run.run_id, 2700.0)
    assert report["runs"][0]["windows_by_phase"] == {"train_epoch": 1, "validation": 1}
    assert any(note.startswith("recovered:") for note in report["verification"]["notes"])
    closed = build(ledger)["totals"]
    assert (closed["energy_j"], closed["recovered_j"], closed["complete"]) == (5400, None, True)


# Wider boundaries


def calibrated(run, **changes):
    run.append("calibration", **{**CALIBRATION, "boundary": "gpu+cpu", **changes})


def test_the_node_stands_beside_what_was_metered(ledger):
    with ledger.open_run("fit", "model", sources=SOURCES) as run:
        window(run, 3600.0, 1800.0)
        calibrated(run, factor=9.0)
        calibrated(run)
    with ledger.open_run("fit", "another", sources=SOURCES) as run:
        window(run, 3600.0, 1800.0, started=STARTED + timedelta(hours=1))
    report = build(ledger)
    node = report["runs"][0]["node"]
    # 5400 J of software at 1.25 (1.2 to 1.3) J of the wall each.
    assert (node["energy_j"], node["low_j"], node["high_j"]) == (6750.0, 6480.0, 7020.0)
    assert (node["boundary"], node["spans"], node["wall"]) == ("node", 5, "a PDU")
    assert report["runs"][1]["node"] is None
    totals = report["totals"]
    assert (totals["energy_j"], totals["boundary"]) == (10800.0, "gpu+cpu")  # never instead of it
    assert (totals["node"]["energy_j"], totals["node"]["metered_j"]) == (6750.0, 5400.0)
    assert (totals["node"]["runs"], totals["node"]["complete"]) == (1, False)
    assert totals["facility"] is None


def test_a_factor_of_another_boundary_gives_no_node(ledger):
    with ledger.open_run("fit", "model") as run:
        window(run, 3600.0, None)
        calibrated(run)
    assert build(ledger)["runs"][0]["node"] is None


def test_a_factor_whose_interval_is_not_known_gives_none(ledger):
    with ledger.open_run("fit", "model") as run:
        window(run, 3600.0, 1800.0)
        calibrated(run, low=None, high=None, factor=0.5)
    node = build(ledger)["totals"]["node"]
    assert (node["energy_j"], node["low_j"], node["high_j"]) == (2700.0, None, None)
    assert "the wall meter showed less" in node["basis"][0]["note"]


def test_the_facility_is_what_was_metered_times_pue_and_apart_from_it(ledger):
    with ledger.open_run("fit", "model", environment={"carbon": CARBON}) as run:
        window(run, 3600.0, 1800.0)
    totals = build(ledger)["totals"]
    facility = totals["facility"]
    assert (facility["energy_j"], facility["boundary"]) == (pytest.approx(6480.0), "facility")
    assert facility["basis"] == [
        {"pue": 1.2, "pue_source": "given by the user", "times": "gpu+cpu"}
    ]
    assert (totals["energy_j"], totals["boundary"]) == (5400.0, "gpu+cpu")
    outside = build(ledger)["not_measured"]["outside_boundary"]
    assert any("they are in the energy of the facility" in sentence for sentence in outside)


def test_the_facility_of_a_calibrated_run_is_its_node_times_pue(ledger):
    with ledger.open_run("fit", "model", environment={"carbon": CARBON}) as run:
        window(run, 3600.0, 1800.0)
        calibrated(run)
    facility = build(ledger)["runs"][0]["facility"]
    assert facility["energy_j"] == pytest.approx(5400 * 1.25 * 1.2)
    assert facility["high_j"] == pytest.approx(5400 * 1.3 * 1.2)
    assert facility["times"] == "node"


NAMES = [
    [],
    ["cpu"],
    ["ram", "gpu:1", "gpu:0", "cpu"],
    ["node", "gpu:0", "cpu"],
    ["node0/gpu:0", "node1/gpu:0", "node1/cpu"],
    ["node0/node", "node0/cpu", "node1/ram"],
    ["disk", "apu:0"],
]


@pytest.mark.parametrize("names", NAMES, ids=str)
def test_the_boundary_is_that_of_the_meters(names):
    assert boundary_of(names) == boundary(names)


def test_hosts_have_sensors_of_their_own_within_one_boundary(ledger):
    sources = [
        dataclasses.replace(SOURCES[0], name=f"node{host}/gpu:0", uuid=f"GPU-{host}")
        for host in range(2)
    ]
    with ledger.open_run("fit", "model", sources=sources) as run:
        run.record(drawn(by_source={source.name: 3600.0 for source in sources}))
    report = build(ledger)
    assert report["totals"]["boundary"] == "gpu"
    assert report["totals"]["standard_uncertainty_j"] == pytest.approx(0.05 * 3600 * 2**0.5)


# Idle


def test_idle_windows_are_energy_of_the_run_and_listed_apart(ledger):
    with ledger.open_run("fit", "model", environment={"host": "abc"}) as run:
        window(run, 1800.0, 720.0, phase="idle")  # 50 W and 20 W for 36 s
        window(run, 1800.0, None, phase="idle")
        window(run, 7200.0, 3600.0)
    totals = build(ledger)["totals"]
    assert totals["energy_j"] == 1800.0 + 720.0 + 1800.0 + 7200.0 + 3600.0
    assert {one["phase"]: one["energy_j"] for one in totals["by_phase"]} == {
        "idle": 4320.0,
        "train_epoch": 10800.0,
    }
    idle = {one["name"]: one for one in totals["idle"]}
    assert {name: one["power_w"] for name, one in idle.items()} == {"gpu:0": 50.0, "cpu": 20.0}
    assert (idle["cpu"]["host"], idle["cpu"]["duration_s"]) == ("abc", 36.0)
