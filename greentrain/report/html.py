"""The report as one HTML page that asks for nothing outside itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from greentrain.report.svg import MODE_COLOURS, energy_chart, metric_chart, spending_chart
from greentrain.report.text import shown
from greentrain.units import format_carbon, format_energy

MOST_EXPERIENCES = 200
MOST_RUNS = 60
MOST_CHARTS = 6

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
        finalize=_inert,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        amount=_amount,
        energy=format_energy,
        gain=_gain,
        grams=_grams,
        metric=_metric,
        moment=_moment,
        percent=_percent,
        power=_power,
        seconds=_seconds,
        share=_share,
        sentence=_sentence,
        short=_short,
    )
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
        "experiences": experiences[-MOST_EXPERIENCES:],
        "hidden_experiences": max(0, len(experiences) - MOST_EXPERIENCES),
        "shown_runs": runs[-MOST_RUNS:],
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
    return {
        "energy": [energy_chart(latest)] if latest else [],
        "spending": [spending_chart(budget) for budget in main[:MOST_CHARTS]],
        "metric": [
            metric_chart(of_it, name) for name, of_it in list(by_metric.items())[:MOST_CHARTS]
        ],
    }


def _heading(runs: Sequence[Mapping[str, Any]]) -> str:
    names = list(dict.fromkeys(run["name"] for run in runs))
    if not names:
        return "Nothing recorded yet"
    return _short(names[0], 80) if len(names) == 1 else f"{len(runs)} runs"


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
        return f"{used}. Not kept: the budget {', '.join(_short(name) for name in broken[:3])}."
    return f"{used}. {'The budget was' if len(budgets) == 1 else 'Every budget was'} kept."


def _inert(value: Any) -> Any:
    """Spell out the invisible in every text that reaches the page, charts and markup excepted."""
    return value if hasattr(value, "__html__") or not isinstance(value, str) else shown(value)


def _amount(row: Mapping[str, Any], name: str) -> str:
    """Write an amount of a budget or of a payment in the unit of its budget."""
    carbon_g = row[f"{name}_g"]
    return format_energy(row[f"{name}_j"]) if carbon_g is None else format_carbon(carbon_g)


def _share(budget: Mapping[str, Any], name: str) -> float:
    key = "g" if budget["unit"] == "g" else "j"
    return float(budget[f"{name}_{key}"] / budget[f"total_{key}"])


def _metric(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"


def _gain(option: Mapping[str, Any]) -> str:
    gain, sd = option["predicted_gain"], option["gain_sd"]
    if gain is None:
        return "unknown"
    return f"{gain:+.3f}" if sd is None else f"{gain:+.3f} ± {sd:.3f}"


def _grams(grams: float | None) -> str:
    return "unknown" if grams is None else f"{grams:.3g} g"


def _moment(utc: str | None) -> str:
    if utc is None:
        return "unknown"
    return datetime.fromisoformat(utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.3g} %"


def _power(power_w: float | None) -> str:
    return "unknown" if power_w is None else f"{power_w:.3g} W"


def _seconds(duration_s: float) -> str:
    if duration_s < 120:
        return f"{duration_s:.3g} s"
    return f"{duration_s / 60:.3g} min" if duration_s < 7200 else f"{duration_s / 3600:.3g} h"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _short(text: str, limit: int = 60) -> str:
    return shown(text, limit)
