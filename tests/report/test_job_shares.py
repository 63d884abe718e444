"""A job's estimated share of a source: recorded by the run, and shown next to the whole."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from greentrain.energy import JobShare, Source
from greentrain.ledger import Ledger, verify
from greentrain.report import build, render_html
from tests.report.ledgers import SOURCES, window


def test_a_share_is_recorded_at_the_end_and_divides_nothing(ledger: Ledger) -> None:
    card = SOURCES[0]
    share = JobShare(low=0.25, high=0.5, basis="busy time <of a card>")
    shown: list[Source] = [card]
    with ledger.open_run("fit", "digits", sources=lambda: shown, beat=lambda: []) as run:
        run.flush()
        window(run, 400.0, 10.0)
        shown[0] = dataclasses.replace(card, job_share=share)
    [event] = ledger.rows("event")
    assert event["topic"] == "share"
    assert json.loads(event["content"]) == {"source": "gpu:0", **share.as_dict()}
    assert verify(ledger).ok

    report = build(ledger)
    assert report["totals"]["energy_j"] == 410.0  # the whole
    [run_figures] = report["runs"]
    [figures] = run_figures["job_shares"]
    assert figures == {
        "source": "gpu:0",
        "low": 0.25,
        "high": 0.5,
        "standard_uncertainty": pytest.approx(0.25 / 12**0.5),
        "basis": "busy time <of a card>",
        "low_j": 100.0,
        "high_j": 200.0,
    }
    page = render_html(report)
    assert "Estimated share of this job" in page
    assert "25 % to 50 %, 100 J to 200 J" in page
    assert "busy time &lt;of a card&gt;" in page


def test_a_run_without_a_share_has_none(ledger: Ledger, tmp_path: Path) -> None:
    with ledger.open_run("fit", "digits", sources=SOURCES) as run:
        window(run, 400.0, 10.0)
    [figures] = build(ledger)["runs"]
    assert figures["job_shares"] == []
