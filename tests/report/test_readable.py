"""The report of 28 updates in a browser, on a phone and on paper."""

from __future__ import annotations

import re
import zlib
from typing import Any

import pytest

from greentrain.ledger import Ledger
from greentrain.report import build, render_html
from greentrain.report.disclosures import Disclosures
from greentrain.report.exports import pdf
from tests.report.exports.documents import needs_pango
from tests.report.month import two_streams
from tests.report.test_page import DESK, PHONE, shown, unfold

pytestmark = pytest.mark.slow
CLIPPED = """() => [...document.querySelectorAll('body *')].filter(one => {
  const box = one.getBoundingClientRect(), at = getComputedStyle(one);
  if (!box.width || one.closest('.wide') || one.closest('svg')) return false;
  return box.right > innerWidth + 1 || box.left < -1
    || (at.overflowX === 'hidden' && one.scrollWidth > one.clientWidth + 1);
}).map(one => one.outerHTML.slice(0, 120))"""
UNMARKED = """() => [...document.querySelectorAll('.wide')].filter(one =>
  one.scrollWidth > one.clientWidth + 1
  && (getComputedStyle(one).backgroundImage === 'none'
    || (one.querySelector('svg[role=img]')
      && getComputedStyle(one.nextElementSibling).display === 'none'))
).map(one => one.getAttribute('aria-label'))"""


@pytest.fixture(scope="module")
def month(tmp_path_factory) -> dict[str, Any]:
    ledger = Ledger(f"sqlite:///{tmp_path_factory.mktemp('month') / 'month.db'}")
    two_streams(ledger)
    given = Disclosures(hosting="own", water_l_per_kwh=1.8, market_based_g_per_kwh=30.0)
    report: dict[str, Any] = build(ledger, disclosures=given)
    ledger.close()
    return report


@pytest.mark.parametrize(("scheme", "size"), [("light", DESK), ("dark", DESK), ("dark", PHONE)])
def test_axe_finds_nothing(browser, month, tmp_path, scheme, size):
    from axe_playwright_python.sync_playwright import Axe

    page = shown(browser, tmp_path, month, viewport=size, color_scheme=scheme)
    unfold(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    page.close()


def test_nothing_is_clipped_at_390_px_and_what_scrolls_shows_it(browser, month, tmp_path):
    page = shown(browser, tmp_path, month, viewport=PHONE)
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(CLIPPED) == []
    assert page.evaluate(UNMARKED) == []
    assert page.locator(".wide svg").first.bounding_box()["width"] > PHONE["width"]
    page.close()


def test_the_name_of_a_budget_has_room_at_390_px(browser, month, tmp_path):
    page = shown(browser, tmp_path, month, viewport=PHONE)
    name = page.locator("#budgets tbody th").first
    assert name.bounding_box()["width"] >= 8 * 16
    page.close()


def test_a_pdf_of_28_updates_is_tagged_and_has_8_pages_at_most(month):
    needs_pango()
    printed = pages_of(pdf.render(month))
    assert printed["pages"] <= 8
    assert printed["tagged"]


def test_the_summary_of_a_pdf_comes_first_and_has_2_pages_at_most(month):
    needs_pango()
    page = render_html(month, paper=True)
    places = [page.index(f'id="{name}"') for name in ("uses", "budgets", "decisions", "runs")]
    assert places == sorted(places)
    assert page.count("<details") == page.count("Heads of")  # nothing else is folded
    from weasyprint import HTML

    (first, *_) = re.findall(r'(?s)<section class="charts".*?</main>', page)
    summary = HTML(string=pdf.with_colours(page.replace(first, "</main>"))).render()
    assert len(summary.pages) <= 2


def pages_of(printed: bytes) -> dict[str, Any]:
    """Read the number of pages of a PDF, and whether it says that it is tagged."""
    text = printed
    for stream in re.findall(rb"stream\r?\n(.*?)endstream", printed, re.DOTALL):
        try:
            text += zlib.decompress(stream)
        except zlib.error:
            continue
    return {
        "pages": len(re.findall(rb"/Type\s*/Page\b", text)),
        "tagged": b"/StructTreeRoot" in text and b"/Marked true" in text,
    }
