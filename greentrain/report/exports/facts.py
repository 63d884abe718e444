"""What several exports say: plain figures of the report document, and what is not known of them."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from greentrain._about import DISTRIBUTION
from greentrain.report.row_helpers import number
from greentrain.report.text import shown
from greentrain.units import wh

Document = Mapping[str, Any]
"""The report document, as :func:`greentrain.report.build` gives it."""

MOST_CHARACTERS = 200
FINE_TUNING = frozenset({"REPLAY", "WARM_START"})
"""The update modes that go on from the last weights."""

_METHODS = {
    "counter": "by hardware energy counter",
    "sampled": "by sampled power",
    "estimated": "estimated by a model",
    "given": "given, not measured",
}
_FIRST_UPDATE = "NO_MODEL"


class Hardware(NamedTuple):
    """Alike devices: their kind (``"gpu"``, ``"cpu"``, ...), their name, and how many there are."""

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


def json_text(value: Any) -> str:
    """Write plain values as JSON in ASCII, keys in the order that they have."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def kwh(energy_j: float | None) -> float | None:
    """Convert joules to kilowatt-hours; unknown stays unknown."""
    return None if energy_j is None else wh(energy_j) / 1000.0


def given(document: Document) -> Mapping[str, Any]:
    """Return what the user stated beside the ledger."""
    return document.get("given") or {}


def stated(document: Document, key: str) -> str | None:
    """Return a text that the user stated about the model; ``None`` if there is none."""
    text = (given(document).get("model") or {}).get(key)
    return one_line(str(text)) or None if text is not None else None


def model_name(document: Document) -> str:
    """Name the model: as the user did, or after its runs."""
    names = list(dict.fromkeys(one_line(run["name"]) for run in document["runs"]))
    return stated(document, "name") or (names[0] if len(names) == 1 and names[0] else "model")


def generator(document: Document) -> str:
    """Name the tool that metered, with its version."""
    return f"greentrain {document['generator']['version']}"


def boundary(document: Document) -> str | None:
    """Name what was metered, such as ``"gpu+cpu"``; ``None`` where nothing was."""
    within = document["totals"]["boundary"]
    return None if within is None else one_line(within)


def emissions_g(document: Document) -> float | None:
    """Return the grams of all windows; ``None`` where they are known of a part alone, or of none.

    A part passed off as the whole would be a figure too low.
    """
    carbon = document["carbon"]
    return carbon["emissions_g"] if carbon["complete"] else None


def intensities(document: Document) -> list[Mapping[str, Any]]:
    """List where the intensities come from, each once."""
    listed: list[Mapping[str, Any]] = []
    for one in document["carbon"]["intensities"]:
        intensity = one.get("intensity")
        if intensity and intensity not in listed:
            listed.append(intensity)
    return listed


def zones(document: Document) -> list[str]:
    """List the zones whose power was drawn, as far as they are known."""
    return list(dict.fromkeys(_word(one, "zone") for one in intensities(document) if one["zone"]))


def pues(document: Document) -> list[float | None]:
    """List the power usage effectiveness of the runs with energy, each once; ``None``: unknown."""
    return list(dict.fromkeys(_pue(run) for run in document["runs"] if run["energy_j"]))


def with_pue_j(document: Document) -> float | None:
    """Return the metered joules times the runs' mean PUE by energy, which the grams hold as well.

    Returns:
        Joules; ``None`` if nothing was metered. A run without a PUE counts with 1.
    """
    energy_j = document["totals"]["energy_j"]
    if energy_j is None:
        return None
    drawn = [(run["energy_j"] or 0.0, _pue(run) or 1.0) for run in document["runs"]]
    summed_j = math.fsum(joules for joules, _ in drawn)
    mean = math.fsum(joules * pue for joules, pue in drawn) / summed_j if summed_j else 1.0
    return float(energy_j) * mean


def fine_tuning_j(document: Document) -> float | None:
    """Return the joules of the updates that went on from the last weights.

    Returns:
        Joules, at most the total; ``None`` where some of it is unknown.
    """
    parts = [
        one["update_energy_j"]
        for one in document["experiences"]
        if one["update_mode"] in FINE_TUNING and not one["advice"]
    ]
    total_j = document["totals"]["energy_j"]
    if total_j is None or any(part is None for part in parts):
        return None
    summed_j = math.fsum(parts)
    return summed_j if summed_j <= total_j else None


def stages(document: Document) -> list[str]:
    """List what was done: ``"training"``, ``"retraining"`` (from scratch), ``"finetuning"``."""
    found = set()
    for one in document["experiences"]:
        if one["advice"]:  # which another job may have followed, or not
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


def hardware(document: Document) -> list[Hardware]:
    """Count the devices that were metered, alike ones together."""
    devices: dict[Any, tuple[str, str | None]] = {}
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


def hardware_words(document: Document) -> str | None:
    """Name the devices, such as ``"2 x NVIDIA H100"``; ``None`` if none is known by its name."""
    known = [one for one in hardware(document) if one.device is not None]
    return ", ".join(f"{one.number} x {one.device}" for one in known) or None


def measured_words(document: Document) -> str:
    """Say by what each kind of device was metered."""
    kinds: dict[str, dict[str, None]] = defaultdict(dict)
    for source in document["totals"]["sources"]:
        kinds[_METHODS.get(source["method"], "in an unknown way")][source_kind(source["name"])] = (
            None
        )
    return "; ".join(f"{' and '.join(names)} {words}" for words, names in kinds.items())


def intensity_words(document: Document) -> str | None:
    """Say which intensities the grams come from; ``None`` where there is none."""
    told = [
        f"{_word(one, 'signal')} intensity of {_word(one, 'zone')} ({_word(one, 'source')}"
        f"{'' if one['data_year'] is None else ', ' + _word(one, 'data_year')}, "
        f"{_word(one, 'basis')})"
        for one in intensities(document)
    ]
    return "; ".join(told) or None


def method(document: Document) -> str:
    """Describe in about a hundred words how the energy was measured."""
    totals = document["totals"]
    if totals["energy_j"] is None:
        return "No energy was measured."
    interval = totals["interval"]
    spread = (
        "No interval is claimed, because the uncertainty of some source is unknown."
        if interval is None
        else f"Its 95 % interval is {interval['low_wh'] / 1000:.3g} to "
        f"{interval['high_wh'] / 1000:.3g} kWh (k = 2, sensors in quadrature)."
    )
    return (
        f"Electrical energy was metered by {generator(document)} ({DISTRIBUTION}) during the runs, "
        "window by window: epochs, validation, checkpoints and whatever else they did. The "
        f"boundary is {boundary(document) or 'unknown'}: {measured_words(document)}. {spread} "
        "Failed, killed and interrupted runs are counted. Cooling and other overheads of the "
        "building, network, storage and making the hardware are not in the figure. It is recorded "
        "in a hash-chained ledger, from which it can be worked out again."
    )


def gaps(document: Document) -> list[str]:
    """List in sentences what makes the figure of energy less than whole."""
    totals = document["totals"]
    if not document["runs"]:
        return ["energy: the ledger holds no run"]
    if totals["energy_j"] is None:
        return ["energy: nothing was measured"]
    if not totals["complete"]:
        return [
            "energy: it is at least so much, because some windows are incomplete or were cut short "
            f"({totals['windows_incomplete']} and {totals['windows_recovered']} of "
            f"{totals['windows']})"
        ]
    return []


def emissions_gaps(document: Document) -> list[str]:
    """Say why there are no grams, in a list of no or one sentence."""
    if emissions_g(document) is not None:
        return []
    return [f"emissions: {document['carbon']['sentence']}"]


def unstated(document: Document, fields: Mapping[str, str]) -> list[str]:
    """List the fields of a form, each with the text about the model that would fill it."""
    return [
        f"{field}: give {key} under model in the file of --given"
        for field, key in fields.items()
        if stated(document, key) is None
    ]


def pue_gaps(document: Document) -> list[str]:
    """Say in a list of no or one sentence that a PUE is unknown."""
    if None not in pues(document):
        return []
    return ["PUE: a run has none, so what the building took beside its computers is not in it"]


def beside(document: Document, line: str) -> Mapping[str, Any]:
    """Return a line beside the energy, such as ``"embodied"``; empty if there is none."""
    return (document.get("beside") or {}).get(line) or {}


def _pue(run: Mapping[str, Any]) -> float | None:
    told = run["environment"].get("carbon")
    return number(told.get("pue")) if isinstance(told, dict) else None


def _word(provenance: Mapping[str, Any], key: str) -> str:
    value = provenance[key]
    return f"unknown {key}" if value is None else one_line(str(value))
