"""Read the decisions of a stream from a ledger, each with its outcome and its gain."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report.decided import read_all_payments, read_decisions
from greentrain.report.document import ExperienceEntry
from greentrain.report.ledger_reading import LedgerContents, read_unverified
from greentrain.report.measured import Part, read_windows
from greentrain.report.row_helpers import parse
from greentrain.report.scope import Scope

_NAMES_SHOWN = 5
"""Other names that an error lists."""


class ExplainedExperience(ExperienceEntry):
    """An experience with its gains. A gain is above 0 if the metric improved.

    Attributes:
        gain: The measured gain; ``None`` if unknown.
        predicted_gain: The predicted gain of the chosen option; ``None`` if unknown.
    """

    gain: float | None
    predicted_gain: float | None


def explained_decisions(
    ledger: Ledger, stream: str | None = None, experience: str | None = None
) -> tuple[str, list[ExplainedExperience]]:
    """Return a stream's name and its decisions in order, each with its outcome.

    Args:
        ledger: The ledger.
        stream: The name; ``None`` for the stream of the newest run with a decision.
        experience: Id of the only experience to return; ``None`` for all.

    Raises:
        ConfigurationError: If nothing was decided, or not in such a stream or experience.
    """
    with read_unverified(ledger) as contents:
        name, explained = _explained(contents, ledger.name, stream)
    if experience is None:
        return name, explained
    ids = list(dict.fromkeys(one["experience_id"] for one in explained))
    if experience not in ids:
        near = _nearest(experience, ids)
        raise ConfigurationError(f"stream {name!r} has no experience {experience!r}; {near}")
    return name, [one for one in explained if one["experience_id"] == experience]


def _explained(
    contents: LedgerContents, ledger: str, stream: str | None
) -> tuple[str, list[ExplainedExperience]]:
    [windows] = read_windows(contents, [Part(Scope())])
    decided = read_decisions(
        contents, Scope(), None, windows, read_all_payments(contents, windows.paid)
    )
    deciding = {row["run_id"] for row in contents.each("decision", "run_id")}
    names = {row["run_id"]: row["name"] for row in decided.runs if row["run_id"] in deciding}
    if not names:
        runs = [row["name"] for row in decided.runs]
        held = f"; it holds the energy of {runs[-1]}" if runs else ""
        raise ConfigurationError(
            f"the ledger {ledger!r} holds no decision of a controller{held}. Decisions come from "
            "StreamTrainer, update and open_controller; see a fit by: greentrain report"
        )
    name = list(names.values())[-1] if stream is None else stream
    if name not in names.values():
        streams = list(dict.fromkeys(names.values()))
        raise ConfigurationError(f"the ledger has no stream {name!r}; {_nearest(name, streams)}")
    reader = decided.reader({row["run_id"]: row["status"] for row in contents.rows["closing"]})
    stated_j = {  # by the job itself, as no meter ran
        row["reservation_id"]: row["actual_j"]
        for row in contents.each("settlement", "reservation_id", "actual_j")
        if row["reservation_id"] not in windows.paid
    }
    explained: list[ExplainedExperience] = []
    for row in decided.decisions():
        if names.get(row["run_id"]) != name:
            continue
        entry = reader.entry(row)
        options = [one for one in parse(row["alternatives"], []) if isinstance(one, dict)]
        reservation_id = entry["reservation_id"]
        if reservation_id in stated_j:
            entry["update_energy_j"] = stated_j[reservation_id]
        entry["alternatives"] = options
        gains = {"gain": _gain(entry), "predicted_gain": chosen_option(entry).get("predicted_gain")}
        explained.append({**entry, **gains})  # type: ignore[typeddict-item]  # keys of a dict
    return name, explained


def chosen_option(one: ExperienceEntry) -> Mapping[str, Any]:
    """Return the chosen one among the alternatives of a decision; empty if it is not recorded."""
    keys = ("update_mode", "step_fraction", "method")
    action = [one.get(key) for key in keys]
    for option in one["alternatives"]:
        if [option.get(key) for key in keys] == action:
            return option
    return {}


def _gain(one: ExperienceEntry) -> float | None:
    """Return the improvement of the metric; of a loss, by how much it fell."""
    before, after = one["metric_before"], one["metric_after"]
    if before is None or after is None:
        return None
    oriented = one["state"].get("metric_before")
    sign = -1.0 if isinstance(oriented, int | float) and oriented * before < 0 else 1.0
    return sign * (after - before)


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=_NAMES_SHOWN, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(map(repr, near))}?"
    shown = ", ".join(map(repr, known[-_NAMES_SHOWN:]))
    if len(known) > _NAMES_SHOWN:
        return f"the last of its {len(known)} are {shown}"
    return f"known: {shown}"
