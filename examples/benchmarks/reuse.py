"""Reuse computations and partial information: what each part saves, and what it costs.

    python examples/benchmarks/reuse.py

writes ``docs/benchmarks/reuse.json``. ``--quick`` takes a few minutes with one seed, and writes
nothing into the tree. MNIST and Fashion-MNIST are read from ``$GREENTRAIN_DATA`` or downloaded.
Nothing was tuned on test data. Costs are counted in operations, not measured: see
``_reuse/counting.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from _results import Row, arguments, document, report, rows_of
from _reuse import cache, labels, selective

SEEDS = range(5)
MODULES: tuple[Any, ...] = (cache, selective, labels)
"""Each has ``IDS``, the ids of its rows, and ``rows(quick, seeds)``, which returns dictionaries
with the arguments of :class:`_results.Row`."""


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    torch.set_num_threads(1)
    rows = run(quick=given.quick, only=given.only)
    report("reuse", rows, document(rows), given)


def run(*, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    seeds = SEEDS[:1] if quick else SEEDS
    parts: dict[tuple[str, ...], Callable[[], list[Row]]] = {
        module.IDS: lambda module=module: [Row(**row) for row in module.rows(quick, seeds)]  # type: ignore[misc]
        for module in MODULES
    }
    return rows_of(parts, only)


if __name__ == "__main__":
    main()
