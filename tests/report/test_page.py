"""The page in a real browser: nothing runs, nothing is asked for, everybody can read it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.energy import Source
from greentrain.ledger import Ledger
from greentrain.report import build, render_html
from greentrain.report.disclosures import Disclosures
from tests.report.ledgers import SOURCES, STARTED, come, decide, heartbeat, window
from tests.report.test_avoided import SERIES, offers
from tests.report.test_rendering import HOSTILE

pytestmark = pytest.mark.slow
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 900}


def everything(
    ledger: Ledger, name: str = "digits", disclosures: Disclosures | None = None
) -> dict[str, Any]:
    """A report in which every part of the page has something to show, under one name."""
    carbon = {
        "intensity": {
            **SERIES["intensity"],
            "source": name,
            "zone": name,
            "signal": "average",
            "basis": "direct",
        },
        "pue": 1.2,
        "pue_source": name,
    }
    environment = {"host": "abc", "carbon": carbon, "settings": {name: name}, "platform": name}
    named = Source(name=name, method="counter", relative_uncertainty=0.1, device=name, note=name)
    sources = [*SOURCES, named]
    run = ledger.open_run("stream", name, environment=environment, sources=sources)
    budget = ledger.open_budget(name, Budget.parse("1 Wh", num_experiences=7))
    account = ledger.account(budget, run)
    for position in range(7):
        reservation = account.reserve(100.0, name) if position == 3 else None
        decide(
            run,
            budget,
            position,
            experience_id=f"{position}{name}",
            reservation_id=reservation,
            update_mode="SKIP" if reservation is None else "REPLAY",
            step_fraction=0.0 if reservation is None else 1.0,
            sentence=name,
            min_gain_per_j=1e-4,
            alternatives=offers(1000.0, 10.0),
        )
        started = STARTED + timedelta(hours=position)
        emissions = Emissions(grams=0.05 + 0.01 * position, intensity_g_per_kwh=400.0)
        window(run, 100.0, 50.0, started=started, emissions=emissions, reservation_id=reservation)
        if reservation is not None:
            account.settle(reservation, 150.0)
        come(run, position, metric=name, metric_after=0.5 + 0.05 * position, energy_j=150.0)
    window(run, None, 1.0, phase="idle", started=STARTED + timedelta(hours=9))
    run.close()
    with ledger.open_run("fit", name, environment=environment, sources=SOURCES) as twin:
        window(twin, 100.0, 50.0)  # at the same time on the same host
    broken = ledger.open_run("fit", name, environment=environment, sources=SOURCES)
    broken.close("failed")
    killed = ledger.open_run(
        "fit", f"killed {name}"[:500], environment=environment, sources=SOURCES
    )
    heartbeat(killed, 10.0, 10.0, started=STARTED + timedelta(days=1))
    report = build(ledger, disclosures=disclosures)
    killed.close()
    assert all(report[key] for key in ("overlaps", "hourly", "experiences", "budgets"))
    return report


def shown(browser: Any, folder: Path, report: dict[str, Any], **options: Any) -> Any:
    """Open the page, with a list of what it asked for, said and tried to open."""
    path = folder / "report.html"
    path.write_text(render_html(report), encoding="utf-8")
    page = browser.new_page(**options)
    page.heard = []
    page.on("request", lambda request: page.heard.append(request.url))
    page.on("console", lambda message: page.heard.append(message.text))
    page.on("pageerror", lambda error: page.heard.append(str(error)))
    page.on("dialog", lambda dialog: (page.heard.append(dialog.message), dialog.dismiss()))
    page.goto(path.as_uri())
    assert page.heard == [path.as_uri()]
    return page


def unfold(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, ledger, tmp_path, scheme):
    from axe_playwright_python.sync_playwright import Axe

    given = Disclosures(hosting="own", water_l_per_kwh=1.8, market_based_g_per_kwh=30.0)
    report = everything(ledger, disclosures=given)
    page = shown(browser, tmp_path, report, viewport=DESK, color_scheme=scheme)
    unfold(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert found.response["passes"]
    page.close()


@pytest.mark.parametrize("name", [name.replace("\0", "") for name in HOSTILE])
def test_hostile_names_neither_run_nor_break_the_layout(browser, ledger, tmp_path, name):
    given = Disclosures(
        water_l_per_kwh=1.0,
        water_source=name,
        market_based_g_per_kwh=1.0,
        market_based_source=name,
    )
    report = everything(ledger, name, given)
    page = shown(browser, tmp_path, report, viewport=PHONE)
    unfold(page)
    assert page.evaluate("document.scripts.length + document.images.length") == 0
    assert page.evaluate("document.querySelectorAll('a:not([href^=\"#\"])').length") == 0
    for size in (PHONE, DESK):
        page.set_viewport_size(size)
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert len(page.heard) == 1
    page.close()


def test_paper_shows_what_the_screen_folds(browser, ledger, tmp_path):
    page = shown(browser, tmp_path, everything(ledger), viewport=DESK)
    folded = page.locator("details table").first
    assert folded.bounding_box()["height"] == 0
    page.emulate_media(media="print")
    assert folded.bounding_box()["height"] > 0
    assert page.pdf().startswith(b"%PDF")
    page.close()


def test_an_empty_report_is_a_page_too(browser, ledger, tmp_path):
    page = shown(browser, tmp_path, build(ledger), viewport=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert "no figure to report" in page.inner_text("header")
    page.close()
