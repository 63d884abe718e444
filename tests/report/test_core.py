"""What a report is about, the form it is published in, and that nothing is too little for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from importlib.resources import files

import jsonschema
import pytest
from sqlalchemy import NullPool, create_engine, make_url

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.ledger.schema import CONTENT, entries, metadata
from greentrain.report import SCHEMA_VERSION, build, check, render_html, write
from greentrain.report.disclosures import Disclosures
from greentrain.report.scope import moment
from greentrain.report.write import render_json
from tests.ledger.cluster import Cluster
from tests.ledger.events import CALIBRATION
from tests.report.ledgers import SOURCES, STARTED, decide, heartbeat, stream, window

SCHEMA = json.loads(
    (files("greentrain.report") / "schema" / f"report-{SCHEMA_VERSION}.json").read_text()
)


def valid(report):
    """The report as JSON has it, which is of the published form and can be formed anew."""
    held = json.loads(render_json(report))
    jsonschema.Draft202012Validator(SCHEMA).validate(held)
    assert held == report
    return held


# Which runs, and which time


def hours(number: float) -> datetime:
    return STARTED + timedelta(hours=number)


def two_days(ledger: Ledger) -> None:
    """Windows that end at 12:01, at midnight to the microsecond, and a minute after it."""
    with ledger.open_run("fit", "model", sources=SOURCES) as run:
        for ended, joules in ((hours(1 / 60), 100.0), (hours(12), 20.0), (hours(12 + 1 / 60), 3.0)):
            window(run, joules, 0.0, duration_s=60.0, started=ended - timedelta(seconds=60))


def test_a_window_belongs_to_the_interval_in_which_it_ended(ledger):
    two_days(ledger)
    assert build(ledger, until="2026-11-22")["totals"]["energy_j"] == 100.0
    later = valid(build(ledger, since="2026-11-22"))
    assert later["totals"]["energy_j"] == 23.0
    assert later["runs"][0]["windows"] == 2
    assert later["scope"]["since_utc"] == "2026-11-22T00:00:00.000000+00:00"
    assert later["scope"]["until_utc"] is None
    # The last minute before midnight is before it, although its window is not.
    assert [one["hour_utc"] for one in later["hourly"]] == [
        "2026-11-21T23:00:00Z",
        "2026-11-22T00:00:00Z",
    ]
    summer = datetime.fromisoformat("2026-11-22T02:00:00+02:00")
    assert build(ledger, since=summer)["totals"] == later["totals"]


def test_reports_of_two_days_sum_to_that_of_both_even_where_runs_overlap(ledger):
    two_days(ledger)
    two_days(ledger)
    days = [build(ledger, until="2026-11-22"), build(ledger, since="2026-11-22")]
    both = build(ledger)
    assert both["totals"]["energy_j"] == 123.0
    assert [one["totals"]["energy_j"] for one in days] == [100.0, 23.0]
    assert [one["totals"]["overlap_j"] for one in days] == [100.0, 23.0]


def test_an_experience_belongs_to_the_interval_of_its_decision_and_budgets_stand_as_they_are(
    tmp_path,
):
    now = [hours(0)]
    ledger = Ledger(str(tmp_path / "dated.db"), clock=lambda: now[0])
    first = stream(ledger, name="a")
    now[0] = hours(24)
    second = stream(ledger, name="b")
    with ledger.open_run("fit", "nothing"):
        pass
    later = valid(build(ledger, since=hours(23)))
    assert [run["name"] for run in later["runs"]] == ["b", "nothing"]
    assert {one["run_id"] for one in later["experiences"]} == {second.run_id}
    assert [budget["name"] for budget in later["budgets"]] == ["b"]
    assert later["period"]["first_utc"] == "2026-11-22T12:00:00.000000+00:00"
    assert f"run:{first.run_id}" not in later["verification"]["heads"]
    assert f"run:{first.run_id}" in later["verification"]["ledgers"][0]["heads"]
    none = valid(build(ledger, until="2020-01-01"))
    assert (none["runs"], none["budgets"], none["totals"]["energy_j"]) == ([], [], None)
    ledger.close()


def test_projects_are_patterns_of_names(ledger):
    for name in ("digits/a", "digits/b", "Digits"):
        stream(ledger, name=name)
    report = valid(build(ledger, name="digits/*"))
    assert [run["name"] for run in report["runs"]] == ["digits/a", "digits/b"]
    assert [budget["name"] for budget in report["budgets"]] == ["digits/a", "digits/b"]
    assert report["totals"]["energy_j"] == 2 * 5400.0
    with pytest.raises(ConfigurationError, match="no run's name matches 'x'; the last ones are"):
        build(ledger, name="x")


@pytest.mark.parametrize("told", ["2026-11-22T10:00", "yesterday", "", datetime(2026, 11, 22)])
def test_a_time_that_names_no_moment_is_refused(ledger, told):
    with pytest.raises(ConfigurationError, match="is not an exact moment"):
        build(ledger, since=told)


def test_moments_are_utc_and_intervals_end_after_they_begin(ledger):
    assert moment(datetime(2026, 1, 1, tzinfo=UTC)) == moment("2026-01-01") == moment("20260101")
    with pytest.raises(ConfigurationError, match="until must be later"):
        build(ledger, since="2026-01-02", until="2026-01-02")


# The same ledger, the same report


def test_the_same_rows_on_another_engine_give_the_same_bytes(ledger, cluster: Cluster):
    stream(ledger, name="a")
    with ledger.open_run("fit", "b", sources=SOURCES) as run:
        window(run, 0.1, 1e-9, emissions=Emissions(grams=1 / 3, intensity_g_per_kwh=1e3 / 7))
    url = cluster.new()
    server = Ledger(url)
    engines = [create_engine(one, poolclass=NullPool) for one in (ledger.url, url)]
    with engines[0].begin() as here, engines[1].begin() as there:
        for table in (entries, *CONTENT.values()):
            rows = [dict(row) for row in here.execute(table.select()).mappings()]
            if rows:
                there.execute(table.insert(), rows)
    assert {table.name for table in (entries, *CONTENT.values())} == set(metadata.tables)
    text = render_json(build(ledger))
    assert check(text, [server]).ok
    # All but the name of the ledger.
    name = make_url(url).database
    assert render_json(build(server)).replace(f"postgresql:///{name}", "ledger.db") == text
    server.close()


# Very little, and what went wrong


def empty(ledger):
    pass


def without_an_epoch(ledger):
    ledger.open_run("fit", "model", sources=SOURCES).close()
    with ledger.open_run("stream", "no updates") as run:
        decide(run, ledger.open_budget("x", Budget.parse("1 Wh")), 0)


def without_figures(ledger):
    with ledger.open_run("fit", "model") as run:
        window(run, None, None)
        window(run, None, None, duration_s=0.0)
        window(run, 1.0, 2.0, emissions=Emissions(grams=None, intensity_g_per_kwh=None))


def crashed(ledger):
    with pytest.raises(KeyError), ledger.open_run("fit", "failed", sources=SOURCES) as run:
        window(run, 3600.0, 1800.0)
        raise KeyError
    run = ledger.open_run("stream", "killed", sources=SOURCES)
    run.flush()
    heartbeat(run, 5.0, None, started=hours(1))
    budget = ledger.open_budget("x", Budget.parse("1 Wh", num_experiences=3))
    reservation = ledger.account(budget, run).reserve(100.0, "update")
    decide(run, budget, 0, update_mode="REPLAY", step_fraction=1.0, reservation_id=reservation)
    run._writer.close()


def full(ledger):
    run = stream(ledger, close=False)
    window(run, 60.0, 60.0, phase="idle", started=hours(9))
    run.append("calibration", **{**CALIBRATION, "boundary": "gpu+cpu"})
    run.close()
    # Of the intensity less is known than greentrain itself records.
    told = {"intensity": {"source": "a table", "zone": "DE"}, "pue": 1.2}
    environment = {"host": "abc", "carbon": told}
    with ledger.open_run("fit", "model", environment=environment, sources=SOURCES) as run:
        window(run, 60.0, None, emissions=Emissions(grams=0.1, intensity_g_per_kwh=400.0))


class Half:
    """A grid of half a gram a joule."""

    def upper_g_per_j(self, moment: datetime) -> float:
        return 0.5


def budgets(ledger):
    run = ledger.open_run("stream", "grams", sources=SOURCES)
    budget = ledger.open_budget("grams", Budget.parse("1 kgCO2e", num_experiences=2))
    account = ledger.account(budget, run, carbon=Half())
    paid, left = account.reserve(100.0, "update"), account.reserve(10.0, "look")
    grams = Emissions(grams=60.0, intensity_g_per_kwh=400.0)
    window(run, 100.0, 0.0, reservation_id=paid, emissions=grams)
    run.flush()
    account.settle(paid, 100.0)
    team = ledger.open_budget("team", Budget(energy_j=1e4, per="month"))
    ledger.open_budget("child", Budget(energy_j=100.0, per="month", parent="team"))
    account = ledger.account(team, run)
    account.reserve(10.0, "killed")
    options = [
        {"update_mode": "REPLAY", "step_fraction": 0.5, "predicted_gain": 0.1, "gain_sd": 0.2}
    ]
    decide(run, team, 0, alternatives=json.dumps(options), min_gain_per_j=0.25)
    run.close()
    ledger.release(left, 1.0)


CASES = [empty, without_an_epoch, without_figures, crashed, full, budgets]
ALL_GIVEN = Disclosures(
    hosting="cloud",
    market_based_g_per_kwh=0.0,
    market_based_source="a contract",
    water_l_per_kwh=1.8,
    water_source="the provider",
    embodied_kg=1000.0,
    embodied_lifetime_h=35040.0,
    embodied_reserved_share=1.0,
    embodied_source="the maker",
    functional_unit="experience",
    functional_units=2,
    model={"name": "digits"},
)


@pytest.mark.parametrize("stated", [Disclosures(), ALL_GIVEN], ids=["nothing given", "all given"])
@pytest.mark.parametrize("tell", CASES)
def test_however_little_there_is_the_report_has_its_form_and_can_be_checked(
    ledger, tmp_path, tell, stated
):
    tell(ledger)
    report = build(ledger, disclosures=stated)
    valid(report)
    assert check(render_json(report), [ledger]).ok
    page = render_html(report)
    assert page.startswith("<!doctype html>")
    assert {path.name for path in write(report, tmp_path)} == {"report.html", "report.json"}


def test_reports_say_what_they_have_not(ledger):
    assert build(ledger)["carbon"]["sentence"] == "no zone was given, so no grams are claimed"
    assert build(ledger)["hourly"] == []
    crashed(ledger)
    report = build(ledger)
    assert [run["status"] for run in report["runs"]] == ["failed", "unclosed"]
    # The failed run counts, and so does what is known of the one that was killed.
    assert report["totals"]["energy_j"] == 5405.0
    assert report["totals"]["complete"] is False
    page = render_html(report)
    assert "failed" in page
    assert "killed" in page


def test_several_ledgers_some_of_them_empty(ledger, tmp_path):
    full(ledger)
    other = Ledger(str(tmp_path / "other.db"))
    for ledgers in ([ledger, other], [other, ledger]):
        report = build(ledgers, disclosures=ALL_GIVEN)
        valid(report)
        assert check(render_json(report), ledgers).ok
        assert report["totals"]["energy_j"] == build(ledger)["totals"]["energy_j"]
        assert render_html(report)
    other.close()


def test_the_published_form_is_a_schema_and_closed(ledger):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["properties"]["schema_version"]["const"] == SCHEMA_VERSION
    full(ledger)
    report = build(ledger)
    assert set(SCHEMA["properties"]) == set(report) == set(SCHEMA["required"])
    forged = [
        {**report, "offset_g": 1.0},
        {**report, "totals": {**report["totals"], "energy_j": "5400"}},
        {**report, "runs": [{**report["runs"][0], "opened_utc": "2026-11-22 10:00"}]},
        {key: value for key, value in report.items() if key != "not_measured"},
    ]
    for one in forged:
        assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(one)
