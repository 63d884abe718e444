"""Shift work to cleaner hours on recorded grids, within deadlines and budgets in grams.

    python examples/benchmarks/carbon.py

takes about half an hour and writes ``docs/benchmarks/carbon.json``. The recorded grids are in the
folder of the environment variable GREENTRAIN_DATA. ``--quick`` takes a minute or two, and writes
nothing into the tree. No network and no GPU are used.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from _carbon.deadlines import deadlines, plan_ms
from _carbon.shifting import ZONES, pause_cost, shift
from _results import Row, arguments, document, report, rows_of


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = run(Path(folder), quick=given.quick, only=given.only)
    report("carbon", rows, document(rows), given)


def run(folder: Path, *, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    parts: dict[tuple[str, ...], Callable[[], Sequence[Row]]] = {
        **{
            (f"shift_{zone}",): lambda zone=zone: _recorded(  # type: ignore[misc]
                f"shift_{zone}", lambda: shift(zone, quick=quick)
            )
            for zone in ZONES
        },
        ("pause_cost",): lambda: _recorded("pause_cost", lambda: pause_cost(quick=quick)),
        ("deadlines",): lambda: deadlines(quick=quick),
        ("gram_budget",): lambda: import_module("_carbon.grams").gram_budget(folder, quick=quick),
        ("plan_ms",): lambda: plan_ms(quick=quick),
        ("exact_resume",): lambda: import_module("_carbon.exact_resume").exact_resume(
            folder, quick=quick
        ),
        ("callback_pause_cost", "pause_deadlines"): lambda: _recorded(
            "callback_pause_cost",
            lambda: import_module("_carbon.pausing").pausing(folder, quick=quick),
        ),
    }
    return rows_of(parts, only)


def _recorded(id: str, part: Callable[[], Sequence[Row]]) -> Sequence[Row]:
    """Return the rows of a part that needs the recorded grids, or a row that says it."""
    if os.environ.get("GREENTRAIN_DATA"):
        return part()
    note = "GREENTRAIN_DATA is not set"
    return [Row(id=id, what="on the recorded grids", value=None, unit="", note=note)]


if __name__ == "__main__":
    main()
