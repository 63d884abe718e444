"""The overview in a browser: light, dark and on a phone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from greentrain.ledger import Ledger
from greentrain.report.earlier_overview import Earlier, EarlierStream
from greentrain.report.overview import Overview, overview
from greentrain.report.overview_page import render_overview
from tests.report.ledgers import stream
from tests.report.month import two_streams
from tests.report.test_page import DESK, PHONE
from tests.report.test_readable import CLIPPED, UNMARKED

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Overview:
    folder = tmp_path_factory.mktemp("overview")
    ledgers = [Ledger(str(folder / name)) for name in ("month.db", "digits.db")]
    two_streams(ledgers[0], 12)
    stream(ledgers[1], name="<b>digits</b> of a long name without " + 20 * "spaces")
    with ledgers[1].open_run("fit", "alone", team="vision", project="cars"):
        pass
    then = EarlierStream(
        experiences=5, energy_j=1000.0, metric="val_acc", final_metric=0.6, left_j=11000.0
    )
    earlier = Earlier(
        name="last_week.json",
        period={"first_utc": None, "last_utc": "2026-11-01T00:00:00.000000+00:00"},
        streams={("month.db", "images"): then},
    )
    found = overview(ledgers, datetime.now(UTC) + timedelta(hours=1), earlier=earlier)
    for ledger in ledgers:
        ledger.close()
    return found


def opened(browser: Any, folder: Path, document: Overview, **options: Any) -> Any:
    path = folder / "overview.html"
    path.write_text(render_overview(document), encoding="utf-8")
    page = browser.new_page(**options)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert asked == [path.as_uri()]
    return page


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", DESK), ("dark", PHONE)])
def test_axe_finds_nothing(browser, document, tmp_path, scheme, size) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(browser, tmp_path, document, viewport=size, color_scheme=scheme)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_nothing_is_clipped_and_what_scrolls_shows_it(browser, document, tmp_path, size) -> None:
    page = opened(browser, tmp_path, document, viewport=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert page.evaluate(CLIPPED) == []
    if size == PHONE:
        assert page.evaluate(UNMARKED) == []
    page.close()


def test_each_stream_has_a_row_a_burn_down_and_its_actions(browser, document, tmp_path) -> None:
    page = opened(browser, tmp_path, document, viewport=DESK)
    assert page.locator("#streams tbody tr").count() == 3
    assert page.locator(".burn svg[role=img]").count() == 3
    assert "expected after the last" in page.locator(".burn svg > title").first.text_content()
    assert "greentrain ledger release" in page.locator("#stream-1 code").first.inner_text()
    assert "+7 experiences" in page.locator("#streams tbody tr").first.inner_text()
    assert "new stream" in page.locator("#streams tbody tr").nth(1).inner_text()
    assert page.locator("#pareto svg[role=img]").count() == 1
    page.close()
