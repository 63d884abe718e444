"""Render the overview as one HTML page that loads nothing from outside."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from greentrain.report.burn_down_chart import burn_down_chart
from greentrain.report.formats import FILTERS, avoided, short, signed, signed_energy
from greentrain.report.groups import GroupFigures
from greentrain.report.html import MOST_CHARTS, environment
from greentrain.report.overview import OVERVIEW_MARK, BudgetState, OtherRow, Overview, StreamRow
from greentrain.report.pareto_chart import pareto_charts
from greentrain.report.trials import Trial, distinct
from greentrain.units import carbon_unit, energy_unit, format_carbon, format_energy, plural

MOST_STREAMS = 200
"""Streams that the page shows; ``overview.json`` has all."""


def render_overview(document: Overview) -> str:
    """Render the overview as one self-contained page, without scripts.

    Args:
        document: The document of :func:`greentrain.report.overview.overview`.
    """
    from markupsafe import Markup

    templates = environment()
    templates.filters.update(
        {
            "avoided": avoided_words,
            "best": best_words,
            "changed": change_words,
            "emitted": emission_words,
            "forecast": forecast_words,
            "left": left_words,
            "reserved": reserved_words,
            "metric_words": metric_words,
            "used": energy_words,
            "going": _going,
        }
    )
    shown = document["streams"][:MOST_STREAMS]
    charts = {
        number: Markup(burn_down_chart(one["budget"], one["burn_down"]))
        for number, one in enumerate(shown)
        if one["budget"] is not None and one["burn_down"]
    }
    page = templates.get_template("overview.html.j2").render(
        overview=document,
        streams=shown,
        hidden=len(document["streams"]) - len(shown),
        charts=charts,
        pareto=[
            (name, Markup(one)) for name, one in pareto_charts(_trials(document))[:MOST_CHARTS]
        ],
        lead=_lead(document),
        mark=OVERVIEW_MARK,
        several=len(document["ledgers"]) > 1,
        units_of=units_of,
    )
    return page if page.endswith("\n") else page + "\n"


def _trials(document: Overview) -> list[Trial]:
    rows = [*document["streams"][:MOST_STREAMS], *document["others"]]
    return distinct([trial for row in rows for trial in row["trials"]])


def energy_words(row: GroupFigures, unit: str | None = None) -> str:
    """Write the energy of a group, and whether it is of the measured part alone."""
    if row["energy_j"] is None:
        return "none" if not row["runs"] else "unknown"
    return format_energy(row["energy_j"], unit) + ("" if row["complete"] else " (measured part)")


def emission_words(row: GroupFigures, unit: str | None = None) -> str:
    """Write the grams of a group, and whether they are of a part of the energy or of two bases."""
    if row["emissions_g"] is None:
        return "none" if not row["runs"] else "unknown"
    words = format_carbon(row["emissions_g"], unit)
    words += "" if row["emissions_complete"] else " of a part"
    return words + (f" of different bases ({', '.join(row['bases'])})" if row["bases"][1:] else "")


def units_of(rows: Sequence[GroupFigures]) -> tuple[str, str, str]:
    """Return the units of three columns: energy, emissions and avoided energy."""
    saved = [row[key] for row in rows for key in ("avoided_each_j", "avoided_j")]
    return (
        energy_unit([row["energy_j"] for row in rows]),
        carbon_unit([row["emissions_g"] or 0.0 for row in rows]),
        energy_unit(saved),
    )


def avoided_words(row: GroupFigures, unit: str | None = None) -> str:
    """Write the avoided energy, the measured one first."""
    words, write = [], partial(format_energy, unit=unit)
    if row["avoided_each_j"] is not None:
        times = plural(row["baseline_retrainings"], "baseline retraining")
        each = avoided(row["avoided_each_j"], write)
        words.append(f"{each} at each of {times}, measured")
    if row["avoided_j"] is not None:
        words.append(f"{avoided(row['avoided_j'], write)} in all, modelled")
    return "; ".join(words) or "none claimed"


def best_words(row: OtherRow) -> str:
    """Write the best metric of fits, if they are all compared by one metric."""
    trials = row["trials"]
    if len({(one["metric"], one["mode"]) for one in trials}) != 1:
        return "" if not trials else "several"
    best = min if trials[0]["mode"] == "min" else max
    value = FILTERS["metric"](best(one["value"] for one in trials))
    return f"{value} {short(trials[0]['metric'], 24)}"


def metric_words(row: StreamRow) -> str:
    """Write the metric of a stream, from the first to the last experience."""
    if row["metric"] is None or row["final_metric"] is None:
        return "unknown"
    first, last = row["first_metric"], row["final_metric"]
    start = "" if first is None else f"{FILTERS['metric'](first)} to "
    change = "" if first is None else f" ({signed(last - first)})"
    return f"{start}{FILTERS['metric'](last)}{change} {short(row['metric'], 24)}"


def left_words(budget: BudgetState | None) -> str:
    """Write the amount left of a budget, in the unit of its whole amount."""
    if budget is None:
        return "no budget"
    left = _amount(budget, budget["left_j"], budget["left_g"])
    return f"{left.partition(' ')[0]} of {_amount(budget, budget['total_j'], budget['total_g'])}"


def reserved_words(budget: BudgetState) -> str:
    """Write the amount reserved from a budget, in the unit of its whole amount."""
    return _amount(budget, budget["reserved_j"], budget["reserved_g"])


def forecast_words(budget: BudgetState | None) -> str:
    """Write what a budget is expected to have left after its last experience."""
    if budget is None:
        return "no budget"
    ahead = budget["forecast"]
    left = ahead["left_g"] if budget["unit"] == "g" else ahead["left_j"]
    if left is None:
        return "none"
    words = _amount(budget, abs(left), abs(left))
    if ahead["done"] >= ahead["planned"]:
        return f"{words} left, all done"
    return f"{words} {'left' if left >= 0 else 'short'}"


def _amount(budget: BudgetState, amount_j: float | None, amount_g: float | None) -> str:
    """Write an amount of a budget in the unit of its whole amount: budgets differ a lot."""
    if budget["unit"] == "g":
        return format_carbon(amount_g, carbon_unit([budget["total_g"] or 0.0]))
    return format_energy(amount_j, energy_unit([budget["total_j"]]))


def change_words(row: StreamRow) -> str:
    """Write the differences of a stream to the earlier report."""
    change = row["change"]
    if change is None:
        return "nothing to compare with"
    if change["new"]:
        return "new stream"
    words = []
    if change["experiences"]:
        words.append(f"{change['experiences']:+d} {_experiences(change['experiences'])}")
    if change["energy_j"]:
        words.append(f"{signed_energy(change['energy_j'])} used")
    if change["metric"]:
        words.append(f"{short(str(row['metric']), 24)} {signed(change['metric'])}")
    if change["left_j"]:
        words.append(f"budget {signed_energy(change['left_j'])}")
    known = any(value is not None for key, value in change.items() if key != "new")
    return ", ".join(words) or ("no change" if known else "unknown")


def _experiences(count: int) -> str:
    return plural(abs(count), "experience").partition(" ")[2]


def _going(row: StreamRow) -> str:
    """Return ``"better"``, ``"worse"`` or an empty text for the metric over the period."""
    first, last = row["first_metric"], row["final_metric"]
    sign = {"max": 1.0, "min": -1.0}.get(str(row["mode"]))
    if first is None or last is None or sign is None or first == last:
        return ""
    return "better" if sign * (last - first) > 0 else "worse"


def _lead(document: Overview) -> str:
    streams, total = document["streams"], document["total"]
    if not total["runs"]:
        return "The ledgers hold no run of this scope, so there is no figure to show."
    if not streams:
        return f"{energy_words(total)} used by {plural(total['runs'], 'run')}, and no stream yet."
    to_do = sum(len(one["actions"]) for one in streams)
    words = f"{energy_words(total)} used over {plural(total['experiences'], 'experience')}"
    others = sum(row["runs"] for row in document["others"])
    words += f" and by {plural(others, 'run')} without decisions. " if others else ". "
    broken = [one for one in streams if one["budget"] is not None and not one["budget"]["kept"]]
    words += f"{plural(len(broken), 'stream')} did not keep the budget. " if broken else ""
    short_of = [
        one
        for one in streams
        if one["budget"] is not None
        and one["budget"]["forecast"]["lasts"] is not None
        and one["budget"]["forecast"]["lasts"]
        < one["budget"]["forecast"]["planned"] - one["budget"]["forecast"]["done"]
    ]
    if short_of:
        words += f"The budget of {plural(len(short_of), 'stream')} will not last. "
    return words + (f"{plural(to_do, 'action')} to take." if to_do else "Nothing to do.")
