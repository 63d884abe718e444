"""Run streams on several ranks, many streams on one budget, and a search.

    python examples/benchmarks/scale.py

takes some minutes and writes ``docs/benchmarks/scale.json``. ``--quick`` takes one or two, and
writes nothing into the tree. Joules are counted by a clock of batches, 1 J each.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from _results import Row, arguments, document, report, rows_of
from _scale import cards, hooks, money, ranks, replayed, unit_costs, unlike

_QUIET = ("pytorch_lightning", "lightning.pytorch", "lightning_fabric")


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
    parts: dict[tuple[str, ...], Callable[[], list[Row]]] = {
        ("ranks_joules",): lambda: cards.ranks_joules(folder),
        ("stream_ranks",): lambda: ranks.stream_ranks(folder, quick=quick),
        ("weak_scaling",): lambda: hooks.weak_scaling(folder, quick=quick),
        ("ddp_replay",): lambda: replayed.ddp_replay(folder, quick=quick),
        ("rank_killed",): lambda: ranks.rank_killed(folder, quick=quick),
        ("many_streams",): lambda: money.many_streams(folder, quick=quick),
        ("one_price",): lambda: unlike.one_price(quick=quick),
        ("search",): lambda: money.search(folder, quick=quick),
        ("ten_thousand",): lambda: unlike.ten_thousand(quick=quick),
        ("unit_costs",): lambda: unit_costs.unit_costs(folder, quick=quick),
    }
    return rows_of(parts, only)


if __name__ == "__main__":
    main()
