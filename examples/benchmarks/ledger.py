"""Test the guard and the ledger: caps, budgets, forgeries, and the time that they take.

    python examples/benchmarks/ledger.py

takes about fifteen minutes and writes ``docs/benchmarks/ledger.json``. ``--quick`` takes one or
two, and writes nothing into the tree. A row of cases runs the tests of these cases, and counts the
failed ones. The simulated cards need a C compiler. PostgreSQL is measured if its server is
installed.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from _ledger import cases, guard, speed
from _results import Row, arguments, document, report, rows_of

_QUIET = ("pytorch_lightning", "lightning.pytorch")


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = run(Path(folder), quick=given.quick, only=given.only)
    report("ledger", rows, document(rows), given)


def run(folder: Path, *, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    guard.load_driver(folder)
    parts: dict[tuple[str, ...], Callable[[], list[Row]]] = {
        ("overshoot",): lambda: guard.overshot(folder, quick=quick),
        **{(id,): lambda id=id: [cases.cases(id, folder, quick=quick)] for id in cases.CASES},
        ("append_ms", "verify_s", "balance_ms"): lambda: speed.speed(folder, quick=quick),
        ("guard_us",): lambda: guard.batch(folder, quick=quick),
    }
    return rows_of(parts, only)


if __name__ == "__main__":
    main()
