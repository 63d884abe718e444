"""A short summary in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from greentrain.report.exports.facts import (
    Document,
    boundary,
    emissions_g,
    emissions_gaps,
    gaps,
    measured_words,
    one_line,
)
from greentrain.units import format_carbon, format_energy, wh

MOST_ROWS = 20
_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~$@:])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def render(document: Document) -> str:
    """Write what matters of the report as Markdown (CommonMark with tables)."""
    parts = [
        "# Energy report",
        _lead(document),
        _table(
            ("figure", "value"),
            [
                ("energy", _energy(document)),
                ("boundary", _word(boundary(document))),
                ("measured by", escaped(measured_words(document)) or "unknown"),
                ("emissions", format_carbon(emissions_g(document))),
                ("experiences", str(document["summary"]["experiences"])),
                ("last metric", _metric(document)),
            ],
        ),
        *_budgets(document),
        *_runs(document),
        *_known_gaps(document),
        f"Verify: `{_code(document['verification']['command'])}`",
    ]
    return "\n\n".join(parts) + "\n"


def escaped(text: str) -> str:
    r"""Write a text so that Markdown shows it as it is: no markup, no HTML, no link.

    Example:
        >>> print(escaped("*a* <b> [c](http://d)"))
        \*a\* &lt;b&gt; \[c\]\(http\://d\)
    """
    # After a backslash or an entity, "www." is no link to GitHub either.
    marked = _MARKS.sub(r"\\\1", one_line(text)).translate(_HTML)
    return re.sub(r"(?i)www\.", lambda found: f"{found[0][:3]}\\.", marked)


def _lead(document: Document) -> str:
    runs = document["runs"]
    if not runs:
        return "The ledger holds no run, so there is no figure to report."
    period = document["period"]
    return (
        f"{len(runs)} run{'s' if len(runs) > 1 else ''}, {period['first_utc']} to "
        f"{period['last_utc']}."
    )


def _energy(document: Document) -> str:
    totals = document["totals"]
    if totals["energy_j"] is None:
        return "unknown: nothing was measured"
    least = "" if totals["complete"] else "at least "
    interval = totals["interval"]
    spread = (
        ""
        if interval is None
        else f" (95 % interval {interval['low_wh']:.3g} to {interval['high_wh']:.3g} Wh)"
    )
    return f"{least}{format_energy(totals['energy_j'])}{spread}"


def _metric(document: Document) -> str:
    value = document["summary"]["final_metric"]
    name = document["summary"]["metric"]
    return "unknown" if value is None else f"{value:.4g} ({escaped(name or 'unknown')})"


def _budgets(document: Document) -> list[str]:
    rows = [
        (
            escaped(one["name"]),
            escaped(one["given_as"]),
            f"{one['spent_g']:.3g} g" if one["unit"] == "g" else f"{wh(one['spent_j']):.3g} Wh",
            "yes" if one["kept"] else "no",
        )
        for one in document["budgets"]
    ]
    return _section("Budgets", ("budget", "amount", "spent", "kept"), rows)


def _runs(document: Document) -> list[str]:
    rows = [
        (escaped(one["name"]), escaped(one["status"]), format_energy(one["energy_j"]))
        for one in document["runs"]
    ]
    return _section("Runs", ("run", "status", "energy"), rows)


def _known_gaps(document: Document) -> list[str]:
    sentences = [*gaps(document), *emissions_gaps(document)]
    outside = document["not_measured"]["outside_boundary"]
    listed = [f"- {escaped(sentence)}" for sentence in [*sentences, *outside]]
    return ["## Not known, not measured", "\n".join(listed)] if listed else []


def _section(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    more = len(rows) - MOST_ROWS
    return [
        f"## {title}",
        _table(header, rows[-MOST_ROWS:]),
        *([f"The last {MOST_ROWS}; {more} more stand in report.json."] if more > 0 else []),
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _word(text: str | None) -> str:
    return "unknown" if text is None else escaped(text)


def _code(text: str) -> str:
    return one_line(text, 2000).replace("`", "'")
