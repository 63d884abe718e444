"""Render the report as one HTML page that loads nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from greentrain.control import UPDATE_MODES
from greentrain.report.document import Report, RunFigures
from greentrain.report.experiences import ENDINGS
from greentrain.report.exports.claim import claim
from greentrain.report.formats import FILTERS, energy, inert, short
from greentrain.report.row_helpers import grouped, total
from greentrain.report.svg import (
    MODE_COLOURS,
    energy_chart,
    epoch_chart,
    intensity_chart,
    metric_chart,
    source_chart,
    spending_chart,
)
from greentrain.report.window_list import epoch_energies
from greentrain.units import plural

MOST_EXPERIENCES = 200
MOST_RUNS = 60
MOST_CHARTS = 6
UNFOLDED = 20
"""Runs, and experiences, that are shown at once: the last ones. Earlier ones are folded."""

MODE_WORDS: Mapping[str, str] = {mode: traits.label for mode, traits in UPDATE_MODES.items()}
PHASE_WORDS = {
    "setup": "Preparation of data",
    "train_epoch": "Training epochs",
    "fit": "Training, outside its epochs",
    "validation": "Validation",
    "probe": "Probes of new data",
    "calibration": "Calibration",
    "baseline": "Baseline retrainings",
    "update": "Updates, outside their training",
    "checkpoint": "Checkpoints",
    "sanity_check": "Sanity check",
    "measure": "Measured blocks and commands",
    "idle": "Idle",
}
METHOD_WORDS = {
    "counter": "hardware energy counter",
    "sampled": "power, sampled and integrated",
    "estimated": "estimated by a model",
    "given": "given, not measured",
}


def render_html(report: Report) -> str:
    """Render the report document as one self-contained page.

    Args:
        report: The document of :func:`greentrain.report.build`.

    Returns:
        The page, with its styles and charts and without scripts. A policy in its head forbids
        every request.
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
    charts = {place: [Markup(one) for one in plotted] for place, plotted in _charts(report).items()}
    page = environment.get_template("report.html.j2").render(
        report=report, charts=charts, **_view(report)
    )
    return page if page.endswith("\n") else page + "\n"


def _view(report: Report) -> dict[str, Any]:
    """Compute the values that the page shows and the document does not hold."""
    budgets, experiences, runs = report["budgets"], report["experiences"], report["runs"]
    modes = report["summary"]["update_modes"]
    total_j = report["totals"]["energy_j"]
    return {
        "claim": str(claim(report)),
        "heading": _heading(runs),
        "lead": _lead(report),
        "modes": [
            {
                "name": mode,
                "words": MODE_WORDS.get(mode, mode),
                "count": count,
                "colour": MODE_COLOURS.get(mode, "var(--soft)"),
            }
            for mode, count in _in_order(modes).items()
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
        "not_completed": _not_completed(runs),
        "earlier_runs": runs[-MOST_RUNS:-UNFOLDED],
        "shown_runs": runs[-UNFOLDED:],
        "hidden_runs": max(0, len(runs) - MOST_RUNS),
        "most_charts": MOST_CHARTS,
    }


def _in_order(modes: Mapping[str, int]) -> dict[str, int]:
    """Return counts of modes in the order of the modes, and unknown ones after them."""
    return {mode: modes[mode] for mode in [*UPDATE_MODES, *sorted(modes)] if mode in modes}


def _charts(report: Report) -> dict[str, list[str]]:
    latest = report["experiences"][-MOST_EXPERIENCES:]
    by_metric = grouped(
        (one for one in latest if one["metric"] is not None and one["metric_after"] is not None),
        lambda one: str(one["metric"]),
    )
    paid = [one for one in report["budgets"] if one["spending"]]
    main = [one for one in paid if one["pays_for_updates"]] or paid
    sources = [one for one in report["totals"]["sources"] if one["energy_j"]]
    hours = [one for one in report.get("hourly", []) if one["carbon_g"] is not None]
    fits = {run["run_id"]: run["name"] for run in report["runs"] if run["kind"] != "stream"}
    epochs = [
        (fits[run_id], held[-MOST_EXPERIENCES:])
        for run_id, held in epoch_energies(report["windows"]).items()
        if run_id in fits
    ]
    return {
        "energy": [energy_chart(latest)] if latest else [],
        "epochs": [epoch_chart(held, name) for name, held in epochs[-MOST_CHARTS:]],
        "sources": [source_chart(sources)] if sources else [],
        "intensity": [intensity_chart(hours)] if any(one["energy_j"] for one in hours) else [],
        "spending": [spending_chart(budget) for budget in main[:MOST_CHARTS]],
        "metric": [
            metric_chart(held, name) for name, held in list(by_metric.items())[:MOST_CHARTS]
        ],
    }


def _not_completed(runs: Sequence[RunFigures]) -> list[dict[str, Any]]:
    """Sum up the runs that were not completed, by their status; their energy counts."""
    ended = grouped(
        (run for run in runs if run["status"] != "completed"), lambda run: run["status"]
    )
    return [
        {
            "words": ENDINGS.get(status, status),
            "count": len(held),
            "energy_j": total(run["energy_j"] for run in held),
            "names": [run["name"] for run in held],
        }
        for status, held in ended.items()
    ]


def _heading(runs: Sequence[RunFigures]) -> str:
    names = list(dict.fromkeys(run["name"] for run in runs))
    if not names:
        return "Nothing recorded yet"
    return short(names[0], 80) if len(names) == 1 else f"{len(runs)} runs"


def _lead(report: Report) -> str:
    """Summarise the page in one or two sentences."""
    summary, totals, budgets = report["summary"], report["totals"], report["budgets"]
    if not report["runs"]:
        return "The ledger holds no run, so there is no figure to report."
    if totals["energy_j"] is None:
        used = "No energy was measured, so the energy used is unknown"
    else:
        used = f"{'' if totals['complete'] else 'At least '}{energy(totals['energy_j'])} used"
    if summary["experiences"]:
        used += f" over {plural(summary['experiences'], 'experience')}"
    if not budgets:
        return f"{used}. No budget was set."
    broken = [budget["name"] for budget in budgets if not budget["kept"]]
    if broken:
        return f"{used}. Not kept: the budget {', '.join(short(name) for name in broken[:3])}."
    return f"{used}. {'The budget was' if len(budgets) == 1 else 'Every budget was'} kept."
