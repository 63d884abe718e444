"""The report of two streams as a team lead reads it; the figures are worked out by hand.

Of each stream: 13 updates of 180 + 4 n J (n from 1 to 13) and one of 720 J are 3,424 J, and 0.25
of update 11, 56 J, more. 14 probes are 504 J. Two baseline retrainings are 2,880 J. The killed try
adds half of update 6, 102 J, and its probe, 36 J, which no experience has.
"""

from __future__ import annotations

import csv
import io
import re

import pytest

from greentrain.ledger import Ledger
from greentrain.report import build, build_and_write, render_html
from greentrain.report.exports import esrs, gpai, markdown, sci, tables
from greentrain.report.svg import intensity_chart
from tests.report.exports.documents import known
from tests.report.month import BASELINE_J, two_streams

UPDATES_J = 2 * (720 + sum(180 + 4 * n for n in range(1, 14)) + 0.25 * (180 + 4 * 11)) + 102
PROBES_J, BASELINES_J = 2 * 14 * 36.0, 4 * BASELINE_J
SUM = "The energy of an experience is its update, its wait and its probe or calibration together."


@pytest.fixture(scope="module")
def month(tmp_path_factory):
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('month') / 'month.db'}")
    two_streams(ledger)
    report = build(ledger)
    yield ledger, report
    ledger.close()


@pytest.fixture(scope="module")
def page(month):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", render_html(month[1])))


def test_the_uses_of_energy_sum_to_the_total(month):
    _, report = month
    found = {one["use"]: one["energy_j"] for one in report["summary"]["by_use"]}
    expected = {"update": UPDATES_J, "probe": PROBES_J, "baseline": BASELINES_J, "other": 36.0}
    assert found == pytest.approx(expected)
    assert sum(found.values()) == pytest.approx(report["totals"]["energy_j"])


def test_one_definition_of_the_energy_of_an_experience_is_named_in_every_table(month, page):
    _, report = month
    finished = [one for one in report["experiences"] if one["status"] == "done"]
    probes_j = [one["energy_j"] - one["update_energy_j"] for one in finished]
    assert probes_j == pytest.approx([36.0] * 28)
    assert page.count(SUM.removesuffix(".")) == 3  # uses, chart, decisions
    assert SUM in markdown.render(report)
    header = tables.render_experiences(report).splitlines()[0]
    for column in (
        "energy with wait, probe and calibration (kWh)",
        "energy of the update alone (kWh)",
    ):
        assert column in header
    avoided = report["avoided"]["energy"]
    assert "probes, calibration, waits, baseline retrainings" in avoided["how"]
    assert avoided["used_j"] == pytest.approx(report["totals"]["energy_j"])


def test_baseline_retrainings_are_in_charts_tables_and_csv_rows(month, page, tmp_path):
    ledger, report = month
    assert len(report["baseline_retrainings"]) == 4
    assert "Baseline retrainings 4 1.6 " in page
    assert page.count("not used: not better") == 4
    html = render_html(report)
    assert html.count("baseline retraining: 1,440 J with its probe") == 4
    assert "14 experiences and 2 baseline retrainings of sensor drift" in html
    assert "| baseline retrainings | 4 | 1.6 |" in markdown.render(report)
    build_and_write(ledger, tmp_path, ("csv",))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "report.experiences.csv").read_text())))
    assert [row["kind"] for row in rows].count("baseline retraining") == 4
    streamed = {(row["run id"], row["position"], row["kind"]) for row in rows}
    rendered = csv.DictReader(io.StringIO(tables.render_experiences(report), newline=""))
    assert streamed == {(row["run id"], row["position"], row["kind"]) for row in rendered}
    used = sum(float(row["energy with wait, probe and calibration (kWh)"]) for row in rows)
    assert used * 3.6e6 == pytest.approx(report["totals"]["energy_j"] - 36.0)


def test_no_figure_of_the_csv_has_an_exponent(month):
    _, report = month
    assert any("e" in repr(one["energy_j"] / 3.6e6) for one in report["experiences"])
    for text in (tables.render_runs(report), tables.render_experiences(report)):
        cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]  # ids have an "e"
        assert not [one for one in cells if re.fullmatch(r"[-+]?[\d.]+[eE][-+]?\d+", one)]


def test_a_factor_of_a_whole_year_is_no_time_series(month, page):
    assert "Carbon intensity over time" not in page
    assert "no chart of it is shown: DE, one factor for all of 2024" in page


def test_the_intensity_is_that_of_the_grid_without_the_pue(ledger):
    hours = [{"hour_utc": "2026-11-22T04:00:00Z", "energy_j": 3.6e6, "carbon_g": 520.0}]
    assert "400 to 400 g/kWh" in intensity_chart(hours, 1.3)
    intensity = {"source": "a", "zone": "DE", "data_year": None, "signal": "average"}
    report = known(ledger, carbon={"intensity": {**intensity, "basis": "direct"}, "pue": 1.2})
    assert "Carbon intensity over time: 400 to 400 g/kWh" in render_html(report)


def test_a_kept_budget_with_overruns_is_not_green(month, page):
    html = render_html(month[1])
    assert "Kept with 2 overruns" in page
    assert 'class="figure good"' not in html
    assert "kept, with overruns" in page
    assert "| yes, with 2 overruns |" in markdown.render(month[1])


def test_a_model_kept_although_its_metric_fell_has_its_reason(page):
    assert page.count("Kept although val_acc fell by 0.004: in the comparison, the new model") == 2


def test_charts_of_two_streams_are_apart_and_have_their_names(month):
    html = render_html(month[1])
    for label in ("Energy per experience", "Metric over the experiences"):
        for stream in ("images", "sensor drift"):
            assert f'aria-label="{label} of {stream}, chart"' in html


def test_every_filed_text_names_the_reporting_period(month):
    ledger, everything = month
    report = build(ledger, since="2026-11-01", until="2027-01-01")
    given = {
        "since_utc": "2026-11-01T00:00:00.000000+00:00",
        "until_utc": "2027-01-01T00:00:00.000000+00:00",
    }
    for render in (esrs.table, gpai.form, sci.score):
        assert render(report)["reporting_period"] == given
        assert set(render(everything)["reporting_period"].values()) == {None}
    words = "only from 2026-11-01 00:00:00 UTC and before 2027-01-01 00:00:00 UTC"
    assert words in markdown.render(report)
    assert "Reporting period" not in markdown.render(everything)
