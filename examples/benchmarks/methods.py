"""Learn Split MNIST and Fashion-MNIST by continual-learning methods, next to published numbers.

    python examples/benchmarks/methods.py --runs docs/benchmarks/methods_runs.jsonl

Each run is appended to the file of ``--runs`` when it ends. So the command can be stopped, and
given again to do the rest. It needs about four processor hours for each seed, half of them for
Fashion-MNIST. ``--only-finished`` does no run, and writes ``docs/benchmarks/methods.json`` and
``docs/images/methods.svg`` from those that are finished. ``--part 0/2`` and ``--part 1/2`` share
the runs among two processes. ``--quick`` takes a few minutes on MNIST, and writes nothing.

``--avalanche PYTHON`` does the runs of ``vs_avalanche`` instead, in pairs, and needs the
interpreter of another environment. It takes about ten minutes of a core for each seed::

    python -m venv avalanche
    avalanche/bin/pip install -c examples/benchmarks/avalanche.txt avalanche-lib quadprog

The data are read from ``$GREENTRAIN_DATA`` or downloaded. Strengths are chosen on a tenth of the
training data, which is held out in the search and used afterwards.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from _methods.pairs import do_pairs, pair_rows
from _methods.plot import plot, plot_row, points
from _methods.runs import Runs, do_all
from _methods.tables import Size, rows_of_runs, search_table
from _results import FOLDER, IMAGES, arguments, document, report

from greentrain.evaluation.evaluator import quiet

FULL = Size(seeds=5, steps=2000, search_steps=200)
QUICK = Size(seeds=1, steps=40, search_steps=10, fashion=False)
PAIRED = Size(seeds=5, steps=200, search_steps=50)
PAIRED_QUICK = Size(seeds=1, steps=20, search_steps=5)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument("--runs", type=Path, default=FOLDER / "methods_runs.jsonl")
    parser.add_argument("--pairs", type=Path, default=FOLDER / "avalanche_runs.jsonl")
    parser.add_argument("--avalanche", metavar="PYTHON", help="do the runs with Avalanche only")
    parser.add_argument("--only-finished", action="store_true", help="do no run")
    parser.add_argument("--part", default="0/1", help="which part of the runs, such as 0/2")
    given = parser.parse_args()
    number, _, parts = given.part.partition("/")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = QUICK if given.quick else FULL
        paired = PAIRED_QUICK if given.quick else PAIRED
        runs = Runs(Path(folder) / "runs.jsonl" if given.quick else given.runs)
        pairs = Runs(Path(folder) / "pairs.jsonl" if given.quick else given.pairs)
        if given.avalanche:
            do_pairs(pairs, paired, given.avalanche)
        elif not given.only_finished:
            do_all(runs, size, part=(int(number), int(parts)))
    print(search_table(runs, size))
    found = points(runs, size)
    rows = [*rows_of_runs(runs, size), *pair_rows(pairs, paired), plot_row(found)]
    if found and not given.quick:
        plot(found, IMAGES / "methods.svg")
    report("methods", rows, document(rows), given)


if __name__ == "__main__":
    main()
