"""Judge the controller: the share of full retraining's gain that a share of its joules buys.

Runs are collected first, by as many processes as there are cores, into a folder that they share:

    python examples/benchmarks/controller.py --runs /tmp/runs

Each run is a line of ``runs.jsonl`` there; what is there already is passed over.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch, so that a process is one core

import argparse
import logging
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from _controller.jobs import PARTS, SEEDS, Job, Runs, jobs
from _controller.running import run
from _controller.streams import BUILDERS, stream_of
from _results import _commit


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--runs", type=Path, metavar="FOLDER", help="collect runs there")
    parser.add_argument("--only", nargs="+", default=[], metavar="STREAM", choices=list(BUILDERS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--part", nargs="+", default=list(PARTS), choices=PARTS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    collect(given.runs, jobs(streams=given.only, seeds=given.seeds, parts=given.part))


def collect(folder: Path, wanted: Sequence[Job]) -> None:
    """Make the runs that are wanted and not there, beside others who do the same.

    Args:
        folder: What is shared.
        wanted: The runs, the most important ones first.
    """
    runs, commit, failed = Runs(folder), _commit(), set[str]()
    while True:
        done = runs.read()
        left = [job for job in wanted if job.name not in done and job.name not in failed]
        ready = [job for job in left if job == job.reference or job.reference.name in done]
        if not left or (not ready and {job.reference.name for job in left} <= failed):
            return
        for job in ready:
            with runs.claim(job.name) as mine:
                if not mine:
                    continue
                try:
                    experiences = stream_of(job.stream, job.seed)
                    found = run(job, experiences, budget_j=budget_j(job, done))
                except Exception:  # the other runs are worth having all the same
                    failed.add(job.name)
                    print(f"{job.name}: {traceback.format_exc()}", flush=True)
                    break
                runs.append({**found, "commit": commit})
                told = f"{found['spent_j']:.1f} J, {found['violations']} violations"
                print(f"{job.name}: {found['wall_s']:.0f} s, {told}", flush=True)
                break
        else:
            time.sleep(1.0)  # others are at all that is ready


def budget_j(job: Job, done: dict[str, dict[str, float]]) -> float | None:
    """Return the joules that a run may spend; ``None`` for a reference."""
    if job.budget is None:
        return None
    return job.budget / 100 * done[job.reference.name]["update_j"]


if __name__ == "__main__":
    main()
