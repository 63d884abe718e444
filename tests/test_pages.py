"""The built documentation in a real browser: no code is clipped, and no table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
DESK = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}

# What is wider than its place, by the first words in it.
CLIPPED = """selector => [...document.querySelectorAll(selector)]
    .filter(each => each.offsetParent !== null)
    .filter(each => {
        const place = each.closest(".table-wrapper") || each;
        return place.scrollWidth > place.clientWidth + 1
            || each.getBoundingClientRect().right > window.innerWidth + 1;
    })
    .map(each => each.innerText.slice(0, 60))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every page, built as ``make docs`` builds it."""
    from sphinx.cmd.build import main

    out = tmp_path_factory.mktemp("pages")
    assert main(["-q", "-b", "html", str(ROOT / "docs"), str(out)]) == 0
    generated = {"genindex.html", "py-modindex.html", "search.html"}
    found = sorted(path for path in out.rglob("*.html") if path.name not in generated)
    assert len(found) > 50
    return found


@pytest.mark.filterwarnings("ignore")  # Sphinx's own use of what is deprecated
@pytest.mark.parametrize(
    ("size", "selector"), [(DESK, "div.highlight pre"), (PHONE, "article table")]
)
def test_nothing_is_clipped(
    pages: list[Path], browser: Any, size: dict[str, int], selector: str
) -> None:
    page = browser.new_page(viewport=size)
    clipped = []
    for path in pages:
        page.goto(path.as_uri())
        clipped += [f"{path.name}: {text}" for text in page.evaluate(CLIPPED, selector)]
    page.close()
    assert clipped == []
