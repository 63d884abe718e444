"""Run the pieces of the benchmark one by one, and keep each in a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from _methods.entries import ENTRIES, SCENARIOS
from _methods.protocol import Data, Learned, Scenario, learn, learn_jointly

JOINT = "joint"
ORDER: tuple[tuple[str, Scenario], ...] = (
    *(("none", "class"), ("LwF", "task"), ("LwF", "class"), ("LwF", "domain"), ("EWC", "task")),
    *(("SI", "task"), (JOINT, "class"), ("A-GEM", "class"), ("EWC", "class"), ("SI", "class")),
    *(("DER", "class"), ("DER++", "class"), ("GEM", "class")),
    *((name, "class") for name in ("iCaRL", "GDumb", "DGR", "DGR+distill")),
    *((name, "task") for name in ("progressive", "Piggyback", "SupSup")),
    *((name, "task") for name in ("hypernetwork", "InterContiNet")),
    *((name, "task") for name in ("online EWC", "MAS", "L2", "none")),
    *((name, "domain") for name in ("EWC", "online EWC", "SI", "MAS", "L2", "none", JOINT)),
    *((name, "class") for name in ("online EWC", "MAS", "L2", "ER", "ER-MIR", "AQM")),
    *((name, "class") for name in ("BinPlay", "Multiband VAE", "LogCL", "RTF")),
)
"""Methods and scenarios on MNIST in the order of their runs, for each seed."""
FASHION_ORDER: tuple[tuple[str, Scenario], ...] = (
    *(("none", "class"), ("none", "task"), ("none", "domain"), (JOINT, "class")),
    *((name, "class") for name in ("ER", "AQM", "DGR+distill", "iCaRL", "GEM", "ER-MIR", "DGR")),
    *((name, scenario) for name in ("LwF", "SI", "L2") for scenario in SCENARIOS),
    *((name, scenario) for name in ("EWC", "online EWC", "MAS") for scenario in SCENARIOS),
    *(("InterContiNet", "task"), (JOINT, "domain")),
)
"""Those on Fashion-MNIST, which follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One stream that was learned.

    Args:
        method: Name of the method.
        scenario: Task-, domain- or class-incremental.
        strength: Strength of the method; 0 for one without.
        seed: Seed of the run.
        steps: Steps on each experience.
        held_out: Whether it was measured on held-out training data, to choose a strength.
        accuracy: Mean accuracy at the end, in percent.
        cpu_s: Seconds of one processor core.
        data: MNIST or Fashion-MNIST.
        bytes: Bytes that the method keeps; ``None`` where they were not counted.
    """

    method: str
    scenario: Scenario
    strength: float
    seed: int
    steps: int
    held_out: bool
    accuracy: float | None = None
    cpu_s: float | None = None
    data: Data = "mnist"
    bytes: int | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """The arguments that identify the run."""
        return (
            *(self.method, self.scenario, self.strength),
            *(self.seed, self.steps, self.held_out, self.data),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Number of seeds and steps.

    Args:
        seeds: Seeds of each method.
        steps: Steps on each experience.
        search_steps: The same, in the search for strengths.
        fashion: Whether to do the runs on Fashion-MNIST, too.
    """

    seeds: int
    steps: int
    search_steps: int
    fashion: bool = True


class Runs:
    """The finished runs in a file of one JSON object a line.

    Args:
        path: The file; read if it exists, and appended to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._done = {run.key: run for run in (Run(**json.loads(line)) for line in lines)}

    def __iter__(self) -> Iterator[Run]:
        return iter(self._done.values())

    def get(self, run: Run) -> Run | None:
        """Return a finished run, or ``None``."""
        return self._done.get(run.key)

    def finish(self, run: Run, work: Callable[[Run], Learned]) -> Run:
        """Return a run from the file, or do it and append it."""
        done = self.get(run)
        if done is None:
            found = work(run)
            values = {"accuracy": found.accuracy, "cpu_s": round(found.cpu_s, 1)}
            done = Run(**(asdict(run) | values | {"bytes": found.bytes}))
            self._done[done.key] = done
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(asdict(done)) + "\n")
            print(
                f"{done.data} {done.method} {done.scenario}: {found.accuracy:.2f} %, "
                f"{found.cpu_s:.0f} s",
                flush=True,
            )
        return done


def work(run: Run) -> Learned:
    """Learn the stream of a run."""
    if run.method == JOINT:
        return learn_jointly(run.scenario, steps=run.steps, seed=run.seed, data=run.data)
    entry = ENTRIES[run.method]
    return learn(
        run.scenario,
        entry.make(run.scenario, run.strength, run.seed),
        steps=run.steps,
        seed=run.seed,
        held_out=run.held_out,
        make=None if entry.model is None else partial(entry.model, run.strength),
        data=run.data,
    )


def searches(method: str, scenario: Scenario, steps: int, data: Data = "mnist") -> list[Run]:
    """Return the runs that choose the strength of a method."""
    name = ENTRIES[method].searched_as or method
    return [
        Run(
            method=name,
            scenario=scenario,
            strength=each,
            seed=100,
            steps=steps,
            held_out=True,
            data=data,
        )
        for each in ENTRIES[name].grid.get(scenario, ())
    ]


def strength_of(found: list[Run]) -> float:
    """Return the strength with the highest accuracy; 0 for a method without one."""
    return max(found, key=lambda run: run.accuracy or 0.0).strength if found else 0.0


def do_all(runs: Runs, size: Size, part: tuple[int, int] = (0, 1)) -> None:
    """Do the runs that are missing, seed by seed.

    Args:
        runs: The file.
        size: Seeds and steps.
        part: Number of this process, and number of processes that share the work.
    """
    pieces: list[tuple[int, str, Scenario, Data]] = []
    for seed in range(size.seeds):
        pieces += [(seed, *piece, "mnist") for piece in ORDER]
        pieces += [(seed, *piece, "fashion") for piece in FASHION_ORDER if size.fashion]
    for seed, method, scenario, data in pieces[part[0] :: part[1]]:
        run = measured(runs, method, scenario, seed, size, data, do=True)
        if run is not None:
            runs.finish(run, work)


def measured(
    runs: Runs,
    method: str,
    scenario: Scenario,
    seed: int,
    size: Size,
    data: Data = "mnist",
    *,
    do: bool = False,
) -> Run | None:
    """Return the run of a method with its chosen strength; ``None`` while the search is not done.

    Args:
        runs: The file.
        method: Name of the method.
        scenario: The scenario.
        seed: Seed of the run.
        size: Steps on each experience.
        data: MNIST or Fashion-MNIST.
        do: Whether to do the search.
    """
    wanted = [] if method == JOINT else searches(method, scenario, size.search_steps, data)
    found = [runs.finish(each, work) if do else runs.get(each) for each in wanted]
    known = [each for each in found if each is not None]
    if len(known) < len(wanted):
        return None
    run = Run(
        method=method,
        scenario=scenario,
        strength=strength_of(known),
        seed=seed,
        steps=size.steps,
        held_out=False,
        data=data,
    )
    return run if do else runs.get(run)
