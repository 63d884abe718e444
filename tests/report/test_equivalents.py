"""Equivalents: with their source and interval, when asked for, and in no filed document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from greentrain.carbon import Emissions
from greentrain.ledger import Ledger
from greentrain.report import build, build_and_write, check, render_html
from greentrain.report.equivalents import equivalents_words
from greentrain.report.html import render_html as render_page
from greentrain.report.write import FORMATS
from tests.report.ledgers import SOURCES, window

GIVEN = {"carbon": {"intensity": {"zone": "DE", "signal": "average", "basis": "direct"}}}
FILED = ("esrs", "sci", "gpai", "hf", "boamps", "cyclonedx", "spdx", "csv")


def _recorded(ledger: Ledger, grams: float | None) -> None:
    with ledger.open_run("fit", "digits", environment=GIVEN, sources=SOURCES) as run:
        emissions = Emissions(grams=grams, intensity_g_per_kwh=100.0)
        window(run, 3600.0, 0.0, emissions=emissions if grams is not None else None)


def test_the_grams_are_divided_with_their_interval(ledger: Ledger) -> None:
    _recorded(ledger, 1834.0)
    report = build(ledger, equivalents=True)
    held, interval = report["equivalents"], report["carbon"]["interval"]
    assert held is not None
    assert interval is not None
    car, tree = held["figures"]
    assert car["value"] == pytest.approx(1834.0 / 175.0)
    assert tree["value"] == pytest.approx(2.0)
    assert (tree["low"], tree["high"]) == (
        pytest.approx(interval["low_g"] / 917.0),
        pytest.approx(interval["high_g"] / 917.0),
    )
    assert "Green Algorithms" in held["source"]
    assert "10.5 km by car" in render_html(report)
    assert "tree-months" not in render_page(report, paper=True)


def test_they_are_off_by_default_and_in_no_filed_document(ledger: Ledger, tmp_path: Path) -> None:
    _recorded(ledger, 1834.0)
    assert build(ledger)["equivalents"] is None
    assert "tree-months" not in render_html(build(ledger))
    report, _ = build_and_write(ledger, tmp_path, ["json", "md", *FILED], equivalents=True)
    assert "tree-months" in (tmp_path / "report.md").read_text()
    assert check((tmp_path / "report.json").read_text(), [ledger]).ok
    for name in FILED:
        for end in FORMATS[name].files:
            assert "tree-months" not in (tmp_path / f"report.{end}").read_text(), end
    json.dumps(report)


def test_without_all_grams_there_are_none(ledger: Ledger) -> None:
    _recorded(ledger, 100.0)
    _recorded(ledger, None)
    held = build(ledger, equivalents=True)["equivalents"]
    assert held is not None
    assert [one["value"] for one in held["figures"]] == [None, None]
    assert equivalents_words(held) == "unknown, because the grams of some energy are not known."
