"""A short summary of the report in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from greentrain.report.budget_figures import BudgetFigures
from greentrain.report.document import Report
from greentrain.report.equivalents import equivalents_words
from greentrain.report.exports import facts, method_text
from greentrain.report.exports.claim import claim
from greentrain.report.formats import energies, energy, metric
from greentrain.report.uses import USES
from greentrain.texts import markdown
from greentrain.units import energy_unit, format_carbon, plural

MOST_ROWS = 20


def render(document: Report) -> str:
    """Write a summary as Markdown (CommonMark with tables), with the report's identity."""
    return f"{summary(document)}\n\nReport: `{claim(document)}`\n"


def summary(document: Report) -> str:
    """Write the summary without the report's identity, for a text that carries it elsewhere."""
    parts = [
        "# Energy report",
        _lead(document),
        _table(
            ("figure", "value"),
            [
                ("energy", _energy(document)),
                ("boundary", _word(facts.boundary(document))),
                ("obtained by", escaped(method_text.measured_words(document)) or "unknown"),
                ("emissions", _emissions(document)),
                *_restated(document),
                ("experiences", str(document["summary"]["experiences"])),
                ("last metric", _metric(document)),
            ],
        ),
        *_uses(document),
        *_budgets(document),
        *_runs(document),
        *_known_gaps(document),
        f"Verify: `{_code(document['verification']['command'])}`",
    ]
    return "\n\n".join(parts)


def escaped(text: str) -> str:
    """Return a text from a ledger that Markdown shows as it is, on one line."""
    return markdown(facts.one_line(text))


def _lead(document: Report) -> str:
    runs = document["runs"]
    if not runs:
        return "The ledger holds no run, so there is no figure to report."
    period = document["period"]
    limited = facts.period_words(document)
    only = "" if limited is None else f" Reporting period: only {limited}."
    return f"{plural(len(runs), 'run')}, {period['first_utc']} to {period['last_utc']}.{only}"


def _energy(document: Report) -> str:
    totals = document["totals"]
    if totals["energy_j"] is None:
        return "unknown: nothing was measured"
    part = "" if totals["complete"] else " in the measured part"
    interval = totals["interval"]
    spread = (
        ""
        if interval is None
        else f" (95 % interval {energies(interval['low_j'], interval['high_j'])})"
    )
    return f"{energy(totals['energy_j'])}{part}{spread}"


def _emissions(document: Report) -> str:
    shown = format_carbon(facts.emissions_g(document))
    if len(document["carbon"]["by_basis"]) < 2:
        return shown
    return f"{shown} (factors of different bases: {escaped(facts.bases_words(document))})"


def _restated(document: Report) -> list[tuple[str, str]]:
    restated, rows = facts.restated_words(document), []
    if restated is not None:
        rows.append(("restated", markdown(restated)))
    if (held := document.get("equivalents")) is not None:
        rows.append(("equivalents", markdown(equivalents_words(held))))
    return rows


def _metric(document: Report) -> str:
    known = [one for one in document["summary"]["by_stream"] if one["final_metric"] is not None]
    shown = [
        f"{metric(one['final_metric'])} ({escaped(one['metric'] or 'unknown')}"
        + (f" of {escaped(one['name'])})" if len(known) > 1 else ")")
        for one in known
    ]
    more = len(shown) - MOST_ROWS
    return ", ".join(shown[:MOST_ROWS]) + (f" and {more} more" if more > 0 else "") or metric(None)


def _uses(document: Report) -> list[str]:
    uses = document["summary"]["by_use"]
    unit = energy_unit(one["energy_j"] for one in uses)
    rows = [
        (USES[one["use"]].lower(), str(one["count"] or ""), energy(one["energy_j"], unit))
        for one in uses
    ]
    sentence = (
        "The energy of an experience is its update, its wait and its probe or calibration together."
    )
    found = _section("Where the energy went", ("use", "number", f"energy ({unit})"), rows)
    return [*found, sentence] if found else []


def _budgets(document: Report) -> list[str]:
    rows = [
        (
            escaped(one["name"]),
            escaped(one["given_as"]),
            format_carbon(one["spent_g"]) if one["unit"] == "g" else energy(one["spent_j"]),
            _kept(one),
        )
        for one in document["budgets"]
    ]
    return _section("Budgets", ("budget", "amount", "spent", "kept"), rows)


def _kept(budget: BudgetFigures) -> str:
    if not budget["kept"]:
        return "no"
    overruns = len(budget["overruns"])
    return f"yes, with {plural(overruns, 'overrun')}" if overruns else "yes"


def _runs(document: Report) -> list[str]:
    unit = energy_unit(one["energy_j"] for one in document["runs"])
    rows = [
        (escaped(one["name"]), escaped(one["status"]), energy(one["energy_j"], unit))
        for one in document["runs"]
    ]
    return _section("Runs", ("run", "status", f"energy ({unit})"), rows)


def _known_gaps(document: Report) -> list[str]:
    sentences = [*facts.gaps(document), *facts.emissions_gaps(document)]
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
        *([f"The last {MOST_ROWS} are listed; report.json has {more} more."] if more > 0 else []),
    ]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _word(text: str | None) -> str:
    return "unknown" if text is None else escaped(text)


def _code(text: str) -> str:
    return facts.one_line(text, 2000).replace("`", "'")
