"""Joules at equal accuracy of each method of ``SelectiveTraining``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

IDS = ("selective",)


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return one row for each method; see :class:`_results.Row` for the keys."""
    note = "not run: the part is being built"
    return [
        {"id": "selective", "what": "joules at equal accuracy", "value": None, "unit": "%"}
        | {"reach": 60.0, "note": note}
    ]
