"""The page as a PDF; extra ``pdf`` (WeasyPrint, which needs the system's Pango)."""

from __future__ import annotations

import re
from typing import Any

from greentrain._about import DISTRIBUTION
from greentrain.errors import ConfigurationError
from greentrain.report.document import Report
from greentrain.report.html import render_html

_SVG = re.compile(r"<svg\b.*?</svg>", re.DOTALL)
_VARIABLE = re.compile(r"var\(--([\w-]+)(?:,\s*([^()]*))?\)")
_DEFINED = re.compile(r"--([\w-]+):\s*([^;}]+)")


def render(document: Report) -> bytes:
    """Print the page as a tagged PDF (PDF/UA-1); nothing is fetched for it.

    The summary and the budgets are first. Each decision is a row of a table.

    Raises:
        ConfigurationError: If WeasyPrint is not installed, or cannot load Pango.
    """
    try:
        from weasyprint import HTML
    except ImportError:
        raise ConfigurationError(
            f'the format pdf needs WeasyPrint; install it with pip install "{DISTRIBUTION}[pdf]"'
        ) from None
    except OSError as error:
        raise ConfigurationError(
            "the format pdf needs the system library Pango, which cannot be loaded "
            f"({str(error).splitlines()[0]}); Debian has it in the packages libpango-1.0-0, "
            "libpangoft2-1.0-0 and libharfbuzz-subset0"
        ) from None
    page = HTML(string=with_colours(render_html(document, paper=True)), url_fetcher=_refuse)
    printed: bytes = page.write_pdf(pdf_variant="pdf/ua-1", custom_metadata=True)
    return printed


def with_colours(page: str) -> str:
    """Replace CSS variables in the charts by the page's colours, as WeasyPrint needs it.

    Example:
        >>> with_colours("<style>:root{--a:red}</style><svg><rect fill='var(--a)'/></svg>")
        "<style>:root{--a:red}</style><svg><rect fill='red'/></svg>"
    """
    colours: dict[str, str] = {}
    for name, value in _DEFINED.findall(page.partition("</style>")[0]):
        # The light theme is defined first, and paper is light.
        colours.setdefault(name, value.strip())

    def colour(found: re.Match[str]) -> str:
        return colours.get(found[1]) or found[2] or "currentColor"

    return _SVG.sub(lambda chart: _VARIABLE.sub(colour, chart[0]), page)


def _refuse(url: str, *_: Any, **__: Any) -> dict[str, Any]:
    raise ValueError(f"the report must not load anything, but requested {url[:80]!r}")
