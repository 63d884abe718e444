"""Compare bare training, greentrain, CodeCarbon, Carbontracker and Zeus on known truths.

    python examples/benchmarks/measurement.py --peers-python /tmp/peers/bin/python

takes about ten minutes and writes ``docs/benchmarks/measurement.json``. ``--quick`` takes one, and
writes nothing into the tree. The peers need packages that conflict with others, so they get a
separate environment, with the packages of the extra ``benchmarks``:

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install -c constraints.txt -e ".[benchmarks]"

The cards are those of the simulated driver in ``tests/nvml``, which needs a C compiler. Joules on
them are arithmetic, and say nothing about NVIDIA's sensors. Unless a row says "in real time",
greentrain's joules are measured on a fake clock.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from _measurement import costs, faults, peers, ranks, truth
from _measurement.processes import Workers
from _results import Row, arguments, document, report, rows_of


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--peers-python", help="the interpreter that has the peers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        workers = Workers(Path(folder), given.peers_python)
        rows = run(workers, quick=given.quick, only=given.only)
    report("measurement", rows, document(rows, peers_python=given.peers_python), given)


def run(workers: Workers, *, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    parts: dict[tuple[str, ...], Callable[[], list[Row]]] = {
        ("counter_10s",): lambda: [
            *truth.counter(workers, 10.0, quick=quick),
            *peers.counters(workers, quick=quick),
        ],
        ("counter_100s",): lambda: truth.counter(workers, 100.0, quick=quick),
        ("sampled_60s",): lambda: [
            *truth.sampled(workers, quick=quick),
            *peers.sampled(workers, quick=quick),
        ],
        ("masks",): lambda: [truth.masks(workers), *peers.masks(workers, quick=quick)],
        ("ranks",): lambda: [
            ranks.ranks(workers, quick=quick),
            *peers.ranks(workers, quick=quick),
        ],
        ("faults",): lambda: [
            faults.faults(workers, quick=quick),
            *peers.faults(workers, quick=quick),
        ],
        ("setup_ms", "epoch_hooks_ms"): lambda: costs.hooks(workers, quick=quick),
        ("memory_mb",): lambda: costs.memory(workers, quick=quick),
    }
    return rows_of(parts, only)


if __name__ == "__main__":
    main()
