"""The ``greentrain schedule`` command: plan, store, review; each bad input is one sentence."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from greentrain.cli.app import app
from greentrain.errors import ConfigurationError, GreentrainError

START = datetime(2026, 11, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ten days of 300 g/kWh by night and 100 at noon."""
    monkeypatch.chdir(tmp_path)
    for name in ("ELECTRICITY_MAPS_API_KEY", "ENTSOE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    rows = ["datetime_utc,carbon_intensity,forecast"]
    for n in range(240):
        value = 100 if 11 <= n % 24 < 14 else 300
        rows.append(f"{(START + n * HOUR).isoformat()},{value},{value + 10}")
    (tmp_path / "grid.csv").write_text("\n".join(rows))
    return tmp_path


WORK = {
    "--energy": "5 kWh",
    "--duration": "2h",
    "--deadline": "2026-11-08T23:00+01:00",
    "--intensity": "grid.csv",
    "--zone": "DE",
    "--as-of": "2026-11-08T03:00+01:00",
}


def run(*extra: str, **changes: str | None) -> Result:
    given = {**WORK, **{f"--{name.replace('_', '-')}": value for name, value in changes.items()}}
    words = [word for name, value in given.items() if value is not None for word in (name, value)]
    return CliRunner().invoke(app, ["schedule", *words, *extra])


def test_a_plan_and_its_review() -> None:
    shown = run().output
    assert "planned" in shown
    assert "2026-11-08 12:00" in shown  # 11 UTC, in the deadline's zone
    assert "(66.2 %)" in shown  # 66.7 % with the error of 10 g/kWh corrected in full
    assert "Forecast: grid.csv, corrected by its errors of" in shown
    reviewed = run("--review").output
    assert "would have saved" in reviewed
    assert "which is 100 %, if carried out." in reviewed
    plain = json.loads(run("--review", "--json").output)
    assert plain["share"] == pytest.approx(1.0)
    assert plain["plans"][0]["now_g"] == pytest.approx(1500.0)
    assert plain["plans"][0]["planned_g"] == pytest.approx(500.0)


def test_the_last_plan_of_a_job_counts_once(folder: Path) -> None:
    run()
    run()
    run(as_of="2026-11-08T06:00+01:00")  # the last one: it saves the same, from 05 UTC on
    run(energy="10 kWh")
    plain = json.loads(run("--review", "--json").output)
    assert [one["as_of"] for one in plain["plans"]] == [
        "2026-11-08T06:00:00+01:00",
        "2026-11-08T03:00:00+01:00",
    ]
    assert plain["saving_g"] == pytest.approx(1000.0 + 2000.0)  # 5 and 10 kWh, 200 g/kWh less
    assert (plain["replaced"], plain["waiting"]) == (2, 0)
    assert "Left out: 2 of the plans, which a later one replaced." in run("--review").output


def test_the_next_command_reads_the_same_plans() -> None:
    assert "--intensity grid.csv --plans other" in run(plans="other").output
    assert "--plans" not in run().output


def test_a_plan_for_programs() -> None:
    found = json.loads(run("--json").output)
    assert found["segments"] == [["2026-11-08T11:00:00+00:00", "2026-11-08T13:00:00+00:00"]]
    assert found["now_g"] == pytest.approx(1500.0, abs=5)  # seven days correct most of the error
    assert found["planned_g"] == pytest.approx(500.0, abs=15)
    assert found["saving_low_g"] <= found["saving_g"] <= found["saving_high_g"]
    assert (found["zone"], found["signal"]) == ("DE", "average")


def test_slices_pause_where_it_pays() -> None:
    deadline = "2026-11-09T20:00+01:00"
    whole = json.loads(run("--json", duration="5h", deadline=deadline).output)
    slices = json.loads(run("--json", "--slices", duration="5h", deadline=deadline).output)
    assert len(whole["segments"]) == 1
    assert len(slices["segments"]) == 2
    assert slices["planned_g"] < whole["planned_g"]
    assert slices["pause_cost_s"] == 600.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deadline": "2026-11-08T23:00"}, "naive time '2026-11-08T23:00'; add its zone"),
        ({"deadline": "tomorrow"}, "--deadline is 'tomorrow'; write a time such as"),
        ({"deadline": "2026-11-08T01:00+01:00"}, "is in the past; it is 2026-11-08T03:00"),
        ({"deadline": "2026-11-08T04:00+01:00"}, "the work needs 2:00:00 and the deadline"),
        ({"duration": "2 parsecs"}, "'2 parsecs' is no duration above 0; write a number and"),
        ({"energy": "5 miles"}, "energy"),
        ({"energy": "-5 kWh"}, "it must be above 0"),
        ({"pause_cost": "5 min"}, "--pause-cost is '5 min' and there are no pauses; add --slices"),
        ({"deadline": "2036-11-08T23:00+01:00"}, "is more than 30 days after 2026-11-08T03:00"),
        ({"deadline": "9999-12-31T23:59-12:00"}, "is more than 30 days after 2026-11-08T03:00"),
        ({"energy": None, "duration": None}, "give --energy, --duration too"),
        (
            {"intensity": None, "zone": "Germny"},
            "no carbon intensity is known for the zone 'Germny'",
        ),
        ({"intensity": None, "zone": "Germny"}, "The nearest are DE (Germany), "),
        (
            {"intensity": None},
            "set ELECTRICITY_MAPS_API_KEY or ENTSOE_API_KEY, or give --intensity",
        ),
        ({"intensity": None, "zone": None}, "give --zone, such as DE, or --intensity"),
        ({"intensity": "static:DE"}, "has one value for the whole year, so no hour is cleaner"),
        ({"intensity": "none.csv"}, "the intensity file 'none.csv' does not exist"),
        ({"intensity": "watt"}, "the intensity 'watt' is not known; give static:DE"),
        ({"as_of": "2027-11-08T03:00+01:00", "deadline": "2027-11-09T03:00+01:00"}, "no forecast"),
    ],
)
def test_bad_input_is_one_clear_sentence(changes: dict[str, str | None], said: str) -> None:
    done = run(**changes)
    assert isinstance(done.exception, GreentrainError), done.output
    assert said in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_review_needs_plans(folder: Path) -> None:
    done = run("--review")
    assert isinstance(done.exception, ConfigurationError)
    assert "there are no plans in greentrain_plans/plans.jsonl" in str(done.exception)


def test_a_damaged_line_of_the_plans_is_left_out(folder: Path) -> None:
    run()
    plans = folder / "greentrain_plans" / "plans.jsonl"
    whole = plans.read_text()
    naive = json.dumps({**json.loads(whole), "deadline": "2026-11-08T22:00"})
    plans.write_text('{"zone": 1}\n5\n' + naive + "\n" + whole + whole[:40])
    done = run("--review", "--json")
    assert len(json.loads(done.stdout)["plans"]) == 1
    for number in (1, 2, 3, 5):
        assert f"line {number} of greentrain_plans/plans.jsonl is no plan and" in done.stderr
