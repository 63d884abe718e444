"""The same streams, weights and strengths' search in greentrain and in Avalanche, in pairs."""

from __future__ import annotations

import json
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from _results import Row
from pytorch_lightning import Callback
from torch.utils.data import DataLoader, TensorDataset

from _methods.entries import ENTRIES, STORED
from _methods.protocol import (
    BATCH_SIZE,
    CLASSES,
    CONTEXTS,
    Learned,
    Scenario,
    accuracy,
    class_groups,
    contexts,
    fit,
    make_model,
)
from _methods.runs import Run, Runs, Size, strength_of
from _methods.tables import WATTS_OF_A_CORE, counted_j
from greentrain.callbacks import GEM

AVALANCHE = "Avalanche"
SCRIPT = Path(__file__).with_name("avalanche_runs.py")
POINTS = 1.0
"""Distance of the accuracies that is allowed, in points."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One method of both libraries.

    Args:
        scenario: The scenario; of parameter anchors the task-incremental one, as all of them are at
            20 % in the class-incremental one.
        make: Returns greentrain's callbacks for a strength and a seed; the entry's unless given.
        factor: Avalanche's strength for a strength of 1, by the formulas of both.
        masked: Whether unseen classes are left out; Avalanche's DER and iCaRL cannot.
    """

    scenario: Scenario = "class"
    make: Callable[[float, int], list[Callback]] | None = None
    factor: float = 1.0
    masked: bool = True

    def callbacks(self, method: str, strength: float, seed: int) -> list[Callback]:
        """Return greentrain's callbacks."""
        if self.make is not None:
            return self.make(strength, seed)
        return ENTRIES[method].make(self.scenario, strength, seed)


PAIRS: dict[str, Pair] = {
    "LwF": Pair(),  # Avalanche distils over the old classes only, greentrain over all active ones
    "A-GEM": Pair(),
    "GEM": Pair(make=lambda strength, seed: [GEM(STORED, batch_size=STORED, seed=seed)]),
    "iCaRL": Pair(masked=False),
    "ER-MIR": Pair(),
    "DER": Pair(masked=False),
    # Avalanche's penalty has no factor 1/2, and squares the mean gradient of a batch of 128.
    "EWC": Pair(scenario="task", factor=BATCH_SIZE / 2),
    "SI": Pair(scenario="task"),
    "MAS": Pair(scenario="task", factor=0.5),
}


def do_pairs(runs: Runs, size: Size, python: str) -> None:
    """Do the runs that are missing, in turns, and those that choose the strengths.

    Args:
        runs: The file, in which Avalanche's methods have its name in front.
        size: Seeds and steps.
        python: Interpreter of an environment with Avalanche.
    """
    for seed in range(size.seeds):
        for number, method in enumerate(PAIRS):
            turns = ("", AVALANCHE) if (seed + number) % 2 else (AVALANCHE, "")
            for library in turns:
                for each in _searches(method, library, size):
                    runs.finish(each, partial(_work, python=python))
                run = _run(runs, method, library, seed, size)
                if run is not None:
                    runs.finish(run, partial(_work, python=python))


def pair_rows(runs: Runs, size: Size) -> list[Row]:
    """Return four rows for each method: both accuracies, their distance, and joules per step."""
    return [row for method in PAIRS for row in _rows(runs, size, method)]


def _rows(runs: Runs, size: Size, method: str) -> list[Row]:
    found: dict[str, dict[int, Run]] = {}
    for library in ("", AVALANCHE):
        done = {}
        for seed in range(size.seeds):
            wanted = _run(runs, method, library, seed, size)
            run = runs.get(wanted) if wanted is not None else None
            if run is not None:
                done[seed] = run
        found[library] = done
    both = sorted(found[""].keys() & found[AVALANCHE].keys())
    named = f"Split MNIST {PAIRS[method].scenario}-incremental, {method}"
    rows = [
        _accuracy_row(named, library or "greentrain", list(found[library].values()), size)
        for library in found
    ]
    ours, theirs = ([found[library][seed] for seed in both] for library in found)
    missing = size.seeds - len(both)
    note = f"the same data, weights and batch size; {missing} of {size.seeds} seeds were not run"
    if not both:
        note = "not run: no seed was finished in both"
    below = [b.accuracy - a.accuracy for a, b in zip(ours, theirs, strict=True)]  # type: ignore[operator]
    ratios = [(a.cpu_s or 0.0) / (b.cpu_s or 1.0) for a, b in zip(ours, theirs, strict=True)]
    shown = (
        ("points below Avalanche", "points", below, POINTS, statistics.fmean, "mean; " + note),
        (
            "joules of a step over those of Avalanche",
            "",
            ratios,
            1.0,
            statistics.median,
            "median of pairs in turns; processor seconds of training; " + note,
        ),
    )
    for what, unit, values, reach, middle, text in shown:
        row = Row(
            id="vs_avalanche",
            what=f"{named}: {what}",
            value=middle(values) if values else None,
            unit=unit,
            reach=reach,
            seeds=len(values),
            interval=(min(values), max(values)) if len(values) > 1 else None,
            note=text if values else note,
        )
        rows.append(row)
    return rows


def _accuracy_row(named: str, library: str, found: list[Run], size: Size) -> Row:
    values = [run.accuracy or 0.0 for run in found]
    missing = f"; {size.seeds - len(found)} of {size.seeds} seeds were not run"
    note = "not run: it takes minutes of a core, and the machine was shared"
    if found:
        step_j = statistics.median(
            counted_j(run.cpu_s or 0.0) / (CONTEXTS * run.steps) for run in found
        )
        strength = f"; strength {found[0].strength:g}, chosen on held-out data"
        note = (
            f"{size.steps:,} steps on each of {CONTEXTS} experiences; "
            f"{step_j:.3g} J a step at {WATTS_OF_A_CORE:g} W of a core"
            + (strength if found[0].strength else "")
            + (missing if len(found) < size.seeds else "")
        )
    return Row(
        id="vs_avalanche",
        what=f"{named}, {library}" + (" 0.6.0" if library == AVALANCHE else ""),
        value=statistics.fmean(values) if values else None,
        unit="%",
        better="higher",
        seeds=len(values),
        interval=(min(values), max(values)) if values else None,
        note=note,
    )


def _searches(method: str, library: str, size: Size) -> list[Run]:
    pair = PAIRS[method]
    factor = pair.factor if library else 1.0
    return [
        Run(
            method=f"{library} {method}".strip(),
            scenario=pair.scenario,
            strength=factor * each,
            seed=100,
            steps=size.search_steps,
            held_out=True,
        )
        for each in ENTRIES[method].grid.get(pair.scenario, ())
        if method in ("EWC", "SI", "MAS")
    ]


def _run(runs: Runs, method: str, library: str, seed: int, size: Size) -> Run | None:
    """Return a run with its chosen strength; ``None`` while the search is not done."""
    wanted = _searches(method, library, size)
    known = [done for done in map(runs.get, wanted) if done is not None]
    if len(known) < len(wanted):
        return None
    return Run(
        method=f"{library} {method}".strip(),
        scenario=PAIRS[method].scenario,
        strength=strength_of(known),
        seed=seed,
        steps=size.steps,
        held_out=False,
    )


def _work(run: Run, *, python: str) -> Learned:
    method = run.method.removeprefix(f"{AVALANCHE} ")
    if method == run.method:
        return _learn_here(run)
    return _learn_there(run, method, python)


def _learn_here(run: Run) -> Learned:
    pair = PAIRS[run.method]
    stream = contexts(run.scenario, run.seed, held_out=run.held_out)
    torch.manual_seed(run.seed)
    model = make_model(run.scenario)
    callbacks = pair.callbacks(run.method, run.strength, run.seed)
    torch.manual_seed(run.seed)
    began_s = time.process_time()
    for context in stream:
        model.activate(context.active if pair.masked else range(CLASSES))
        # a plain loader of single samples, as Avalanche has
        data = TensorDataset(*context.train.tensors)
        loader = DataLoader(data, batch_size=BATCH_SIZE, shuffle=True, drop_last=True)
        fit(model, loader, callbacks, run.steps)
    cpu_s = time.process_time() - began_s
    reached = accuracy(model, stream, run.scenario, callbacks)
    return Learned(accuracy=reached, cpu_s=cpu_s)


def _learn_there(run: Run, method: str, python: str) -> Learned:
    stream = contexts(run.scenario, run.seed, held_out=run.held_out)
    torch.manual_seed(run.seed)
    whole = tuple(range(CLASSES))
    active = [context.active if PAIRS[method].masked else whole for context in stream]
    content = {
        "method": method,
        "strength": run.strength,
        "steps": run.steps,
        "seed": run.seed,
        "weights": make_model(run.scenario).state_dict(),
        "groups": class_groups(run.seed),
        "train": [context.train.tensors for context in stream],
        "test": [context.test.tensors for context in stream],
        "trained": active,
        "tested": active if run.scenario == "task" else [whole] * CONTEXTS,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stream.pt"
        torch.save(content, path)
        command = [python, "-W", "ignore", str(SCRIPT), str(path)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"Avalanche's {method} failed:\n{done.stderr[-3000:]}")
    result = json.loads(done.stdout.splitlines()[-1])
    return Learned(accuracy=result["accuracy"], cpu_s=result["cpu_s"])
