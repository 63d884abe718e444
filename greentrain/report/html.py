"""The report as one HTML page that asks for nothing outside itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from greentrain.report.filters import FILTERS, inert, short
from greentrain.report.svg import (
    MODE_COLOURS,
    energy_chart,
    intensity_chart,
    metric_chart,
    source_chart,
    spending_chart,
)
from greentrain.units import format_energy

MOST_EXPERIENCES = 200
MOST_RUNS = 60
MOST_CHARTS = 6
UNFOLDED = 20
"""Runs, and experiences, that are shown at once: the last ones; those before them unfold."""

MODE_WORDS = {
    "SKIP": "Skip",
    "REPLAY": "Replay",
    "WARM_START": "Warm start",
    "FULL_RETRAIN": "Full retrain",
}
PHASE_WORDS = {
    "train_epoch": "Training epochs",
    "fit": "Training, outside its epochs",
    "validation": "Validation",
    "probe": "Looks at new data",
    "calibration": "Calibration",
    "profile": "Trials of two updates",
    "control": "Controls: full retrainings to compare with",
    "update": "Updates, outside their training",
    "checkpoint": "Checkpoints",
    "sanity_check": "Sanity check",
    "measure": "Measured blocks and commands",
    "idle": "Idle baseline",
}
METHOD_WORDS = {
    "counter": "hardware energy counter",
    "sampled": "power, sampled and integrated",
    "estimated": "estimated by a model",
    "given": "given, not measured",
}


def render_html(report: Mapping[str, Any]) -> str:
    """Render the report document as one self-contained page.

    Args:
        report: The document of :func:`greentrain.report.build`.

    Returns:
        The page: styles and charts are inside it, there is no script, and a policy in its head
        forbids every request.
    """
    # Imported here, so that the command line starts without it.
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("greentrain.report"),
        autoescape=True,
        finalize=inert,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    charts = {place: [Markup(chart) for chart in drawn] for place, drawn in _charts(report).items()}
    page = environment.get_template("report.html.j2").render(
        report=report, charts=charts, **_view(report)
    )
    return page if page.endswith("\n") else page + "\n"


def _view(report: Mapping[str, Any]) -> dict[str, Any]:
    """Work out what the page shows and the document does not say in so many words."""
    budgets, experiences, runs = report["budgets"], report["experiences"], report["runs"]
    modes = report["summary"]["update_modes"]
    total_j = report["totals"]["energy_j"]
    return {
        "heading": _heading(runs),
        "lead": _lead(report),
        "modes": [
            {
                "name": mode,
                "words": MODE_WORDS.get(mode, mode),
                "count": count,
                "colour": MODE_COLOURS.get(mode, "var(--soft)"),
            }
            for mode, count in modes.items()
        ],
        "colours": MODE_COLOURS,
        "mode_words": MODE_WORDS,
        "phase_words": PHASE_WORDS,
        "method_words": METHOD_WORDS,
        "phase_shares": {
            one["phase"]: (one["energy_j"] or 0.0) / total_j if total_j else 0.0
            for one in report["totals"]["by_phase"]
        },
        "budget_kept": all(budget["kept"] for budget in budgets) if budgets else None,
        "main_budgets": [one for one in budgets if one["pays_for_updates"]] or budgets,
        "names": {run["run_id"]: run["name"] for run in runs},
        "earlier_experiences": experiences[-MOST_EXPERIENCES:-UNFOLDED],
        "experiences": experiences[-UNFOLDED:],
        "hidden_experiences": max(0, len(experiences) - MOST_EXPERIENCES),
        "broken_off": _broken_off(runs),
        "earlier_runs": runs[-MOST_RUNS:-UNFOLDED],
        "shown_runs": runs[-UNFOLDED:],
        "hidden_runs": max(0, len(runs) - MOST_RUNS),
        "most_charts": MOST_CHARTS,
    }


def _charts(report: Mapping[str, Any]) -> dict[str, list[str]]:
    latest = report["experiences"][-MOST_EXPERIENCES:]
    by_metric: dict[str, list[Mapping[str, Any]]] = {}
    for one in latest:
        if one["metric"] is not None and one["metric_after"] is not None:
            by_metric.setdefault(one["metric"], []).append(one)
    paid = [one for one in report["budgets"] if one["spending"]]
    main = [one for one in paid if one["pays_for_updates"]] or paid
    sources = [one for one in report["totals"]["sources"] if one["energy_j"]]
    hours = [one for one in report.get("hourly", []) if one["carbon_g"] is not None]
    return {
        "energy": [energy_chart(latest)] if latest else [],
        "sources": [source_chart(sources)] if sources else [],
        "intensity": [intensity_chart(hours)] if any(one["energy_j"] for one in hours) else [],
        "spending": [spending_chart(budget) for budget in main[:MOST_CHARTS]],
        "metric": [
            metric_chart(of_it, name) for name, of_it in list(by_metric.items())[:MOST_CHARTS]
        ],
    }


def _broken_off(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sum up the runs that did not come to their end, by how they ended: what they drew counts."""
    words = {"failed": "failed", "unclosed": "killed, or still running"}
    summed = []
    for status in dict.fromkeys(run["status"] for run in runs if run["status"] != "completed"):
        of_it = [run for run in runs if run["status"] == status]
        known = [run["energy_j"] for run in of_it if run["energy_j"] is not None]
        summed.append(
            {
                "words": words.get(status, status),
                "count": len(of_it),
                "energy_j": math.fsum(known) if known else None,
                "names": [run["name"] for run in of_it],
            }
        )
    return summed


def _heading(runs: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(run["name"] for run in runs))
    if not names:
        return "Nothing recorded yet"
    return short(names[0], 80) if len(names) == 1 else f"{len(runs)} runs"


def _lead(report: Mapping[str, Any]) -> str:
    """Say in one sentence or two what the page is about."""
    summary, totals, budgets = report["summary"], report["totals"], report["budgets"]
    if not report["runs"]:
        return "The ledger holds no run, so there is no figure to report."
    if totals["energy_j"] is None:
        used = "No energy was measured, so how much was drawn is unknown"
    else:
        used = (
            f"{'' if totals['complete'] else 'At least '}{format_energy(totals['energy_j'])} drawn"
        )
    if summary["experiences"]:
        count = summary["experiences"]
        used += f" over {count} experience{'s' if count > 1 else ''}"
    if not budgets:
        return f"{used}. No budget was set."
    broken = [budget["name"] for budget in budgets if not budget["kept"]]
    if broken:
        return f"{used}. Not kept: the budget {', '.join(short(name) for name in broken[:3])}."
    return f"{used}. {'The budget was' if len(budgets) == 1 else 'Every budget was'} kept."
