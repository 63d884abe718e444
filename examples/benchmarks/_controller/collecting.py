"""Make the missing runs, in parallel with other processes that do the same."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from _continual.models import Perceptron
from pytorch_lightning import LightningModule

from _controller.jobs import SEEDS, Job, Runs
from _controller.regret import regret_run
from _controller.running import EPOCHS, run
from _controller.speed import EXPERIENCES, decide_run
from _controller.speed import NAME as DECIDE
from _controller.streams import Pair, small_stream_of, stream_of
from greentrain.streams import Experience, digits, fashion_mnist

Done = Mapping[str, Mapping[str, Any]]

REGRET = "regret"
_REGRET_SEEDS = (0, 1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Size of the benchmark.

    Args:
        streams: Returns the experiences of a stream for a seed.
        model: Returns the function that makes the model of a stream; ``None`` for its own.
        epochs: Usual epochs of a full retraining.
        images: Data of the table for regret.
        num_experiences: Number of experiences in that table.
        regret_seeds: Its seeds.
        experiences: Number of experiences before decisions are timed.
    """

    streams: Callable[[str, int], list[Experience]] = stream_of
    model: Callable[[str], Callable[[], LightningModule] | None] = lambda stream: None
    epochs: int = EPOCHS
    images: Callable[[], Pair] = fashion_mnist
    num_experiences: int = 5
    regret_seeds: Sequence[int] = _REGRET_SEEDS
    experiences: int = EXPERIENCES


SMALL = Scale(
    streams=small_stream_of,
    model=lambda stream: partial(Perceptron, pixels=64),
    epochs=3,
    images=digits,
    num_experiences=3,
    regret_seeds=(0,),
    experiences=20,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A missing measurement.

    Args:
        name: Its name.
        needs: Name of the measurement that has to exist before; its own name if none has.
        make: Makes it from the existing measurements.
    """

    name: str
    needs: str
    make: Callable[[Done], Mapping[str, Any]]


def tasks(
    folder: Path,
    jobs: Sequence[Job],
    parts: Sequence[str],
    scale: Scale,
    *,
    seeds: Sequence[int] = SEEDS,
) -> list[Task]:
    """Return the measurements to make, the most important first.

    Args:
        folder: Folder of the tables.
        jobs: The runs.
        parts: Further parts, by name: :data:`REGRET` and ``"decide_ms"``.
        scale: Size of the benchmark.
        seeds: The requested seeds.
    """
    found = [
        Task(name=job.name, needs=job.reference.name, make=partial(_run, job, scale))
        for job in jobs
    ]
    if DECIDE in parts:
        timed = partial(decide_run, experiences=scale.experiences)
        found.append(Task(name=DECIDE, needs=DECIDE, make=lambda done: timed()))
    for seed in scale.regret_seeds:
        if REGRET in parts and seed in seeds:
            name = f"{REGRET}-{seed}"
            found.append(Task(name=name, needs=name, make=partial(_regret, folder, seed, scale)))
    return found


def collect(folder: Path, wanted: Sequence[Task], *, commit: str) -> None:
    """Make the missing ones of the requested measurements.

    Args:
        folder: Folder that the processes share.
        wanted: Measurements to make, the most important first.
        commit: The version of greentrain.
    """
    runs, failed = Runs(folder), set[str]()
    while True:
        done = runs.read()
        left = [
            task
            for task in wanted
            if task.name not in done and task.name not in failed and task.needs not in failed
        ]
        if not left:
            return
        ready = (task for task in left if task.needs in (task.name, *done))
        if not any(_take(task, runs, done, failed, commit) for task in ready):
            time.sleep(1.0)  # other processes are making all that can be made now


def _take(task: Task, runs: Runs, done: Done, failed: set[str], commit: str) -> bool:
    """Make one measurement, unless another process is making it."""
    with runs.claim(task.name) as mine:
        if not mine:
            return False
        began_s = time.monotonic()
        try:
            found = task.make(done)
        except Exception:  # a failed one must not lose the others
            failed.add(task.name)
            print(f"{task.name}: {traceback.format_exc()}", flush=True)
            return True
        runs.append({**found, "commit": commit})
        spent = f", {found['spent_j']:.1f} J" if "spent_j" in found else ""
        print(f"{task.name}: {time.monotonic() - began_s:.0f} s{spent}", flush=True)
        return True


def _run(job: Job, scale: Scale, done: Done) -> Mapping[str, Any]:
    budget_j = None
    if job.budget is not None:
        budget_j = job.budget / 100 * done[job.reference.name]["update_j"]
    return run(
        job,
        scale.streams(job.stream, job.seed),
        budget_j=budget_j,
        epochs=scale.epochs,
        make=scale.model(job.stream),
    )


def _regret(folder: Path, seed: int, scale: Scale, done: Done) -> Mapping[str, Any]:
    return regret_run(
        folder, scale.images(), seed, num_experiences=scale.num_experiences, epochs=scale.epochs
    )
