"""``greentrain explain``: what was decided about each experience, why, and what came of it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer

from greentrain.cli.ledger_commands import _add, _table
from greentrain.errors import ConfigurationError
from greentrain.units import format_energy

if TYPE_CHECKING:
    from rich.table import Table

    from greentrain.ledger import Ledger

Row = Mapping[str, Any]
_KINDS = ("run", "decision", "outcome", "settlement", "reservation", "budget", "closing")
_NAMED = 5
"""How many other names an error lists."""


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _share(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else str(value)


def _count(value: Any) -> str:
    return str(len(value)) if isinstance(value, list | tuple) else str(value)


WORDS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "position": ("experiences before it", str),
    "num_experiences": ("experiences that the budget has to last for", str),
    "has_model": ("is there a trained model", lambda value: "yes" if value else "no"),
    "metric_before": ("metric on what is held out of all experiences, this one too", _number),
    "metric_past": ("metric on what is held out of the earlier ones", _number),
    "metric_new": ("metric on its new data, before training on them", _number),
    "metric_new_sd": ("standard error of that", _number),
    "metric_last": ("metric that the last update reached", _number),
    "metric_best": ("metric that the best update reached", _number),
    "metric_ceiling": ("metric that can be reached at all", _number),
    "loss_new": ("loss on its new data", _number),
    "loss_past": ("loss on what is held out of the earlier ones", _number),
    "n_new": ("new samples, those of skipped experiences included", str),
    "n_pending": ("those of skipped experiences", str),
    "n_stored": ("stored samples that an update has seen", str),
    "unseen": ("share of new samples of classes never seen", _share),
    "shift": ("how far the new data lie from the old", _number),
    "shift_by": ("which is", lambda value: value or "not measured"),
    "weight_growth": ("growth of the weights' norm since the last full retraining", _share),
    "slope": ("what the training loss moved in the last tenth of the last update", _number),
    "warm_starts": ("updates since the last full retraining", str),
    "since_update": ("experiences since the last update", str),
    "since_full": ("experiences since the last full retraining", str),
    "left_j": ("left to spend, on it and those to come", format_energy),
    "history": ("earlier decisions that the policy was told", _count),
}
"""What each field of a recorded state is called, and how it is shown. Metrics: more is better."""


def explain(url: str, *, stream: str | None, experience: str | None, as_json: bool) -> None:
    """Show the decisions of a stream, or everything about those of one experience.

    Args:
        url: URL of the ledger.
        stream: Name of the stream; that of the newest run with a decision unless given.
        experience: Name of the experience; a table of all unless given.
        as_json: Whether to print JSON.

    Raises:
        ConfigurationError: If there is no ledger, or it knows no such stream or experience.
    """
    from greentrain.ledger import Ledger

    ledger = Ledger(url, create=False)
    try:
        name, found = decisions(ledger, stream)
    finally:
        ledger.close()
    if experience is not None:
        known = list(dict.fromkeys(str(one["experience_id"]) for one in found))
        found = [one for one in found if one["experience_id"] == experience]
        if not found:
            near = _nearest(experience, known)
            raise ConfigurationError(f"stream {name!r} knows no {experience!r}; {near}")
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=True))
        return
    from rich.text import Text

    from greentrain.cli.rich_tables import open_console

    console = open_console()
    if experience is None:
        console.print(_overview(name, found))
        return
    for one in found:
        console.print(Text(_headline(one)))
        for table in (_known(one), _alternatives(one), _outcome(one)):
            console.print(table)


def decisions(ledger: Ledger, stream: str | None = None) -> tuple[str, list[dict[str, Any]]]:
    """Return a stream's name and its decisions in order, each with what came of it.

    Args:
        ledger: The ledger.
        stream: The name; that of the newest run with a decision if ``None``.

    Raises:
        ConfigurationError: If nothing was decided, or not in a stream of this name.
    """
    from greentrain.report import experiences

    rows = {kind: ledger.rows(kind) for kind in _KINDS}
    decided = dict.fromkeys(row["run_id"] for row in rows["decision"])
    names = {row["run_id"]: str(row["name"]) for row in rows["run"] if row["run_id"] in decided}
    if not names:
        raise ConfigurationError(f"the ledger {ledger.store.name!r} holds no decision")
    name = list(names.values())[-1] if stream is None else stream
    if name not in names.values():
        streams = list(dict.fromkeys(names.values()))
        raise ConfigurationError(f"the ledger has no stream {name!r}; {_nearest(name, streams)}")
    rows["decision"] = [row for row in rows["decision"] if names.get(row["run_id"]) == name]
    statuses = {row["run_id"]: str(row["status"]) for row in rows["closing"]}
    windows = ledger.windows()
    measured = {row["reservation_id"] for row in windows}
    given_j = {
        row["reservation_id"]: row["actual_j"]
        for row in rows["settlement"]
        if row["reservation_id"] not in measured
    }
    entries = experiences.entries({**rows, "window": windows}, statuses)
    for entry, row in zip(entries, rows["decision"], strict=True):
        entry["alternatives"] = _parsed(row["alternatives"], [])
        entry["state"].pop("table_weights", None)  # of tables that are left out there
        entry["gain"] = _gain(entry)
        if entry["reservation_id"] in given_j:  # no meter saw it, and somebody said what it drew
            entry["update_energy_j"] = given_j[entry["reservation_id"]]
        entry["predicted_gain"] = _chosen(entry).get("predicted_gain")
    return name, entries


def _overview(name: str, found: Sequence[Row]) -> Table:
    right = ("predicted", "drawn", "gain predicted", "measured", "price per Wh")
    columns = ("experience", "update", *right, "reason")
    table = _table(f"What was decided about {name}", *columns, right=right)
    for one in found:
        _add(
            table,
            str(one["experience_id"]),
            _action(one) + _remark(one),
            format_energy(one["predicted_j"]),
            _drawn_here(one),
            _signed(one["predicted_gain"]),
            _signed(one["gain"]),
            _figure(one["price_per_wh"], unknown="none"),
            f"{one['reason']}: {one['sentence']}",
        )
    return table


def _headline(one: Row) -> str:
    decided = "advised" if one["advice"] else "decided"
    return (
        f"\n{one['experience_id']}, number {one['position']}, {decided} at "
        f"{str(one['decided_utc'])[:19].replace('T', ' ')} UTC: {_action(one)}\n"
        f"{one['reason']}: {one['sentence']}\n"
    )


def _known(one: Row) -> Table:
    table = _table("What was known", "what", "value")
    state: Row = one["state"]
    if not state:
        _add(table, "nothing", "not even a look at the data could be paid")
        return table
    for key, (words, shown) in WORDS.items():
        if key in state:
            _add(table, words, "unknown" if state[key] is None else shown(state[key]))
    for key, value in state.items():
        if key not in WORDS:
            _add(table, key.replace("_", " "), "unknown" if value is None else str(value))
    return table


def _alternatives(one: Row) -> Table:
    right = ("steps", "predicted", "at most", "gain", "net at the price")
    table = _table("What could be done", "update", *right, "why not", right=right)
    price_per_j, chosen = one["price_per_j"], _chosen(one)
    if not one["alternatives"]:
        _add(table, _action(one), *("unknown" for _ in right), "nothing else was weighed")
    for option in one["alternatives"]:
        gain, cost_j = option.get("predicted_gain"), option.get("predicted_j")
        net = "no price"
        if price_per_j is not None:
            known = gain is not None and cost_j is not None
            net = _signed(gain - price_per_j * cost_j if known else None)
        _add(
            table,
            _action(option),
            str(option.get("steps", "unknown")),
            format_energy(cost_j),
            format_energy(option.get("upper_bound_j")),
            _interval(gain, option.get("gain_sd")),
            net,
            "chosen" if option is chosen else option.get("why_lost") or "was not weighed",
        )
    return table


def _outcome(one: Row) -> Table:
    table = _table("What came of it", "what", "value")
    for words, text in _came(one):
        _add(table, words, text)
    return table


def _came(one: Row) -> Iterator[tuple[str, str]]:
    if one["status"] != "done":
        yield "status", f"interrupted: {one['interruption']}"
        yield "drawn", _drawn(one)
        return
    if one["advice"]:
        yield from _told(one)
    elif one["update_mode"] != "SKIP":
        kept = {True: "yes", False: "no: the model before stays in use"}
        yield "kept", kept.get(one["kept"], "unknown")
        yield "steps", f"{one['steps']} of {one['planned_steps']} planned"
        yield "drawn by the update", _against(one["update_energy_j"], one["predicted_j"])
        yield "reserved for it", format_energy(one["upper_bound_j"])
        if one["overrun_j"]:
            yield "drawn beyond that", format_energy(one["overrun_j"])
    if not one["advice"]:
        yield "drawn in all, looks included", format_energy(one["energy_j"])
    metric = str(one["metric"] or "metric")
    yield f"{metric} before", _figure(one["metric_before"])
    yield f"{metric} after", _figure(one["metric_after"])
    yield "gain", f"{_signed(one['gain'])}, {_signed(one['predicted_gain'])} predicted"
    yield "left of the budget", format_energy(one["budget_left_after_j"])


def _told(one: Row) -> Iterator[tuple[str, str]]:
    """Say what another job made of an experience on which this was advice."""
    yield "this decision", "is advice: nothing was reserved or trained for it"
    if not one["steps"]:
        yield "the other job", "trained nothing, or nobody said so"
        return
    yield "the other job", f"trained {one['steps']} steps"
    yield "it said it drew", format_energy(one["told_energy_j"])


def _remark(one: Row) -> str:
    if one["advice"]:
        return "\n(advice)"
    return "\n(not kept)" if one["kept"] is False else ""


def _gain(one: Row) -> float | None:
    """Return by how much the metric got better; of a loss, by how much it fell."""
    before, after = one["metric_before"], one["metric_after"]
    if before is None or after is None:
        return None
    oriented = one["state"].get("metric_before")
    sign = -1.0 if isinstance(oriented, int | float) and oriented * before < 0 else 1.0
    return sign * float(after - before)


def _chosen(one: Row) -> Row:
    for option in one["alternatives"]:
        if all(option.get(key) == one[key] for key in ("update_mode", "step_fraction")):
            found: Row = option
            return found
    return {}


def _action(one: Row) -> str:
    step_fraction = one.get("step_fraction")
    part = (
        ""
        if step_fraction is None or step_fraction in (0, 1)
        else f" at {100 * step_fraction:.3g}%"
    )
    return str(one["update_mode"]) + part


def _drawn_here(one: Row) -> str:
    if one["advice"]:
        return "nothing, but for looks"
    return format_energy(one["update_energy_j"]) if one["status"] == "done" else _drawn(one)


def _drawn(one: Row) -> str:
    return f"{format_energy(one['energy_j'])} so far"


def _against(drawn_j: float | None, predicted_j: float | None) -> str:
    if not drawn_j or not predicted_j:
        return f"{format_energy(drawn_j)}, {format_energy(predicted_j)} predicted"
    off = f"{drawn_j / predicted_j - 1:+.1%}"
    return f"{format_energy(drawn_j)}, {format_energy(predicted_j)} predicted ({off})"


def _interval(mean: float | None, sd: float | None) -> str:
    if mean is None or sd is None:
        return _signed(mean)
    return f"{mean:+.3f} ({mean - 2 * sd:+.3f} to {mean + 2 * sd:+.3f})"


def _signed(value: float | None) -> str:
    return "unknown" if value is None else f"{value:+.3f}"


def _figure(value: float | None, *, unknown: str = "unknown") -> str:
    return unknown if value is None else f"{value:.4g}"


def _parsed(text: str, default: list[Any]) -> list[Any]:
    from greentrain.report.row_helpers import parse

    return [each for each in parse(text, default) if isinstance(each, dict)]


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=_NAMED, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(map(repr, near))}?"
    shown = ", ".join(map(repr, known[-_NAMED:]))
    return f"the last of its {len(known)} are {shown}" if len(known) > _NAMED else f"known: {shown}"
