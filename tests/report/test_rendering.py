"""The page, the charts and the files."""

from __future__ import annotations

import itertools
import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from greentrain.carbon import Emissions
from greentrain.errors import ConfigurationError
from greentrain.report import build, formats, render_html, write
from greentrain.report.disclosures import Disclosures
from greentrain.report.groups import roll_up
from greentrain.report.overview_page import avoided_words
from greentrain.report.svg import (
    energy_chart,
    intensity_chart,
    metric_chart,
    source_chart,
    spending_chart,
)
from tests.ledger.events import CALIBRATION
from tests.report.ledgers import SOURCES, STARTED, heartbeat, stream, window
from tests.report.test_avoided import SERIES, lived, opened

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://x")',
    "\u202etxt.exe",
    "x" * 500,
    "{{ 7 * 7 }}",
    "</style><script>alert(1)</script>",
    "</svg><a href='http://x'>x</a>",
]


class Page(HTMLParser):
    """Collect elements and what they would ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.asked: list[str] = []
        self.events: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        for name, value in attributes:
            if name in ("src", "href", "action", "data", "srcset") and not value.startswith("#"):
                self.asked.append(value)
            if name.startswith("on"):
                self.events.append(name)

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_inert(ledger, name):
    stream(ledger, name=name)
    text = render_html(build(ledger))
    page = Page(text)
    assert not page.tags & {"script", "img", "iframe", "object", "form"}
    assert page.asked == page.events == []
    assert "\u202e" not in text
    assert "49" not in re.findall(r"<h1>.*?</h1>", text, re.DOTALL)[0]
    assert len(text) < 200_000
    assert json.loads(json.dumps(build(ledger)))["runs"][0]["name"] == name


def test_the_page_says_what_matters_first_and_with_units(ledger):
    stream(ledger)
    text = render_html(build(ledger))
    page = Page(text)
    shown = re.sub(r"\s+", " ", page.text)
    assert "1.5 Wh used over 2 experiences. The budget was kept." in shown
    assert "1.5 Wh spent of 2 Wh" in shown
    assert "gpu+cpu" in shown
    assert "1 overrun" in shown
    assert shown.index("Energy") < shown.index("Decisions") < shown.index("Verification")
    without_namespace = text.replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"url\(|@import|https?:", without_namespace)
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_an_empty_ledger_has_a_page_that_says_so(ledger):
    shown = Page(render_html(build(ledger))).text
    assert "no run, so there is no figure to report" in shown
    assert "This report holds no decisions of a stream" in re.sub(r"\s+", " ", shown)


def test_the_page_shows_what_is_apart_from_the_metered_energy(ledger):
    told = {"intensity": None, "pue": 1.2, "pue_source": "<b>a sign</b>"}
    with ledger.open_run("fit", "model", environment={"carbon": told}) as run:
        window(run, 3600.0, 3600.0)
        window(run, 1800.0, 720.0, phase="idle")
        run.append("calibration", **{**CALIBRATION, "boundary": None, "wall": "<i>a PDU</i>"})
    killed = ledger.open_run("fit", "killed")
    heartbeat(killed, 1800.0, 1800.0, started=STARTED + timedelta(hours=1))
    text = render_html(build(ledger))
    killed.close()
    shown = re.sub(r"\s+", " ", Page(text).text)
    assert "3.7 Wh used in the measured part" in shown  # 2 Wh, 0.7 Wh idle and 1 Wh recovered
    assert "The joules of the sources times 1.25 (1.2 to 1.3), from 5 spans" in shown
    assert "3.38 Wh, 3.24 to 3.51 Wh, node for 2.7 Wh of the sources in 1 run" in shown
    assert "PUE 1.2, <b>a sign</b>, times the energy within node." in shown
    assert "Idle power" in shown and "50 W" in shown and "20 W" in shown
    assert "killed was killed, or is still running: 1 Wh of 1 phase are known from" in shown
    assert "<b>a sign" not in text and "<i>a PDU" not in text


def test_what_matters_comes_first_and_what_is_not_known_is_said(ledger):
    stream(ledger)
    text = render_html(build(ledger))
    first = text[text.index('class="hero"') : text.index('class="charts"')]
    shown = re.sub(r"\s+", " ", Page(first).text)
    places = [shown.index(word) for word in ("Energy", "Emissions", "Budget", "Metric", "Avoided")]
    assert places == sorted(places)
    assert "No zone was given, so no grams are claimed." in shown
    assert "0 Wh modelled Fewer than 5 experiences can be compared" in shown
    assert "not significant" in shown


def test_avoided_energy_and_what_stands_beside_are_shown_with_their_methods(ledger):
    run, budget = opened(ledger, carbon=SERIES)
    for position in range(5):
        emissions = Emissions(grams=0.04, intensity_g_per_kwh=400.0)
        lived(run, budget, position, full_j=3960.0, drawn_j=360.0, emissions=emissions)
    run.close()
    given = Disclosures(hosting="cloud", water_l_per_kwh=2.0, water_source="a sign")
    shown = re.sub(r"\s+", " ", Page(render_html(build(ledger, disclosures=given))).text)
    # Five times 3,960 J less 360 J are 5 Wh, which at 400 g/kWh are 2 g.
    assert "5 Wh modelled 5 to 5 Wh (95 % interval; how) 2 g CO2e significant" in shown
    assert "5.5 Wh for retraining in full at every experience, 1,800 J used, probes" in shown
    assert "Carbon shifted Nothing was shifted" in shown
    assert "location-based Scope 3" in shown
    # Half a watt-hour at two litres a kilowatt-hour.
    assert (
        "Water0.001 lEnergy of the sources, times the litres given for each kWh.Source: a s"
        in shown
    )
    assert "Manufacture of the hardwareunknownGive embodied_kg, embodied_lifetime_h and" in shown


def test_runs_that_broke_off_and_what_two_runs_measured_are_named(ledger):
    for name, status in (("whole", "completed"), ("broken", "failed")):
        run = ledger.open_run("fit", name, environment={"host": "abc"}, sources=SOURCES)
        window(run, 3600.0, 0.0)
        run.close(status)
    shown = re.sub(r"\s+", " ", Page(render_html(build(ledger))).text)
    assert "1 run failed: broken. Its energy, 1 Wh, is included in the totals." in shown
    assert "Measured by two runs at once" in shown
    assert "Subtracted (Wh)" in shown
    assert "gpu:0wholebroken36 s1 " in shown
    assert "1 Wh used" in shown


def test_fifty_runs_are_folded_into_less_than_a_megabyte(ledger):
    run, budget = opened(ledger, settings={f"key {n}": "value" for n in range(20)})
    for position in range(20):
        lived(run, budget, position, full_j=1000.0, drawn_j=100.0)
    run.close()
    report = build(ledger)
    (alone,), offers = report["runs"], report["experiences"][0]["alternatives"]
    for one in report["experiences"]:
        one["alternatives"] = 4 * offers
        one["sentence"] = "a reason as long as those that a policy gives are" * 2
    report["runs"] = [{**alone, "run_id": str(n), "name": f"stream {n}"} for n in range(50)]
    report["experiences"] = [
        {**one, "run_id": each["run_id"]}
        for each in report["runs"]
        for one in report["experiences"]
    ]
    text = render_html(report)
    assert len(text.encode()) < 1_000_000
    page = Page(text)
    shown = re.sub(r"\s+", " ", page.text)
    assert "The last 200 are listed; 800 earlier ones are in report.json." in shown
    assert "180 earlier ones Their options are in report.json." in shown
    assert "30 earlier ones stream 0 completed" in shown
    assert text.count('class="decision"') == 200
    assert text.count("12 options") == 20


def test_the_intensity_is_drawn_by_the_hour_and_breaks_where_nothing_was_measured():
    hours = [
        {"hour_utc": f"2026-11-22T{hour}:00:00Z", "energy_j": 3600.0, "carbon_g": grams}
        for hour, grams in (("04", 0.4), ("05", 0.2), ("07", 0.1))
    ]
    chart = intensity_chart(hours)
    assert "Carbon intensity over time: 100 to 400 g/kWh" in chart
    (path,) = re.findall(r'<path d="([^"]*)"', chart)
    assert (path.count("M"), path.count("V"), path.count("H")) == (2, 1, 3)
    many = [
        {
            "hour_utc": f"{STARTED + timedelta(hours=hour):%Y-%m-%dT%H:00:00Z}",
            "energy_j": 3600.0 * (hour + 1),
            "carbon_g": 0.3 * (hour + 1),
        }
        for hour in range(9000)
    ]
    chart = intensity_chart(many)
    assert "300 to 300 g/kWh" in chart  # weighted by energy, several hours stay at what they were
    assert len(chart) < 20_000
    assert "(d)" in chart


def test_labels_do_not_run_into_each_other(ledger):
    stream(ledger)
    (one, _) = build(ledger)["experiences"]
    chart = energy_chart([{**one, "experience_id": f"{n:03d}-experience"} for n in range(60)])
    places = [float(x) for x in re.findall(r'<text x="([\d.]+)"[^>]*>0\d\d-exp', chart)]
    assert len(places) >= 5
    assert all(b - a > 80 for a, b in itertools.pairwise(places))


def test_charts_are_well_formed_and_labelled(ledger):
    stream(ledger)
    report = build(ledger)
    charts = [
        energy_chart(report["experiences"]),
        spending_chart(report["budgets"][0]),
        metric_chart(report["experiences"], "val_acc"),
        source_chart(report["totals"]["sources"]),
    ]
    for chart in charts:
        root = ElementTree.fromstring(chart)
        assert root.get("role") == "img"
        assert root.find(".//{*}title") is not None or root.find(".//title") is not None
    assert "(Wh)" in charts[0]
    assert "budget" in charts[1]


def test_files_are_written_whole_and_replaced(ledger, tmp_path):
    stream(ledger)
    report = build(ledger)
    out = tmp_path / "reports" / "new"
    paths = write(report, out)
    assert [path.name for path in paths] == ["report.json", "report.html"]
    assert json.loads(paths[0].read_text()) == json.loads(json.dumps(report))
    write(report, out, ("html",))
    assert sorted(path.name for path in out.iterdir()) == ["report.html", "report.json"]


def test_an_unknown_format_writes_nothing(ledger, tmp_path):
    report = build(ledger)
    with pytest.raises(ConfigurationError, match=r"'docx' is not known; allowed are .*html"):
        write(report, tmp_path / "out", ("html", "docx"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(ledger, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write the report into"):
        write(build(ledger), tmp_path / "out")


@pytest.mark.parametrize(
    ("energy_j", "unit", "written"),
    [
        (3599.0, None, "3,599 J"),
        (3600.0, None, "1 Wh"),
        (3.6e6 * 0.999, None, "999 Wh"),
        (3.6e6, None, "1 kWh"),
        (-0.0, None, "0 Wh"),
        (1800.0, "Wh", "0.5"),
        (None, "Wh", "unknown"),
    ],
)
def test_energies_have_the_unit_that_is_read_best(energy_j, unit, written):
    assert formats.energy(energy_j, unit) == written


def test_a_gain_is_never_minus_zero_and_an_unknown_one_was_not_probed():
    gain = formats.FILTERS["gain"]
    assert gain({"predicted_gain": -0.0001, "gain_sd": None}) == "+0.000"
    assert gain({"predicted_gain": None, "gain_sd": None}) == "not probed"


def test_more_energy_than_the_comparison_needs_is_said_in_words(ledger):
    run, budget = opened(ledger, carbon=SERIES)
    for position in range(5):
        emissions = Emissions(grams=0.44, intensity_g_per_kwh=400.0)
        lived(run, budget, position, full_j=360.0, drawn_j=3960.0, emissions=emissions)
    run.close()
    report = build(ledger)
    shown = re.sub(r"\s+", " ", Page(render_html(report)).text)
    # Five times 3,960 J more than 360 J are 5 Wh, which at 400 g/kWh are 2 g.
    assert "None modelled 5 Wh more used than always retraining in full would have" in shown
    assert "5 to 5 Wh more used (95 % interval; how) 2 g CO2e more emitted significant" in shown
    assert "5 Wh more used than the comparison would have needed (95 % interval" in shown
    assert "2 g CO2e more emitted (95 % interval 2 to 2 g CO2e more emitted)" in shown
    assert "-5 Wh" not in shown
    (row, _) = roll_up([ledger], "stream")
    assert avoided_words(row) == "5 Wh more used in all, modelled"
