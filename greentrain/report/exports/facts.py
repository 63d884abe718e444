"""Facts of the report document that several exports need, and the gaps in them."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from json.encoder import encode_basestring_ascii as _quoted
from pathlib import Path
from typing import Any, NamedTuple

from greentrain.control import UPDATE_MODES
from greentrain.errors import LedgerError
from greentrain.report.carbon_figures import Electricity, Impact, IntensityProvenance
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import Report
from greentrain.report.formats import shown
from greentrain.report.row_helpers import known_wh, mean_pue, pue
from greentrain.units import format_carbon

MOST_CHARACTERS = 200
FINE_TUNING = frozenset(mode for mode, traits in UPDATE_MODES.items() if traits.keeps_weights)
"""The update modes that continue from the last weights."""
_FIRST_UPDATE = "NO_MODEL"


class Hardware(NamedTuple):
    """Devices of one kind (``"gpu"``, ``"cpu"``, ...) and name, and their number."""

    kind: str
    device: str | None
    number: int


def one_line(text: str, limit: int = MOST_CHARACTERS) -> str:
    r"""Return a text from a ledger on one line, without hidden marks and cut off at a length.

    Example:
        >>> one_line(" a\n\u202eb "), one_line("abc", limit=2)
        ('a \\u202eb', 'ab…')
    """
    return " ".join(shown(text, limit).split())


def json_text(value: Any, *, sort_keys: bool = False) -> str:
    """Write plain values as JSON in ASCII, with numbers in full.

    Raises:
        LedgerError: If a figure is infinite or NaN, because the ledger was altered.
    """
    try:
        return _indented(value, "\n", sort_keys=sort_keys) + "\n"
    except ValueError:
        raise LedgerError(
            "a figure of the report is infinite or NaN, and greentrain writes no such figure into "
            "a ledger: a row was altered. Run `greentrain verify` on the ledger to find it"
        ) from None


def _indented(value: Any, begin: str, *, sort_keys: bool) -> str:
    """Return what ``json.dumps`` with ``indent=2`` returns, which takes four times as long."""
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    inner = f"{begin}  "
    if isinstance(value, dict) and value:
        items = sorted(value.items()) if sort_keys else value.items()
        parts = [
            f"{_quoted(name)}: {_indented(one, inner, sort_keys=sort_keys)}" for name, one in items
        ]
        return f"{{{inner}{f',{inner}'.join(parts)}{begin}}}"
    if isinstance(value, list | tuple) and value:
        parts = [_indented(one, inner, sort_keys=sort_keys) for one in value]
        return f"[{inner}{f',{inner}'.join(parts)}{begin}]"
    return json.dumps(value, allow_nan=False)


def _finite(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(value)
    return repr(value)


_WRITERS: Mapping[type, Callable[[Any], str]] = {
    str: _quoted,
    float: _finite,
    int: repr,
    bool: {False: "false", True: "true"}.__getitem__,
}


def replace_file(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all; an existing file keeps its mode.

    Raises:
        OSError: If it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def kwh(energy_j: float | None) -> float | None:
    """Convert joules to kilowatt-hours; ``None`` stays ``None``."""
    energy_wh = known_wh(energy_j)
    return None if energy_wh is None else energy_wh / 1000.0


def disclosures(document: Report) -> Disclosures:
    """Return the user's disclosures."""
    return Disclosures(**document.get("disclosures", {}))


def reporting_period(document: Report) -> dict[str, str | None]:
    """Return the interval that the report was limited to; ``None`` for an open end.

    ``period`` of the document is another thing: the first and the last moment of its rows.
    """
    return {key: document["scope"][key] for key in ("since_utc", "until_utc")}


def period_words(document: Report) -> str | None:
    """Describe the interval that the report was limited to; ``None`` if it was not."""
    since, until = reporting_period(document).values()
    parts = [f"from {_day(since)}" if since else "", f"before {_day(until)}" if until else ""]
    return " and ".join(part for part in parts if part) or None


def stated(document: Report, key: str) -> str | None:
    """Return a text that the user stated about the model; ``None`` if there is none."""
    text = disclosures(document).model.get(key)
    return None if text is None else one_line(text) or None


def model_name(document: Report) -> str:
    """Return the model's name: the stated one, or that of its runs."""
    names = list(dict.fromkeys(one_line(run["name"]) for run in document["runs"]))
    return stated(document, "name") or (names[0] if len(names) == 1 and names[0] else "model")


def generator(document: Report) -> str:
    """Return the name and the version of the tool that recorded the energy."""
    return f"greentrain {document['generator']['version']}"


def boundary(document: Report) -> str | None:
    """Name what the energy covers, such as ``"gpu+cpu"``; ``None`` where nothing is known."""
    within = document["totals"]["boundary"]
    return None if within is None else one_line(within)


def emissions_g(document: Report) -> float | None:
    """Return the grams of all windows; ``None`` unless they are known of every window.

    The grams of a part, given as those of the whole, would be too low.
    """
    carbon = document["carbon"]
    return carbon["emissions_g"] if carbon["complete"] else None


def bases_words(document: Report) -> str:
    """Name the basis of the grams' factors; of several bases, each with its grams."""
    found = document["carbon"]["by_basis"]
    names = [one_line(one["basis"] or "unknown") for one in found]
    if len(found) < 2:
        return "".join(names)
    grams = (format_carbon(one["emissions_g"]) for one in found)
    return " and ".join(f"{name} ({each})" for name, each in zip(names, grams, strict=True))


def average_g(document: Report) -> float | None:
    """Return the grams of all windows; ``None`` unless every intensity is an average one."""
    average = all(one["signal"] == "average" for one in intensities(document))
    return emissions_g(document) if average else None


def intensities(document: Report) -> list[IntensityProvenance]:
    """List the origin of each intensity once."""
    listed: list[IntensityProvenance] = []
    for one in document["carbon"]["intensities"]:
        intensity = one["intensity"]
        if intensity and intensity not in listed:
            listed.append(intensity)
    return listed


def zones(document: Report) -> list[str]:
    """List the zones of the electricity that are known."""
    return list(
        dict.fromkeys(_word("zone", one["zone"]) for one in intensities(document) if one["zone"])
    )


def pues(document: Report) -> list[float | None]:
    """List the power usage effectiveness of the runs with energy, each once; ``None``: unknown."""
    return list(dict.fromkeys(pue(run) for run in document["runs"] if run["energy_j"]))


def known_pues(document: Report) -> str:
    """List the known values of power usage effectiveness as text; empty if there is none."""
    return ", ".join(f"{one:g}" for one in pues(document) if one is not None)


def with_pue_j(document: Report) -> float | None:
    """Return the joules of all windows times the runs' mean PUE, which the grams include too.

    Returns:
        Joules; ``None`` if nothing was measured. A run without a PUE counts with 1.
    """
    energy_j = document["totals"]["energy_j"]
    return None if energy_j is None else float(energy_j) * mean_pue(document["runs"])


def fine_tuning_j(document: Report) -> float | None:
    """Return the joules of the updates that continued from the last weights.

    Returns:
        Joules, at most the total; ``None`` where some of it is unknown or not listed.
    """
    parts = [
        one["update_energy_j"]
        for one in document["experiences"]
        if one["update_mode"] in FINE_TUNING and not one["shadow"]
    ]
    total_j = document["totals"]["energy_j"]
    if total_j is None or None in parts or _left_out(document):
        return None
    summed_j = math.fsum(part or 0.0 for part in parts)
    return summed_j if summed_j <= total_j else None


def stages(document: Report) -> list[str]:
    """List what was done: ``"training"``, ``"retraining"`` (from scratch), ``"finetuning"``."""
    found = set()
    if _left_out(document):
        counts = document["summary"]["update_modes"]
        found |= {"finetuning" for mode in FINE_TUNING if counts[mode]}
    for one in document["experiences"]:
        if one["shadow"]:  # another job may or may not have followed the decision
            continue
        if one["update_mode"] in FINE_TUNING:
            found.add("finetuning")
        elif one["update_mode"] == "FULL_RETRAIN":
            found.add("training" if one["reason"] == _FIRST_UPDATE else "retraining")
    if not document["experiences"] and any(
        "train_epoch" in run["windows_by_phase"] for run in document["runs"]
    ):
        found.add("training")
    return [stage for stage in ("training", "retraining", "finetuning") if stage in found]


def _left_out(document: Report) -> int:
    """Return how many experiences the document does not list."""
    return document["left_out"]["experiences"] if "left_out" in document else 0


def hardware(document: Report) -> list[Hardware]:
    """Count the devices with a figure by kind and name."""
    devices: dict[object, tuple[str, str | None]] = {}
    for source in document["totals"]["sources"]:
        kind = source_kind(source["name"])
        if kind != "node":
            key = source["uuid"] or (source["host"], source["name"])
            device = source["device"]
            devices[key] = (kind, None if device is None else one_line(device))
    return [Hardware(*one, number) for one, number in Counter(devices.values()).items()]


def source_kind(name: str) -> str:
    """Return the kind of device that a source meters.

    Example:
        >>> source_kind("node0/gpu:1"), source_kind("cpu")
        ('gpu', 'cpu')
    """
    return one_line(name.rpartition("/")[2].partition(":")[0], 40)


def hardware_words(document: Report) -> str | None:
    """Name the devices, such as ``"2 x NVIDIA H100"``; ``None`` if no name is known."""
    known = [one for one in hardware(document) if one.device is not None]
    return ", ".join(f"{one.number} x {one.device}" for one in known) or None


def intensity_words(document: Report) -> str | None:
    """Describe the intensities of the grams; ``None`` where there is none."""
    described = [
        f"{_word('signal', one['signal'])} intensity of {_word('zone', one['zone'])} "
        f"({_word('source', one['source'])}"
        f"{'' if one['data_year'] is None else ', ' + _word('data_year', one['data_year'])}, "
        f"{_word('basis', one['basis'])})"
        for one in intensities(document)
    ]
    return "; ".join(described) or None


def restated_words(document: Report) -> str | None:
    """Describe the factors of a restated report, with the grams before; ``None`` for others."""
    held = document.get("restated")
    if held is None:
        return None
    before = "unknown" if held["before_g"] is None else format_carbon(held["before_g"])
    bases = held["before_by_basis"]
    if bases[1:]:
        each = (f"{one['basis'] or 'unknown'} {format_carbon(one['emissions_g'])}" for one in bases)
        before += f" of different bases ({', '.join(each)})"
    words = f"{one_line(held['sentence'], 400)}; before: {before}"
    if not held["upstream"]:
        return words
    grams = held["upstream_g"]
    known = "unknown" if grams is None else format_carbon(grams)
    return f"{words}; upstream emissions (Scope 3, category 3), in no other figure: {known}"


def gaps(document: Report) -> list[str]:
    """List in sentences why the figure of energy is incomplete."""
    totals = document["totals"]
    if not document["runs"]:
        return ["energy: the ledger holds no run"]
    if totals["energy_j"] is None:
        return ["energy: nothing was measured"]
    if not totals["complete"]:
        return [
            "energy: the figure is of the measured part, because some windows are incomplete or "
            f"were cut short ({totals['windows_incomplete']} and {totals['windows_recovered']} of "
            f"{totals['windows']})"
        ]
    return []


def emissions_gaps(document: Report) -> list[str]:
    """Return the reason for missing grams, in a list of no or one sentence."""
    if emissions_g(document) is not None:
        return []
    return [f"emissions: {document['carbon']['sentence']}"]


def pue_gaps(document: Report) -> list[str]:
    """Return in a list of no or one sentence that a PUE is unknown."""
    if None not in pues(document):
        return []
    return ["PUE: a run has none, so the overheads of its building are not included"]


def unstated(document: Report, fields: Mapping[str, str]) -> list[str]:
    """List the fields of a form for which the user stated no text about the model."""
    return [
        f"{field}: give {key} under model in the file of --disclosures"
        for field, key in fields.items()
        if stated(document, key) is None
    ]


def embodied(document: Report) -> Impact | None:
    """Return the embodied emissions of the report; ``None`` if it has no such line."""
    impacts = document.get("supplementary_impacts")
    return impacts["embodied"] if impacts else None


def electricity(document: Report) -> Electricity | None:
    """Return the electricity's emissions of the report; ``None`` if it has no such line."""
    impacts = document.get("supplementary_impacts")
    return impacts["electricity"] if impacts else None


def _day(utc: str) -> str:
    return datetime.fromisoformat(utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _word(key: str, value: object) -> str:
    return f"unknown {key}" if value is None else one_line(str(value))
