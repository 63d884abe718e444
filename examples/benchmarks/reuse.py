"""Reuse computations and partial information: what each part saves, and what it costs.

    python examples/benchmarks/reuse.py

writes ``docs/benchmarks/reuse.json``. Parts can run at once, and be joined:

    python examples/benchmarks/reuse.py --only cache labels --out /tmp/first.json
    python examples/benchmarks/reuse.py --only exit routing --out /tmp/second.json
    python examples/benchmarks/reuse.py --only controller --kept /tmp/runs --out /tmp/third.json
    python examples/benchmarks/reuse.py --join /tmp/first.json /tmp/second.json /tmp/third.json

The part ``controller`` continues in the folder of ``controller.py --runs /tmp/runs --part new``.

``--quick`` takes a few minutes with one seed, and writes
nothing into the tree. MNIST and Fashion-MNIST are read from ``$GREENTRAIN_DATA`` or downloaded.
Nothing was tuned on test data. Costs are counted in operations, not measured: see
``_reuse/counting.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from _results import Row, arguments, document, joined, report, rows_of, write
from _reuse import cache, exits, frugal, labels, no_labels, offered, routing, selective

SEEDS = range(5)
MODULES: tuple[Any, ...] = (
    *(cache, selective, exits, routing),
    *(labels, no_labels, frugal, offered),
)
"""Each has ``IDS``, the ids of its rows, and ``rows(quick, seeds)``, which returns dictionaries
with the arguments of :class:`_results.Row`."""
RESUMED = {labels: 2, no_labels: 2, offered: 1}
"""Modules whose ``rows`` also take the place of ``--kept``, and what ``--without`` names."""


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--join", nargs="+", type=Path, metavar="FILE", help="files of --out")
    parser.add_argument("--kept", type=Path, metavar="PLACE", help="finished runs, to continue")
    parser.add_argument("--seeds", nargs="*", type=int, default=list(SEEDS), help="of the runs")
    parser.add_argument("--without", nargs="+", default=[], help="data or streams to leave out")
    given = parser.parse_args()
    if given.join:
        print(f"written: {write('reuse', joined(given.join))}")
        return
    torch.set_num_threads(1)
    resumed = (given.kept, given.without)
    rows = run(quick=given.quick, only=given.only, seeds=given.seeds, resumed=resumed)
    report("reuse", rows, document(rows), given)


def run(
    *,
    quick: bool,
    only: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    resumed: tuple[Path | None, Sequence[str]] = (None, ()),
) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    seeds = seeds[:1] if quick else seeds
    parts: dict[tuple[str, ...], Callable[[], list[Row]]] = {
        module.IDS: lambda module=module: [  # type: ignore[misc]
            Row(**row) for row in module.rows(quick, seeds, *resumed[: RESUMED.get(module, 0)])
        ]
        for module in MODULES
    }
    return rows_of(parts, only)


if __name__ == "__main__":
    main()
