"""Render the report as one HTML page that loads nothing from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from greentrain.control import UPDATE_MODES
from greentrain.report.document import ExperienceEntry, Report, RunFigures
from greentrain.report.equivalents import equivalents_words
from greentrain.report.experiences import ENDINGS, settings_of
from greentrain.report.exports.claim import claim
from greentrain.report.formats import FILTERS, energy, inert, short
from greentrain.report.pareto_chart import pareto_charts
from greentrain.report.row_helpers import grouped, pue, total
from greentrain.report.svg import (
    BASELINE_COLOUR,
    MODE_COLOURS,
    energy_chart,
    epoch_chart,
    intensity_chart,
    metric_chart,
    source_chart,
    spending_chart,
)
from greentrain.report.trials import trials
from greentrain.report.uses import USES, with_baselines
from greentrain.report.window_list import epoch_energies
from greentrain.units import format_number, plural

if TYPE_CHECKING:
    from jinja2 import Environment

MOST_EXPERIENCES = 200
MOST_RUNS = 60
MOST_CHARTS = 6
MOST_METRICS = 8
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
    "waiting": "Waiting for cleaner electricity",
    "pausing": "Saving before a pause",
    "resuming": "Starting again after a pause",
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


NOT_WORSE = "in the comparison, the new model was not worse by more than its error"
"""The rule by which an update is kept, as a page states it."""


def render_html(report: Report, *, paper: bool = False) -> str:
    """Render the report document as one self-contained page.

    Args:
        report: The document of :func:`greentrain.report.build`.
        paper: Whether the page is printed. Then the budgets follow the summary, each decision is a
            row of a table, and nothing is folded.

    Returns:
        The page, with its styles and charts and without scripts. A policy in its head forbids
        every request.
    """
    from markupsafe import Markup

    plots = {
        place: [(name, Markup(one)) for name, one in plotted]
        for place, plotted in charts(report).items()
    }
    page = (
        environment()
        .get_template("report.html.j2")
        .render(report=report, charts=plots, paper=paper, **_view(report))
    )
    return page if page.endswith("\n") else page + "\n"


def environment() -> Environment:
    """Return an environment of the pages' templates, which escapes all values."""
    # Imported here, so that the command line starts without it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("greentrain.report"),
        autoescape=True,
        finalize=inert,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    return made


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
        "baseline_colour": BASELINE_COLOUR,
        "kept_why": partial(_kept_why, modes=_modes(runs)),
        "overruns": sum(len(budget["overruns"]) for budget in budgets),
        "use_words": USES,
        "use_shares": {
            one["use"]: one["energy_j"] / total_j if total_j else 0.0
            for one in report["summary"]["by_use"]
        },
        "factor_words": _factor_words(report),
        "equivalents_words": equivalents_words,
        "mode_words": MODE_WORDS,
        "phase_words": PHASE_WORDS,
        "method_words": METHOD_WORDS,
        "phase_shares": {
            one["phase"]: (one["energy_j"] or 0.0) / total_j if total_j else 0.0
            for one in report["totals"]["by_phase"]
        },
        "budget_kept": all(budget["kept"] for budget in budgets) if budgets else None,
        "main_budgets": [one for one in budgets if one["pays_for_updates"]] or budgets,
        "streams": {run["name"] for run in runs},
        "names": {run["run_id"]: run["name"] for run in runs},
        "earlier_experiences": experiences[-MOST_EXPERIENCES:-UNFOLDED],
        "experiences": experiences[-UNFOLDED:],
        "hidden_experiences": max(0, len(experiences) - MOST_EXPERIENCES),
        "not_completed": _not_completed(runs),
        "earlier_runs": runs[-MOST_RUNS:-UNFOLDED],
        "shown_runs": runs[-UNFOLDED:],
        "hidden_runs": max(0, len(runs) - MOST_RUNS),
        "most_charts": MOST_CHARTS,
        "most_metrics": MOST_METRICS,
        "trial_names": {one["run_ids"][0]: one["name"] for one in trials(report)},
    }


def _in_order(modes: Mapping[str, int]) -> dict[str, int]:
    """Return counts of modes in the order of the modes, and unknown ones after them."""
    return {mode: modes[mode] for mode in [*UPDATE_MODES, *sorted(modes)] if mode in modes}


def charts(report: Report) -> dict[str, list[tuple[str, str]]]:
    """Return the charts of each place as SVG, each with the name of what it shows."""
    names = {run["run_id"]: run["name"] for run in report["runs"]}
    latest = with_baselines(
        report["experiences"][-MOST_EXPERIENCES:], report["baseline_retrainings"]
    )
    by_stream = grouped(latest, lambda one: names.get(one["run_id"], one["run_id"]))
    by_metric = grouped(
        (one for one in latest if one["metric"] is not None and one["metric_after"] is not None),
        lambda one: (names.get(one["run_id"], one["run_id"]), str(one["metric"])),
    )
    paid = [one for one in report["budgets"] if one["spending"]]
    main = [one for one in paid if one["pays_for_updates"]] or paid
    sources = [one for one in report["totals"]["sources"] if one["energy_j"]]
    fits = {run["run_id"]: run["name"] for run in report["runs"] if run["kind"] != "stream"}
    epochs = [
        (fits[run_id], held[-MOST_EXPERIENCES:])
        for run_id, held in epoch_energies(report["windows"]).items()
        if run_id in fits
    ]
    return {
        "energy": [
            (name, energy_chart(held, name)) for name, held in list(by_stream.items())[:MOST_CHARTS]
        ],
        "epochs": [(name, epoch_chart(held, name)) for name, held in epochs[-MOST_CHARTS:]],
        "sources": [("", source_chart(sources))] if sources else [],
        "intensity": _intensity(report),
        "spending": [(budget["name"], spending_chart(budget)) for budget in main[:MOST_CHARTS]],
        "metric": [
            (name, metric_chart(held, metric, name))
            for (name, metric), held in list(by_metric.items())[:MOST_CHARTS]
        ],
        "pareto": pareto_charts(trials(report))[:MOST_CHARTS],
    }


def _intensity(report: Report) -> list[tuple[str, str]]:
    """Return a chart of the grid's intensity, if it is known by the hour.

    One factor for a whole year is no series. The grams include the PUE, which is divided out. So
    there is no chart of runs with different ones.
    """
    hours = [one for one in report["hourly"] if one["carbon_g"] is not None and one["energy_j"]]
    known = [one["intensity"] for one in report["carbon"]["intensities"] if one["intensity"]]
    pues = {pue(run) or 1.0 for run in report["runs"] if run["energy_j"]}
    # Restated factors are mostly constants, too.
    if (
        report["restated"]
        or not hours
        or len(pues) != 1
        or all(one["data_year"] is not None for one in known)
    ):
        return []
    return [("", intensity_chart(hours, pues.pop()))]


def _kept_why(one: ExperienceEntry, modes: Mapping[str, str]) -> str | None:
    """Explain why a model was kept although its metric got worse; ``None`` otherwise."""
    before, after = one["metric_before"], one["metric_after"]
    sign = {"max": 1.0, "min": -1.0}.get(modes.get(one["run_id"], ""))
    if not (one["kept"] and one["steps"]) or before is None or after is None or sign is None:
        return None
    if sign * (after - before) >= 0:
        return None
    way = "fell" if after < before else "rose"
    by = format_number(abs(after - before), 2)
    return f"kept although {short(str(one['metric']), 24)} {way} by {by}: {NOT_WORSE}"


def _modes(runs: Sequence[RunFigures]) -> dict[str, str]:
    """Return whether more or less of the metric is better, by run id, where it is recorded."""
    return {run["run_id"]: str(settings_of(run["environment"]).get("mode")) for run in runs}


def _factor_words(report: Report) -> list[str]:
    """Name each intensity that is one factor for a whole year."""
    found = [one["intensity"] for one in report["carbon"]["intensities"] if one["intensity"]]
    return [
        f"{short(str(one['zone']), 40)}, one factor for all of {one['data_year']}"
        for one in found
        if one["data_year"] is not None
    ]


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
        part = "" if totals["complete"] else " in the measured part"
        used = f"{energy(totals['energy_j'])} used{part}"
    if summary["experiences"]:
        used += f" over {plural(summary['experiences'], 'experience')}"
        others = sum(run["kind"] != "stream" for run in report["runs"])
        used += f" and by {plural(others, 'run')} without decisions" if others else ""
    if not budgets:
        return f"{used}. No budget was set."
    broken = [budget["name"] for budget in budgets if not budget["kept"]]
    if broken:
        return f"{used}. Not kept: the budget {', '.join(short(name) for name in broken[:3])}."
    return f"{used}. {'The budget was' if len(budgets) == 1 else 'Every budget was'} kept."
