"""The ``greentrain explain`` command."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greentrain.cli import console
from greentrain.units import energy_unit, format_energy

if TYPE_CHECKING:
    from rich.table import Table

    from greentrain.cli.explained_decisions import ExplainedExperience


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else str(value)


def _count(value: Any) -> str:
    return str(len(value)) if isinstance(value, list | tuple) else str(value)


def _tables(value: Any) -> str:
    return f"{len(value['tables'])} tables"


_INDENT = 4 * " "

STATE_FIELDS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "position": ("experiences before it", str),
    "num_experiences": ("experiences that the budget has to last for", str),
    "has_model": ("a trained model exists", lambda value: "yes" if value else "no"),
    "metric_before": ("metric on held-out data of all experiences, with this one", _number),
    "metric_past": ("metric on held-out data of earlier experiences", _number),
    "metric_new": ("metric on its new data, before training on them", _number),
    "metric_new_sd": ("standard error of the metric on its new data", _number),
    "estimated_by": ("metric on its new data estimated without labels, by", str),
    "metric_last": ("metric after the last update", _number),
    "metric_best": ("metric after the best update", _number),
    "metric_ceiling": ("best possible metric", _number),
    "loss_new": ("loss on its new data", _number),
    "loss_past": ("loss on held-out data of earlier experiences", _number),
    "n_new": ("new samples, with those of skipped experiences", str),
    "n_labels": ("new samples that had a label at the decision", str),
    "n_pending": ("samples of skipped experiences", str),
    "n_stored": ("stored samples that an update has seen", str),
    "unseen": ("share of new samples of new classes", _share),
    "copies": ("share of new samples that are copies of earlier ones", _share),
    "effort": ("steps since the last full retraining, of those of one now", _share),
    "last_share": ("steps of the last update, of those of a full retraining now", _share),
    "shift": ("distance of the new data from the old", _number),
    "shift_by": ("measure of that distance", lambda value: value or "not measured"),
    "weight_growth": ("growth of the weights' norm since the last full retraining", _share),
    "slope": ("change of the training loss in the last tenth of the last update", _number),
    "warm_starts": ("updates since the last full retraining", str),
    "since_update": ("experiences since the last update", str),
    "since_full": ("experiences since the last full retraining", str),
    "left_j": ("budget left for it and later experiences", format_energy),
    "history": ("earlier decisions in the state", _count),
    "forecast": ("expected options of later experiences (--json shows them)", _tables),
}
"""Label and format of each field of a recorded state. Metrics are oriented: more is better."""


def explain(
    ledger: console.FoundLedgerOption = None,
    stream: Annotated[
        str | None,
        typer.Option(
            help="Name of the stream.", metavar="NAME", show_default="that of the newest run"
        ),
    ] = None,
    experience: Annotated[
        str | None,
        typer.Option(
            help="Everything about one experience.", metavar="ID", show_default="a line for each"
        ),
    ] = None,
    as_json: console.JsonOption = False,
) -> None:
    """Show the decision about each experience, its reason and its outcome."""
    from greentrain.cli.explained_decisions import explained_decisions
    from greentrain.ledger import Ledger, newest_ledger

    if ledger is None:
        ledger = newest_ledger(Path())
        console.print_line(f"reading {ledger}", err=True)
    opened = Ledger(ledger, create=False)
    try:
        name, found = explained_decisions(opened, stream, experience)
    finally:
        opened.close()
    if as_json:
        console.print_json(found)
        return
    if experience is None:
        for line in _overview(name, found):
            console.print_line(line)
        last = found[-1]["experience_id"]
        console.print_next("explain", "--ledger", ledger, "--stream", name, "--experience", last)
        return
    terminal = console.open_console()
    for one in found:
        terminal.print()
        for line in _headline(one):
            console.print_line(line)
        terminal.print()
        for table in (_state(one), _options(one), _outcome(one)):
            terminal.print(table)
    console.print_next("report", "--ledger", ledger)


def _overview(name: str, found: Sequence[ExplainedExperience]) -> Iterator[str]:
    """Give a line with the figures of each experience, and below it the reason."""
    unit = energy_unit(one[key] for one in found for key in ("predicted_j", "energy_j"))
    yield f"Decisions about {name}"
    yield "(used: the experience, probe and calibration included; pred.: the update alone)"
    yield _columns("#", "experience", "action", "pred.", "used", "pred. gain", "gain")
    for one in found:
        line = _columns(
            str(one["position"]),
            one["experience_id"],
            _action(one),
            format_energy(one["predicted_j"], unit),
            _used(one, unit),
            _signed(one["predicted_gain"]),
            _signed(one["gain"]),
        )
        yield f"{line}{_remark(one)}"
        reason = f"{one['reason']}: {one['sentence']}"
        yield from textwrap.wrap(reason, 80, initial_indent=_INDENT, subsequent_indent=_INDENT)


def _columns(
    position: str, name: str, action: str, predicted: str, used: str, expected: str, gain: str
) -> str:
    return (
        f"{position:>2}  {name:<13} {action:<20} {predicted:>8}  {used:>8}  {expected:>10}  "
        f"{gain:>7}"
    )


def _headline(one: ExplainedExperience) -> tuple[str, str]:
    decided = "decided in shadow mode" if one["shadow"] else "decided"
    return (
        f"{one['experience_id']}, number {one['position']}, {decided} at "
        f"{one['decided_utc'][:19].replace('T', ' ')} UTC: {_action(one)}",
        f"{one['reason']}: {one['sentence']}",
    )


def _state(one: ExplainedExperience) -> Table:
    table = console.new_table("State before the decision", "what", "value")
    if not one["state"]:
        console.add_row(table, "nothing", "the budget did not even pay for a probe")
    known = [key for key in STATE_FIELDS if key in one["state"]]
    for key in [*known, *(key for key in one["state"] if key not in STATE_FIELDS)]:
        label, shown = STATE_FIELDS.get(key, (key.replace("_", " "), str))
        value = one["state"][key]
        console.add_row(table, label, "unknown" if value is None else shown(value))
    return table


def _options(one: ExplainedExperience) -> Table:
    from greentrain.cli.explained_decisions import chosen_option

    right = ("steps", "predicted", "at most", "gain", "net gain")
    table = console.new_table("Options", "update", *right, "why not", right=right)
    min_gain_per_j, chosen = one["min_gain_per_j"], chosen_option(one)
    if not one["alternatives"]:
        console.add_row(
            table, _action(one), *("unknown" for _ in right), "no other option was compared"
        )
    unit = energy_unit(
        option.get(key)
        for option in one["alternatives"]
        for key in ("predicted_j", "upper_bound_j")
    )
    for option in one["alternatives"]:
        gain, cost_j = option.get("predicted_gain"), option.get("predicted_j")
        net = "no minimum"
        if min_gain_per_j is not None:
            net_gain = None if gain is None or cost_j is None else gain - min_gain_per_j * cost_j
            net = _signed(net_gain)
        console.add_row(
            table,
            _action(option),
            str(option.get("steps", "unknown")),
            format_energy(cost_j, unit),
            format_energy(option.get("upper_bound_j"), unit),
            _interval(gain, option.get("gain_sd")),
            net,
            "chosen" if option is chosen else option.get("why_lost") or "was not compared",
        )
    return table


def _outcome(one: ExplainedExperience) -> Table:
    table = console.new_table("Outcome", "what", "value")
    for label, text in _outcome_lines(one):
        console.add_row(table, label, text)
    return table


def _outcome_lines(one: ExplainedExperience) -> Iterator[tuple[str, str]]:
    if one["status"] != "done":
        yield "status", f"interrupted: {one['interruption']}"
        yield "used by the update alone", _used(one)
        return
    if one["shadow"]:
        yield "this decision", "in shadow mode: nothing was reserved or trained for it"
        if one["steps"]:
            yield "the other job", f"trained {one['steps']} steps"
            yield "energy that it reported", format_energy(one["reported_energy_j"])
        else:
            yield "the other job", "trained nothing, or reported nothing"
    elif one["update_mode"] != "SKIP":
        kept = {True: "yes", False: "no: the model before stays in use"}
        yield "kept", "unknown" if one["kept"] is None else kept[one["kept"]]
        yield "steps", f"{one['steps']} of {one['planned_steps']} planned"
        yield "used by the update alone", _compared(one["update_energy_j"], one["predicted_j"])
        yield "reserved for it", format_energy(one["upper_bound_j"])
        if one["overrun_j"]:
            yield "used beyond the reservation", format_energy(one["overrun_j"])
    if not one["shadow"]:
        yield "used, probe and calibration included", format_energy(one["energy_j"])
    metric = one["metric"] or "metric"
    yield f"{metric} before", _figure(one["metric_before"])
    yield f"{metric} after", _figure(one["metric_after"])
    yield "gain", f"{_signed(one['gain'])}, {_signed(one['predicted_gain'])} predicted"
    yield "budget left", format_energy(one["budget_left_after_j"])


def _remark(one: ExplainedExperience) -> str:
    if one["shadow"]:
        return "  (shadow mode)"
    return "  (not kept)" if one["kept"] is False else ""


def _action(one: Mapping[str, Any]) -> str:
    fraction = one.get("step_fraction")
    part = "" if fraction is None or fraction in (0, 1) else f" at {100 * fraction:.3g}%"
    method = f" with {one['method']}" if one.get("method") else ""
    return f"{one['update_mode']}{method}{part}"


def _used(one: ExplainedExperience, unit: str | None = None) -> str:
    if one["status"] != "done":
        return f"{format_energy(one['energy_j'], unit)} so far"
    return "probes only" if one["shadow"] else format_energy(one["energy_j"], unit)


def _compared(used_j: float | None, predicted_j: float | None) -> str:
    off = f" ({used_j / predicted_j - 1:+.1%})" if used_j and predicted_j else ""
    return f"{format_energy(used_j)}, {format_energy(predicted_j)} predicted{off}"


def _interval(mean: float | None, sd: float | None) -> str:
    if mean is None or sd is None:
        return _signed(mean)
    return f"{mean:+.3f} ({mean - 2 * sd:+.3f} to {mean + 2 * sd:+.3f})"


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
