"""Small helpers over the ledger's rows, which arrive as mappings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

Row = Mapping[str, Any]
Rows = Sequence[Row]
_Kind = TypeVar("_Kind", list[Any], dict[str, Any])


def parse(text: str, default: _Kind) -> _Kind:
    """Read a JSON column; a text that was tampered with counts as the default.

    That it was tampered with is said by the verification, which the report carries.
    """
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except (TypeError, ValueError):
        return default
    return value if isinstance(value, type(default)) else default


def joules_by_source(window: Row) -> dict[str, float | None]:
    """Return a window's joules by source name; what is not a finite number is unknown."""
    return {name: number(joules) for name, joules in parse(window["by_source"], {}).items()}


def total(values: Iterable[float | None]) -> float | None:
    """Sum what is known; ``None`` if nothing is."""
    known = [value for value in values if value is not None]
    return math.fsum(known) if known else None


def number(value: object) -> float | None:
    """Return a finite number as such; anything else, such as a cell tampered with, is unknown."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
