"""Run streams on several ranks, many streams on one budget, and a search.

    python examples/benchmarks/scale.py

takes some minutes and writes ``docs/benchmarks/scale.json``. ``--quick`` takes one or two, and
writes nothing into the tree. Joules are counted by a clock of batches, 1 J each.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _results import Row, arguments, document, report, rows_of
from _scale import money, ranks

_QUIET = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")
NOT_RUN = {
    "ranks_joules": "needs cards, or two hosts: only the assignment of devices is tested",
    "weak_scaling": "needs an idle machine: times of a shared one are not comparable",
    "ddp_replay": "no buffer is split among ranks: each rank holds all past data",
    "one_price": "not built: docs/how-to/shared_budgets.md has one test of two streams",
}
"""Rows of the issue's table without a value, and the reason."""


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = run(Path(folder), quick=given.quick, only=given.only)
    report("scale", rows, document(rows), given)


def run(folder: Path, *, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    parts = {
        ("stream_ranks",): lambda: ranks.stream_ranks(folder, quick=quick),
        ("rank_killed",): lambda: ranks.rank_killed(folder, quick=quick),
        ("many_streams",): lambda: money.many_streams(folder, quick=quick),
        ("search",): lambda: money.search(folder, quick=quick),
    }
    missing = [
        Row(id=id, what="not run", value=None, unit="", note=note)
        for id, note in NOT_RUN.items()
        if not only
    ]
    return [*rows_of(parts, only), *missing]


if __name__ == "__main__":
    main()
