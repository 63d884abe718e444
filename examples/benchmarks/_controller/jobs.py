"""List the runs in order, and claim each for one process."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SEEDS = (0, 1, 2, 3, 4, 5)
PARTS = ("table", "new", "default", "baselines", "cnn", "bounded", "full", "plenty", "units")
STREAMS = ("a", "b", "c", "d", "e")
DESIGN = ("g", "i", "k", "m")
"""New streams on which the design of the default may be chosen."""
APART = ("f", "h", "j", "l")
"""New streams that are reported apart, and that no choice may depend on."""
NEW = tuple(sorted((*DESIGN, *APART)))
BASELINES = ("greedy", "always-warm", "always-replay", "even-warm")
OF_PRESENT = "i"
"""Stream that is judged on the present alone: fine-tuning is one more fixed update mode there."""
RIVALS = (*BASELINES, "always-tune")
"""All policies that are compared with the default in real runs."""
IN_TABLE: Mapping[str, Sequence[int]] = {
    "a": (10, 5),
    "b": (15,),
    "c": (15, 5),
    "d": (10, 5),
    "e": (10,),
}
"""Budgets in % of full's joules for which a share of the gap is a target, by stream."""
BUDGETS = (5, 10, 20, 2, 15, 50)
IN_NEW: Mapping[str, Sequence[int]] = {stream: (15, 5) for stream in NEW} | {"f": (10, 15, 5)}
"""Budgets of the new streams, likewise."""
PLENTY = "g"
"""Stream that is also learned without a limit."""
UNITS = "l"
"""Stream whose metric is also logged times these factors."""
FACTORS = (0.01, 1000.0)
UNITS_BUDGET = 15
BOUNDED = ("b", "c")
"""Streams that are also learned with a bounded memory."""
MEMORIES = ("2000", "none")
_ALL = "all"
_DEAR = 50
_SEEDS_OF_DEAR = 2
_SEEDS_OF_C = 6
_SEEDS_OF_REST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a stream.

    Args:
        stream: Name of the stream.
        seed: Seed of the stream and of the weights.
        policy: Name of the policy; ``"full"`` is the reference.
        budget: Budget in % of the joules of the reference; ``None`` for no limit.
        memory: Past data that is kept: all, a number of samples, or none.
        logged: Factor of the logged metric; ``None`` for the metric as it is.
    """

    stream: str
    seed: int
    policy: str = "full"
    budget: int | None = None
    memory: str = _ALL
    logged: float | None = None

    @property
    def name(self) -> str:
        """Name of the job."""
        share = "" if self.budget is None else f"-{self.budget}"
        kept = "" if self.memory == _ALL else f"-memory-{self.memory}"
        factor = "" if self.logged is None else f"-logged-{self.logged:g}"
        return f"{self.stream}-{self.seed}-{self.policy}{share}{kept}{factor}"

    @property
    def counted(self) -> bool:
        """``True`` on small streams: joules follow from counted samples, so runs repeat."""
        return self.stream in NEW

    @property
    def reference(self) -> Job:
        """The run whose joules are 100 %: full retraining on the kept data, if any is kept."""
        memory = _ALL if self.memory == _ALL else MEMORIES[0]
        return Job(stream=self.stream, seed=self.seed, memory=memory)


def jobs(
    *,
    streams: Sequence[str] = (),
    seeds: Sequence[int] = SEEDS,
    parts: Collection[str] = PARTS,
    budgets: Collection[int] = (),
    policies: Collection[str] = (),
) -> list[Job]:
    """Return the requested runs and their references, the most important ones first.

    Args:
        streams: The streams; all unless given.
        seeds: The seeds; a stream may have fewer.
        parts: Some of :data:`PARTS`.
        budgets: The budgets; all unless given.
        policies: The policies besides the references; all unless given.

    Example:
        >>> [job.name for job in jobs(streams=["a"], seeds=[0], parts=["table"])]
        ['a-0-full', 'a-0-default-10', 'a-0-default-5']
    """
    found: dict[Job, None] = {}
    for part in PARTS:
        for seed in seeds if part in parts else ():
            found |= dict.fromkeys(_of_part(part, seed))
    wanted = streams or (*STREAMS, *NEW, "a_cnn")
    ordered = [
        job
        for job in found
        if job.stream in wanted
        and (not budgets or job.budget is None or job.budget in budgets or job.memory != _ALL)
        and (not policies or job.policy in policies)
        and job.seed < (_seeds(job.stream) if job.memory == _ALL else _SEEDS_OF_REST)
    ]
    return _references_first(ordered)


def _of_part(part: str, seed: int) -> Iterator[Job]:
    budgets_of_seed = [each for each in BUDGETS if each != _DEAR or seed < _SEEDS_OF_DEAR]
    if part in ("full", "table"):  # seed by seed, so that first figures are available early
        for stream in STREAMS:
            yield Job(stream=stream, seed=seed)
    if part == "table":
        for stream, budgets in IN_TABLE.items():
            for budget in budgets:
                yield Job(stream=stream, seed=seed, policy="default", budget=budget)
    elif part == "default":
        for budget in budgets_of_seed:
            for stream in STREAMS:
                yield Job(stream=stream, seed=seed, policy="default", budget=budget)
    elif part == "baselines":
        for budget in budgets_of_seed:
            for stream in STREAMS:
                for policy in BASELINES:
                    yield Job(stream=stream, seed=seed, policy=policy, budget=budget)
    elif part == "new":
        for stream in (*DESIGN, *APART):
            yield Job(stream=stream, seed=seed)
            rivals = RIVALS if stream == OF_PRESENT else BASELINES
            for budget in IN_NEW[stream]:
                for policy in ("default", *rivals):
                    yield Job(stream=stream, seed=seed, policy=policy, budget=budget)
    elif part == "plenty":
        yield Job(stream=PLENTY, seed=seed, policy="default")
    elif part == "units":
        yield Job(stream=UNITS, seed=seed, policy="default", budget=UNITS_BUDGET)
        for factor in FACTORS:
            yield Job(stream=UNITS, seed=seed, policy="default", budget=UNITS_BUDGET, logged=factor)
    elif part == "cnn":
        for budget in IN_TABLE["a"]:
            yield Job(stream="a_cnn", seed=seed, policy="default", budget=budget)
    elif part == "bounded":
        for stream in BOUNDED:
            for memory in MEMORIES:
                yield Job(stream=stream, seed=seed, policy="default", budget=100, memory=memory)


def memory_of(name: str) -> str:
    """Return the description of a memory."""
    return "no memory" if name == "none" else f"a memory of {int(name):,} samples"


def _references_first(jobs: Sequence[Job]) -> list[Job]:
    found: dict[Job, None] = {}
    for job in jobs:
        found |= dict.fromkeys((job.reference, job))
    return list(found)


def _seeds(stream: str) -> int:
    return _SEEDS_OF_C if stream == "c" else _SEEDS_OF_REST


class Runs:
    """Finished runs, as lines of JSON in a folder that several processes share.

    Args:
        folder: The folder; created if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / "runs.jsonl"
        self._claims = folder / "claims"
        self._claims.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, dict[str, Any]]:
        """Return the runs by name."""
        return read_runs(self._path)

    def append(self, run: Mapping[str, Any]) -> None:
        """Add a finished run."""
        line = json.dumps(run, allow_nan=False, separators=(",", ":")) + "\n"
        with self._path.open("a", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.write(line)

    @contextmanager
    def claim(self, name: str) -> Iterator[bool]:
        """Claim a run; yield False if another process has claimed it.

        The claim is a lock on a file, which the operating system releases when a process ends.
        """
        with (self._claims / name).open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield name not in self.read()


def read_runs(path: Path) -> dict[str, dict[str, Any]]:
    """Return the runs of a file by name; none if it is missing."""
    if not path.is_file():
        return {}
    runs = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {run["name"]: run for run in runs}


def write_runs(path: Path, runs: Mapping[str, Mapping[str, Any]]) -> None:
    """Write runs to a file, in the order of their names."""
    lines = [json.dumps(runs[name], separators=(",", ":")) + "\n" for name in sorted(runs)]
    path.write_text("".join(lines), encoding="utf-8")
