"""Compare experience replay with Avalanche's: accuracy, and time per step over a stream."""

from __future__ import annotations

import json
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _results import Row
from scipy import stats

from _continual.learning import learn
from _continual.models import Perceptron
from _continual.steps import StepTimes, growth, median_gap
from greentrain.memory import ClassBalancedBuffer
from greentrain.metrics import average_accuracy
from greentrain.streams import class_incremental, data_incremental, mnist

_WORKER = Path(__file__).with_name("avalanche_worker.py")
_BATCH_SIZE, _HELD = 128, 1000
_ARRIVALS = 20
_PLACES = (1, 2, _ARRIVALS)
_NAMES = ("greentrain", "Avalanche")


def against_avalanche(folder: Path, python: str | None, *, quick: bool) -> list[Row]:
    """Return the accuracies and seconds per step of both libraries, Avalanche's if it loads.

    Args:
        folder: Folder of the data for both libraries.
        python: The interpreter that has Avalanche.
        quick: Whether to run a short form.
    """
    peer = Avalanche(folder, python)
    return [*_accuracies(peer, quick=quick), *_times(peer, quick=quick)]


class Avalanche:
    """Run the Avalanche worker, unless it has failed before.

    Args:
        folder: Folder of the data.
        python: The interpreter that has Avalanche.

    Attributes:
        note: Version of Avalanche, or the reason for missing results.
    """

    def __init__(self, folder: Path, python: str | None) -> None:
        self.note = "" if python else "not run: no --peers-python was given"
        self._python = python
        self._data = folder / "mnist.pt"
        if python:
            tensors = dict(zip(("train", "test"), (data.tensors for data in mnist()), strict=True))
            torch.save(tensors, self._data)

    def learn(
        self, scenario: str, *, steps: int, seed: int, keeps_moments: bool = False
    ) -> dict[str, Any] | None:
        """Train on a stream in Avalanche, and return the worker's output.

        Args:
            scenario: ``"class"`` or ``"data"``.
            steps: Steps for each experience.
            seed: Seed of weights and order.
            keeps_moments: Whether Adam keeps its moments at the next experience, which is
                Avalanche's default.
        """
        if self._python is None:
            return None
        given = {
            "data": str(self._data),
            "scenario": scenario,
            "experiences": 5 if scenario == "class" else _ARRIVALS,
            "steps": steps,
            "seed": seed,
            "batch_size": _BATCH_SIZE,
            "held": _HELD,
            "keeps_moments": keeps_moments,
        }
        done = subprocess.run(
            [self._python, str(_WORKER), json.dumps(given)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            self._python = None
            self.note = f"not run: {(done.stderr.strip().splitlines() or ['it ended'])[-1]}"
            return None
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.note = f"avalanche-lib {result['version']}"
        return result


def _accuracies(peer: Avalanche, *, quick: bool) -> list[Row]:
    steps, seeds = (100, range(1)) if quick else (500, range(10))
    train, test = mnist()
    ours, theirs, usual = [], [], []
    for seed in seeds:
        stream = class_incremental(train, n_experiences=5, test=test, val_share=0.001, seed=seed)
        matrix = learn(
            stream,
            ClassBalancedBuffer(_HELD, per_class=_HELD // 10, seed=seed),
            lambda position: Perceptron(),
            steps=steps,
            batch_size=_BATCH_SIZE,
            seed=seed,
        )
        ours.append(100 * average_accuracy(matrix))
        for values, keeps_moments in ((theirs, False), (usual, True)):
            result = peer.learn("class", steps=steps, seed=seed, keeps_moments=keeps_moments)
            if result is not None:
                values.append(100 * statistics.fmean(result["accuracies"]))
    protocol = (
        f"Split MNIST class-incremental in order. 2x400 ReLU, Adam 1e-3 that starts without "
        f"moments at each experience. {steps} steps of 128 new and 128 stored samples with equal "
        "weights for each experience; 100 samples per class"
    )
    apart = abs(statistics.fmean(ours) - statistics.fmean(theirs)) if theirs else None
    return [
        Row(
            id="er_vs_avalanche",
            what="distance between the two libraries' accuracies",
            value=apart,
            unit="points",
            reach=0.5,
            seeds=len(seeds),
            interval=_difference(ours, theirs),
            note=f"{protocol}; 95 % interval of greentrain's less Avalanche's (Welch)"
            if theirs
            else peer.note,
        ),
        *(
            Row(
                id="er_vs_avalanche",
                what=f"{name}: accuracy",
                value=statistics.fmean(values) if values else None,
                unit="%",
                better="higher",
                seeds=len(values) or 1,
                interval=(min(values), max(values)) if values else None,
                note="mean, lowest and highest seed" if name == _NAMES[0] else peer.note,
            )
            for name, values in zip(
                (*_NAMES, "Avalanche with the moments that it keeps by default"),
                (ours, theirs, usual),
                strict=True,
            )
        ),
    ]


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float] | None:
    if len(theirs) < 2:
        return None
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return (float(low), float(high))


def _times(peer: Avalanche, *, quick: bool) -> list[Row]:
    """Time the steps of both libraries in turns, and return the median over the turns."""
    steps, turns = (20, 1) if quick else (200, 5)
    stream = data_incremental(mnist()[0], n_experiences=_ARRIVALS)
    rounds: dict[str, list[list[float]]] = {name: [] for name in _NAMES}
    for turn in range(turns):
        times = StepTimes()
        learn(
            stream,
            ClassBalancedBuffer(_HELD, seed=turn),
            lambda position: Perceptron(),
            steps=steps,
            batch_size=_BATCH_SIZE,
            seed=turn,
            callbacks=[times],
        )
        rounds[_NAMES[0]].append(times.medians_s)
        result = peer.learn("data", steps=steps, seed=turn)
        if result is not None:
            rounds[_NAMES[1]].append([median_gap(ends_s) for ends_s in result["ends_s"]])
    rows = []
    for name, measured in rounds.items():
        by_place = [statistics.median(values) for values in zip(*measured, strict=True)]
        rows += [_time(name, place, by_place, measured, peer.note, steps) for place in _PLACES]
        if by_place:
            rows.append(
                growth(
                    "er_vs_avalanche",
                    f"{name}: growth of the time per step from the 2nd to the {_ARRIVALS}th",
                    by_place[1:],
                    held_to=name == _NAMES[0],
                    note=f"medians of {turns} turns",
                )
            )
    return rows


def _time(
    name: str,
    place: int,
    by_place: Sequence[float],
    measured: Sequence[Sequence[float]],
    note: str,
    steps: int,
) -> Row:
    alone = ", without stored samples yet" if place == 1 else ""
    turns_ms = [1e3 * values[place - 1] for values in measured]
    return Row(
        id="er_vs_avalanche",
        what=f"{name}: time per step, experience {place} of {_ARRIVALS}{alone}",
        value=1e3 * by_place[place - 1] if by_place else None,
        unit="ms",
        seeds=len(turns_ms) or 1,
        interval=(min(turns_ms), max(turns_ms)) if turns_ms else None,
        note=f"one thread; {steps} steps on 3,000 new samples and 1,000 stored ones; the two "
        "libraries in turns, median of the steps' medians"
        if turns_ms
        else note,
    )
