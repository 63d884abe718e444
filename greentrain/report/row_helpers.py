"""Small helpers over the ledger's rows, which arrive as mappings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Row = Mapping[str, Any]
Rows = Sequence[Row]
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
_Kind = TypeVar("_Kind", list[Any], dict[str, Any])


def parse(text: str, default: _Kind) -> _Kind:
    """Read a JSON column; a text that was tampered with counts as the default.

    That it was tampered with is said by the verification, which the report carries.
    """
    try:
        value = _DECODER.decode(text)
    except (TypeError, ValueError):
        return default
    return value if isinstance(value, type(default)) else default


def joules_by_source(window: Row) -> dict[str, float | None]:
    """Return a window's joules by source name; what is not a finite number is unknown."""
    held: dict[str, float | None] | None = window.get("joules")
    if held is not None:
        return held
    return {name: number(joules) for name, joules in parse(window["by_source"], {}).items()}


def readable(windows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Read the JSON of each window once, and its figures as numbers or unknown.

    Args:
        windows: Rows of kind ``"window"``; they are changed.

    Returns:
        The same, with ``joules`` by source for ``by_source``.
    """
    names: dict[str, str] = {}
    for window in windows:
        joules = joules_by_source(window)
        # Of a name that is in every window, one text is enough.
        window["joules"] = {names.setdefault(name, name): held for name, held in joules.items()}
        del window["by_source"]
        window["energy_j"] = number(window["energy_j"])
        window["emissions_g"] = number(window["emissions_g"])
        window["duration_s"] = max(0.0, number(window["duration_s"]) or 0.0)
    return windows


def total(values: Iterable[float | None]) -> float | None:
    """Sum what is known; ``None`` if nothing is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def number(value: object) -> float | None:
    """Return a finite number as such; anything else, such as a cell tampered with, is unknown."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
