"""The page, the charts and the files."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from greentrain.errors import ConfigurationError
from greentrain.report import build, render_html, write
from greentrain.report.svg import energy_chart, metric_chart, spending_chart
from tests.ledger.told import CALIBRATION
from tests.report.ledgers import heartbeat, stream, window

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    '=HYPERLINK("http://x")',
    "\u202etxt.exe",
    "x" * 10_000,
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
    assert "1.5 Wh drawn over 2 experiences. The budget was kept." in shown
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


def test_the_page_shows_what_is_apart_from_the_metered_energy(ledger):
    told = {"intensity": None, "pue": 1.2, "pue_source": "<b>a sign</b>"}
    with ledger.open_run("fit", "model", environment={"carbon": told}) as run:
        window(run, 3600.0, 3600.0)
        window(run, 1800.0, 720.0, phase="idle")
        run.append("calibration", **{**CALIBRATION, "boundary": None, "wall": "<i>a PDU</i>"})
    killed = ledger.open_run("fit", "killed")
    heartbeat(killed, 1800.0, 1800.0)
    text = render_html(build(ledger))
    killed.close()
    shown = re.sub(r"\s+", " ", Page(text).text)
    assert "At least 3.7 Wh drawn" in shown  # 2 Wh, 0.7 Wh idle and 1 Wh recovered
    assert "Software's joules times 1.25 (1.2 to 1.3), from 5 spans" in shown
    assert "3.38 Wh, 3.24 Wh to 3.51 Wh, node for 2.7 Wh metered in 1 run" in shown
    assert "PUE 1.2, <b>a sign</b>, times the energy within node." in shown
    assert "Idle baseline" in shown and "50 W" in shown and "20 W" in shown
    assert "killed was killed, or still runs: 1 Wh of 1 phase stand as of" in shown
    assert "<b>a sign" not in text and "<i>a PDU" not in text


def test_charts_are_well_formed_and_labelled(ledger):
    stream(ledger)
    report = build(ledger)
    charts = [
        energy_chart(report["experiences"]),
        spending_chart(report["budgets"][0]),
        metric_chart(report["experiences"], "val_acc"),
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
    with pytest.raises(ConfigurationError, match="'docx' is not known; allowed are html, json"):
        write(report, tmp_path / "out", ("html", "docx"))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_a_file_is_refused(ledger, tmp_path):
    (tmp_path / "out").write_text("")
    with pytest.raises(ConfigurationError, match="cannot write the report into"):
        write(build(ledger), tmp_path / "out")
