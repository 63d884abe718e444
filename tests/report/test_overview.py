"""The overview of two streams: energy, forecast, change and actions, each worked out by hand."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from greentrain.budget import Budget
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build, write
from greentrain.report.burn_down import (
    ENOUGH,
    FINISHED,
    NO_AMOUNT,
    NO_EXPERIENCE,
    OF_PERIOD,
    TOO_LITTLE,
    BurnDown,
    forecast,
)
from greentrain.report.earlier_overview import read_earlier
from greentrain.report.overview import overview
from greentrain.report.overview_page import (
    change_words,
    left_words,
    metric_words,
    render_overview,
)
from greentrain.report.pareto_chart import MetricPoint, pareto
from tests.report.ledgers import SOURCES, STARTED, come, decide, stream, window
from tests.report.month import two_streams
from tests.report.test_rendering import HOSTILE

LATER = timedelta(hours=1)
TOTAL_J = 4 * 3600.0
# Twelve updates: 720 J, then 180 J + 4 J for its position, the last with a quarter more; and two
# baseline retrainings.
SETTLED_J = 2 * (720.0 + 11 * 180.0 + 4 * 66.0 + 224.0 / 4 + 2 * 1440.0)
RESERVED_J, KILLED_J, PROBE_J = 1.15 * 204.0, 102.0, 36.0


def later() -> datetime:
    return datetime.now(UTC) + LATER


@pytest.fixture(scope="module")
def twelve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """Twelve of the fourteen experiences of each stream."""
    ledger = Ledger(str(tmp_path_factory.mktemp("twelve") / "month.db"))
    two_streams(ledger, 12)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """The same streams a week before: five experiences each, and no kill."""
    ledger = Ledger(str(tmp_path_factory.mktemp("five") / "month.db"))
    two_streams(ledger, 5)
    yield ledger
    ledger.close()


def test_a_row_has_the_figures_of_its_stream(twelve: Ledger) -> None:
    images, drift = overview([twelve], later())["streams"]
    assert (images["name"], images["runs"], images["experiences"]) == ("images", 2, 12)
    assert images["energy_j"] == pytest.approx(SETTLED_J / 2 + 13 * PROBE_J + KILLED_J)
    assert drift["energy_j"] == pytest.approx(SETTLED_J / 2 + 12 * PROBE_J)
    assert images["first_metric"] == pytest.approx(0.57)
    assert images["final_metric"] == pytest.approx(0.55 + 11 * 0.02 - 0.004)
    # 1440 J of the baseline retrainings at experiences 5 and 10, less 200 and 220 J, and a probe
    assert images["avoided_each_j"] == pytest.approx(1440.0 - 210.0 - PROBE_J)
    assert images["baseline_retrainings"] == 2


def test_the_budget_and_its_forecast_count_both_streams(twelve: Ledger) -> None:
    for row in overview([twelve], later())["streams"]:
        budget = row["budget"]
        assert budget is not None
        assert len(budget["shared_with"]) == 1
        assert budget["left_j"] == pytest.approx(TOTAL_J - SETTLED_J - RESERVED_J)
        ahead = budget["forecast"]
        assert (ahead["done"], ahead["planned"], ahead["lasts"]) == (24, 28, 4)
        assert ahead["left_j"] == pytest.approx(budget["left_j"] - 4 * SETTLED_J / 24)
        numbers, left = zip(*row["burn_down"], strict=True)
        assert numbers == tuple(range(1, 25))
        assert left[-1] == pytest.approx(TOTAL_J - SETTLED_J)


def test_a_period_cuts_energy_and_not_the_budget(twelve: Ledger) -> None:
    whole = overview([twelve], later())["streams"][1]
    # The windows of position 6 on ended at 2026-11-27 13:00 or later.
    part = overview([twelve], later(), since="2026-11-27")["streams"][1]
    before_j = 720.0 + 5 * 180.0 + 4 * 15.0 + 1440.0 + 6 * PROBE_J
    assert part["energy_j"] == pytest.approx(whole["energy_j"] - before_j)
    assert part["budget"] == whole["budget"]


def test_a_period_without_rows_has_no_stream(twelve: Ledger) -> None:
    document = overview([twelve], later(), since="2099-01-01")
    assert document["streams"] == []
    assert "hold no run of this scope" in render_overview(document)


def given(**changes: Any) -> Any:
    return {
        "unit": "J",
        "num_experiences": 10,
        "per": None,
        "opened_utc": "2026-11-21T00:00:00.000000+00:00",
        "spending": [],
        "open_reservations": [],
        "total_j": 1000.0,
        "spent_j": 400.0,
        "left_j": 500.0,
        "total_g": None,
        "spent_g": None,
        "left_g": None,
        **changes,
    }


IN_GRAMS = {
    "unit": "g",
    **dict.fromkeys(("total_j", "spent_j", "left_j")),
    **{"total_g": 1000.0, "spent_g": 400.0, "left_g": 500.0},
}


@pytest.mark.parametrize(
    ("changes", "done", "left", "lasts", "words"),
    [
        # 100 J each: 6 to come need 600 J, and 500 J are left
        pytest.param({}, 4, -100.0, 5, TOO_LITTLE, id="too little"),
        pytest.param({}, 5, 100.0, 5, ENOUGH, id="enough"),
        pytest.param({}, 10, 500.0, 0, FINISHED, id="finished"),
        pytest.param({}, 12, 500.0, 0, FINISHED, id="more than planned"),
        pytest.param({"left_j": -50.0}, 5, -450.0, 0, TOO_LITTLE, id="overdrawn"),
        pytest.param(IN_GRAMS, 4, -100.0, 5, TOO_LITTLE, id="carbon"),
        # 100 J each: 6 to come in the month need 600 J, and 500 J are left
        pytest.param({"per": "month"}, 4, -100.0, 5, TOO_LITTLE, id="renewed"),
        pytest.param({"total_j": 0.0}, 4, None, None, NO_AMOUNT, id="a share, not measured"),
        pytest.param({}, 0, None, None, NO_EXPERIENCE, id="nothing paid"),
    ],
)
def test_a_forecast_takes_the_mean_so_far(changes, done, left, lasts, words) -> None:
    paid = BurnDown()
    for number in range(done):
        paid.add(number, "2026-11-21T12:00:00.000000+00:00", None)
    found = forecast(given(**changes), paid)
    key = "left_g" if changes.get("unit") == "g" else "left_j"
    assert found[key] == (None if left is None else pytest.approx(left))
    assert found["lasts"] == lasts
    assert found["sentence"].split("{")[0].startswith(words.split("{")[0])


def test_a_renewed_budget_is_forecast_to_the_end_of_its_period() -> None:
    clock = [STARTED]
    ledger = Ledger.in_memory(clock=lambda: clock[0])
    budget = ledger.open_budget("digits", Budget.parse("100 J per day", num_experiences=4))
    with ledger.open_run("stream", "digits", sources=SOURCES) as run:
        account = ledger.account(budget, run)
        for position, day in enumerate((0, 0, 1)):  # 20, 30 and 40 J: a mean of 30 J
            clock[0] = STARTED + timedelta(days=day, minutes=position)
            reservation = account.reserve(50.0, "an update")
            decide(run, budget, position, reservation_id=reservation, update_mode="WARM_START")
            account.settle(reservation, 20.0 + 10.0 * position)
            come(run, position, reservation_id=reservation)
    (row,) = overview([ledger], clock[0])["streams"]
    assert row["budget"] is not None
    ahead = row["budget"]["forecast"]
    # 60 of the day's 100 J are left, and three experiences of 30 J each are to come.
    assert row["budget"]["total_j"] == pytest.approx(100.0)
    assert (ahead["done"], ahead["planned"], ahead["lasts"]) == (1, 4, 2)
    assert ahead["left_j"] == pytest.approx(60.0 - 3 * 30.0)
    assert ahead["period_utc"] == "2026-11-22T00:00:00.000000+00:00"
    assert row["burn_down"] == [(1, pytest.approx(60.0))]
    assert "lasts for 2 of the 3 to come, until the budget is renewed" in ahead["sentence"]
    ledger.close()


def test_releasing_a_dead_reservation_is_the_first_action(ledger: Ledger) -> None:
    run = ledger.open_run("stream", "digits", sources=SOURCES)
    budget = ledger.open_budget("digits", Budget.parse("2 Wh", num_experiences=2))
    reservation = ledger.account(budget, run).reserve(500.0, "REPLAY")
    decide(run, budget, 0, reservation_id=reservation)
    window(run, 100.0, 2.0, reservation_id=reservation)
    run.close("failed")
    (row,) = overview([ledger], later())["streams"]
    action = row["actions"][0]
    assert row["budget"]["left_j"] == 7200.0 - 500.0
    assert "102 J were used" in action["sentence"]
    found = CliRunner().invoke(app, shlex.split(action["command"])[1:], catch_exceptions=False)
    assert found.exit_code == 0
    (row,) = overview([ledger], later())["streams"]
    assert (row["budget"]["left_j"], row["actions"]) == (7200.0 - 102.0, [])


def test_the_reservation_of_a_run_that_may_be_active_is_no_action(twelve: Ledger) -> None:
    last = max(row["recorded_utc"] for kind in ("run", "window") for row in twelve.rows(kind))
    rows = overview([twelve], datetime.fromisoformat(last))["streams"]
    assert all("release" not in one["command"] for row in rows for one in row["actions"])


def test_a_reservation_without_measurements_needs_an_amount(ledger: Ledger) -> None:
    run = ledger.open_run("stream", "digits")
    budget = ledger.open_budget("digits", Budget.parse("4 Wh", num_experiences=2))
    # In Wh it is 3.43, which would be 2.322 J too much.
    reservation = ledger.account(budget, run).reserve(12345.678, "REPLAY")
    decide(run, budget, 0, reservation_id=reservation)
    run.close("failed")
    (row,) = overview([ledger], later())["streams"]
    action = row["actions"][0]
    assert action["command"].endswith("--actual '12345.678 J'")
    assert action["sentence"].startswith("A dead run holds 3.43 Wh")
    found = CliRunner().invoke(app, shlex.split(action["command"])[1:], catch_exceptions=False)
    assert found.exit_code == 0
    assert [one["overrun_j"] for one in ledger.rows("settlement")] == [0.0]


def test_a_run_that_died_before_the_period_still_holds_its_reservation(ledger: Ledger) -> None:
    with ledger.open_run("stream", "digits", sources=SOURCES) as dead:
        budget = ledger.open_budget("digits", Budget.parse("2 Wh", num_experiences=2))
        held = ledger.account(budget, dead).reserve(500.0, "waiting of experience-0")
    since = datetime.now(UTC)
    with ledger.open_run("stream", "digits", sources=SOURCES) as run:
        decide(run, budget, 0)
        come(run, 0)
    (row,) = overview([ledger], later(), since=since)["streams"]
    assert row["runs"] == 1
    assert [held in one["command"] for one in row["actions"]] == [True]


def test_the_worst_experience_and_the_largest_overrun_are_actions(twelve: Ledger) -> None:
    images, drift = (row["actions"] for row in overview([twelve], later())["streams"])
    assert [one["command"].split("--")[-1] for one in drift] == [
        "experience 2026-11-09",
        "experience 2026-11-12",
    ]
    assert "0.004" in drift[0]["sentence"]
    assert "'sensor drift'" in drift[0]["command"]
    assert "release" in images[0]["command"]
    assert len(images) == 3


def test_a_change_is_now_minus_then(five: Ledger, twelve: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "overview.json"
    path.write_text(json.dumps(overview([five], later())))
    row = overview([twelve], later(), earlier=read_earlier(path))["streams"][1]
    then_j = 720.0 + 4 * 180.0 + 4 * 10.0
    change = row["change"]
    assert change is not None
    assert change["experiences"] == 7
    assert change["energy_j"] == pytest.approx(SETTLED_J / 2 - then_j + 7 * PROBE_J)
    assert change["metric"] == pytest.approx(7 * 0.02 - 0.02 - 0.004)
    assert change["left_j"] == pytest.approx(2 * then_j - SETTLED_J - RESERVED_J)
    assert change_words(row).startswith("+7 experiences, +1.3 Wh used, val_acc +0.116")


def test_a_report_can_be_the_earlier_one(five: Ledger, twelve: Ledger, tmp_path: Path) -> None:
    write(build(five), tmp_path, ("json",))
    row = overview([twelve], later(), earlier=read_earlier(tmp_path / "report.json"))["streams"][1]
    assert row["change"] is not None
    assert (row["change"]["experiences"], row["change"]["left_j"]) == (7, None)


def test_a_stream_that_the_earlier_report_lacks_is_new(twelve: Ledger, tmp_path: Path) -> None:
    other = Ledger(str(tmp_path / "other.db"))
    stream(other)
    path = tmp_path / "overview.json"
    path.write_text(json.dumps(overview([other], later())))
    other.close()
    rows = overview([twelve], later(), earlier=read_earlier(path))["streams"]
    assert [change_words(row) for row in rows] == ["new stream", "new stream"]


@pytest.mark.parametrize(
    "text", ["", "[1]", "{}", '{"overview_version": 1}', '{"summary": {"by_stream": [{}]}}', "\0"]
)
def test_another_file_is_refused_as_earlier(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"neither an overview.json nor a report.json"):
        read_earlier(path)


def test_a_missing_earlier_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        read_earlier(tmp_path / "none.json")


def test_without_a_stream_the_page_says_so(ledger: Ledger) -> None:
    assert "hold no run" in render_overview(overview([ledger], later()))
    with ledger.open_run("fit", "alone") as run:
        window(run, 3600.0, 0.0)
    document = overview([ledger], later())
    assert document["streams"] == []
    assert [row["name"] for row in document["others"]] == ["alone"]
    assert "no stream yet" in render_overview(document)


def test_a_stream_without_a_metric_and_without_energy_is_unknown(ledger: Ledger) -> None:
    budget = ledger.open_budget("digits", Budget.parse("2 Wh per month", num_experiences=2))
    with ledger.open_run("stream", "digits") as run:
        decide(run, budget, 0)
        come(run, 0, metric_before=None, metric_after=None)
    document = overview([ledger], later())
    (row,) = document["streams"]
    assert (row["metric"], row["first_metric"], row["energy_j"]) == (None, None, None)
    assert OF_PERIOD in render_overview(document)


def test_a_stream_whose_budget_is_in_no_ledger_has_none(ledger: Ledger) -> None:
    with ledger.open_run("stream", "digits") as run:
        decide(run, "elsewhere", 0)
        come(run, 0)
    document = overview([ledger], later())
    assert document["streams"][0]["budget"] is None
    assert "No budget" in render_overview(document)


@pytest.mark.parametrize("name", [name.replace("\0", "") for name in HOSTILE])
def test_hostile_names_are_escaped(ledger: Ledger, name: str) -> None:
    stream(ledger, name=name)
    page = render_overview(overview([ledger], later()))
    assert "<script" not in page
    assert "<img" not in page
    assert "\u202e" not in page


def test_tags_make_rows_of_teams(ledger: Ledger) -> None:
    for name, team in (("a", "vision"), ("b", "vision"), ("c", None)):
        with ledger.open_run("fit", name, team=team) as run:
            window(run, 3600.0, 0.0, started=STARTED + timedelta(hours=ord(name)))
    document = overview([ledger], later())
    assert [(row["name"], row["runs"], row["energy_j"]) for row in document["teams"]] == [
        ("vision", 2, 7200.0),
        (None, 1, 3600.0),
    ]
    assert document["projects"] == []
    assert "no team" in render_overview(document)


def test_budgets_of_very_unequal_sizes_are_readable(ledger: Ledger) -> None:
    for name, amount in (("small", "100 J"), ("large", "20 MWh"), ("carbon", "40 mgCO2e")):
        given = Budget(energy_j=None, carbon_g=0.04, num_experiences=2)
        if "CO2e" not in amount:
            given = Budget.parse(amount, num_experiences=2)
        budget = ledger.open_budget(name, given)
        with ledger.open_run("stream", name, sources=SOURCES) as run:
            decide(run, budget, 0)
    rows = overview([ledger], later())["streams"]
    assert [left_words(row["budget"]) for row in rows] == [
        "100 of 100 J",
        "20 of 20 MWh",
        "40 of 40 mg CO2e",
    ]
    page = render_overview(overview([ledger], later()))
    assert '<td class="n">100 of 100 J</td>' in page
    assert '<td class="n">20 of 20 MWh</td>' in page


@pytest.mark.parametrize(("loss", "words"), [(3.4e38, "3.4e+38"), (2e-12, "2e-12")])
def test_a_loss_of_any_size_is_readable(ledger: Ledger, loss: float, words: str) -> None:
    budget = ledger.open_budget("digits", Budget.parse("2 Wh", num_experiences=2))
    with ledger.open_run("stream", "digits", sources=SOURCES) as run:
        decide(run, budget, 0)
        come(run, 0, metric_before=None, metric_after=loss)
    (row,) = overview([ledger], later())["streams"]
    assert metric_words(row) == f"{words} to {words} (+0) val_acc"


def test_no_point_of_the_front_is_beaten() -> None:
    points = [
        MetricPoint("cheap", 1.0, 0.5),
        MetricPoint("beaten", 3.0, 0.6),
        MetricPoint("good", 2.0, 0.7),
        MetricPoint("same energy, worse", 2.0, 0.6),
        MetricPoint("best", 9.0, 0.9),
    ]
    assert [one.name for one in pareto(points, "max")] == ["cheap", "good", "best"]
    assert [one.name for one in pareto(points, "min")] == ["cheap"]
