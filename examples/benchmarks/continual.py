"""Learn published streams by published protocols, compare with a peer, and run long streams.

    python examples/benchmarks/continual.py --peers-python /tmp/avalanche/bin/python

takes about an hour on one core and writes ``docs/benchmarks/continual.json``. ``--quick`` takes two
minutes, with one seed and fewer steps, and writes nothing into the tree. Avalanche gets a separate
environment:

    python -m venv /tmp/avalanche
    /tmp/avalanche/bin/pip install avalanche-lib==0.6.0

MNIST and Fashion-MNIST are read from ``$GREENTRAIN_DATA`` or downloaded, CIFAR-10 is only read.
Nothing was tuned on test data: steps, rates and sizes are those of the named protocols.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from _continual import lasting, peer, split, warm
from _results import Row, arguments, document, report, rows_of


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--peers-python", help="the interpreter that has Avalanche")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), given.peers_python, quick=given.quick, only=given.only)
    report("continual", rows, document(rows), given)


def run(folder: Path, python: str | None, *, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    parts: dict[tuple[str, ...], Callable[[], list[Row]]] = {
        ("finetune_cil",): lambda: split.finetune(quick=quick),
        ("joint_cil",): lambda: split.joint(quick=quick),
        ("er_cil",): lambda: split.replay_class(quick=quick),
        ("er_dil",): lambda: split.replay_domain(quick=quick),
        ("gdumb_500",): lambda: split.gdumb(quick=quick),
        ("er_fmnist",): lambda: split.replay_fashion(quick=quick),
        ("er_vs_avalanche",): lambda: peer.against_avalanche(folder, python, quick=quick),
        ("warm_gap",): lambda: warm.warm_gap(quick=quick),
        ("resume",): lambda: lasting.resume(folder, quick=quick),
        ("memory_flat",): lambda: lasting.memory_flat(folder, quick=quick),
    }
    return rows_of(parts, only)


if __name__ == "__main__":
    main()
