"""Types and helpers for the ledger's rows as the report reads them."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict, TypeVar, cast

from greentrain.ledger import (
    BudgetRow,
    CalibrationRow,
    ClosingRow,
    RecoveredWindowRow,
    RunRow,
    SourceRow,
)
from greentrain.report.document import RunFigures, RunMetric
from greentrain.units import wh

Span = tuple[int, int]
"""A half-open interval in microseconds since 1970."""


class RestatedWindow(NamedTuple):
    """Grams and origins of a window as the ledger holds them, and its upstream grams."""

    emissions_g: float | None
    upstream_g: float | None
    intensity_origins: str | None


class MeasuredWindow(RecoveredWindowRow):
    """A window whose figures were checked: each is a finite number or ``None``.

    Attributes:
        joules: Joules by source name; ``by_source`` is empty.
        times: Spans in which the window's own energy was used, in order.
        restated: What the factors replaced, only in a restated report.
    """

    joules: dict[str, float | None]
    times: tuple[Span, ...]
    restated: NotRequired[RestatedWindow]


class ReportRows(TypedDict):
    """The rows of which a report holds all, by kind; a ledger has only a few for each run."""

    run: list[RunRow]
    closing: list[ClosingRow]
    source: list[SourceRow]
    calibration: list[CalibrationRow]
    budget: list[BudgetRow]


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_Kind = TypeVar("_Kind", list[Any], dict[str, Any])
_Row = TypeVar("_Row")
_Key = TypeVar("_Key")


def parse(text: object, default: _Kind) -> _Kind:
    """Read a JSON column; return the default for a text that was tampered with.

    The verification that the report carries names the altered row.
    """
    try:
        # The ledger writes no spaces around the value, and `decode` would look for them.
        value, end = _DECODER.raw_decode(cast(str, text))
    except (TypeError, ValueError):
        return default
    whole = end == len(cast(str, text))
    return value if whole and isinstance(value, type(default)) else default


def readable(windows: Iterable[RecoveredWindowRow]) -> list[MeasuredWindow]:
    """Parse the JSON of each window once, and replace unreadable figures by ``None``.

    Returns:
        The same dictionaries, changed; their ``times`` are empty.
    """
    names: dict[str, str] = {}
    parsed: list[MeasuredWindow] = []
    for row in windows:
        window = cast(MeasuredWindow, row)
        # A name recurs in every window; one string object is enough.
        window["joules"] = {
            # Nearly all are finite floats, for which no function is called.
            names.setdefault(name, name): joules
            if type(joules) is float and -math.inf < joules < math.inf
            else number(joules)
            for name, joules in parse(row["by_source"], {}).items()
        }
        window["by_source"] = ""
        window["energy_j"] = number(row["energy_j"])
        window["emissions_g"] = number(row["emissions_g"])
        window["market_emissions_g"] = number(row["market_emissions_g"])
        window["duration_s"] = max(0.0, number(row["duration_s"]) or 0.0)
        window["times"] = ()
        parsed.append(window)
    return parsed


def total(values: Iterable[float | None]) -> float | None:
    """Sum the known values; return ``None`` if there is none."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def number(value: object) -> float | None:
    """Return a finite number as a float, and ``None`` for anything else."""
    if type(value) is float and math.isfinite(value):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def better(mode: object) -> str | None:
    """Return the better direction of a metric, ``"max"`` or ``"min"``; ``None`` for others."""
    return mode if mode == "max" or mode == "min" else None


def main_metric(run: RunFigures) -> RunMetric | None:
    """Return the metric by which a fit is compared: the first one with a better direction."""
    return next((one for one in run["metrics"] if one["mode"] is not None), None)


def known_wh(energy_j: float | None) -> float | None:
    """Convert joules to watt-hours; ``None`` stays ``None``."""
    return None if energy_j is None else wh(energy_j)


def carbon_settings(run: RunFigures) -> dict[str, Any] | None:
    """Return the carbon settings that a run recorded; ``None`` if it recorded none."""
    settings = run["environment"].get("carbon")
    return settings if isinstance(settings, dict) else None


def origins(text: str | None) -> list[dict[str, Any]]:
    """Return the origins of a window's intensity, where they are not that of its run."""
    return [one for one in parse(text, []) if isinstance(one, dict)]


def basis_of_origins(origins: Sequence[dict[str, Any]]) -> str | None:
    """Return the basis of the factors, if all that have one have the same."""
    bases = {one["basis"] for one in origins if isinstance(one.get("basis"), str)}
    return bases.pop() if len(bases) == 1 else None


def basis_of_settings(settings: object) -> str | None:
    """Return the basis of the factors in a run's carbon settings; ``None`` if unknown."""
    intensity = settings.get("intensity") if isinstance(settings, dict) else None
    basis = intensity.get("basis") if isinstance(intensity, dict) else None
    return basis if isinstance(basis, str) else None


def pue(run: RunFigures) -> float | None:
    """Return the power usage effectiveness that a run recorded."""
    return number((carbon_settings(run) or {}).get("pue"))


def mean_pue(runs: Sequence[RunFigures]) -> float:
    """Return the mean PUE of runs, weighted by energy; a run without a PUE counts with 1."""
    metered_j = math.fsum(run["energy_j"] or 0.0 for run in runs)
    if not metered_j:
        return 1.0
    return math.fsum((run["energy_j"] or 0.0) * (pue(run) or 1.0) for run in runs) / metered_j


def grouped(rows: Iterable[_Row], key: Callable[[_Row], _Key]) -> dict[_Key, list[_Row]]:
    """Group rows by a key, in the order in which the keys first occur.

    Returns:
        A ``defaultdict``: a key without rows has an empty list.

    Example:
        >>> dict(grouped(["gpu", "ram", "cpu"], lambda name: name[0]))
        {'g': ['gpu'], 'r': ['ram'], 'c': ['cpu']}
    """
    found: dict[_Key, list[_Row]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found
