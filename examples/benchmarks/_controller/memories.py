"""Rows of bounded memories: forgetting, memory and joules, and the comparison with GDumb."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import torch
from _continual.steps import growth
from _results import Row

from _controller.gaps import STREAM_NAMES
from _controller.jobs import BOUNDED, MEMORIES, memory_of
from _controller.shares import Run, accuracy, anytime, mean
from greentrain.metrics import AccuracyMatrix, average_accuracy, backward_transfer, forgetting

_ID = "bounded"


def memory_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the rows of a memory of 2,000 samples, and of no memory."""
    rows: list[Row] = []
    for stream in BOUNDED:
        for memory in MEMORIES:
            rows += _rows(runs, stream, memory)
    return rows


def matrix_of(run: Run) -> torch.Tensor:
    """Return the accuracies after each experience on each of those so far.

    Example:
        >>> experiences = [{"right": [8]}, {"right": [6, 10]}]
        >>> matrix_of({"n_test": [10, 20], "experiences": experiences})
        tensor([[0.8000,    nan],
                [0.6000, 0.5000]])
    """
    matrix = AccuracyMatrix()
    for after, entry in enumerate(run["experiences"]):
        for on, right in enumerate(entry["right"][: after + 1]):
            matrix.update(after=after, on=on, value=right / run["n_test"][on])
    return matrix.compute()


def _rows(runs: Mapping[str, Run], stream: str, memory: str) -> list[Row]:
    kept = f"{memory_of(memory)}: {STREAM_NAMES[stream]}"
    ours = _of(runs, stream, memory, "default")
    rivals = _of(runs, stream, memory, "full")
    if not ours:
        return [Row(id=_ID, what=f"with {kept}", value=None, unit="", note="not run")]
    matrices = {seed: matrix_of(run) for seed, run in ours.items()}
    final = [100 * average_accuracy(matrix) for matrix in matrices.values()]
    rows = [
        _row(f"accuracy at the end, {kept}", final, "%"),
        _row(f"forgetting, {kept}", [100 * forgetting(each) for each in matrices.values()]),
        _row(
            f"backward transfer, {kept}",
            [100 * backward_transfer(each) for each in matrices.values()],
        ),
    ]
    if rivals:
        both = sorted(ours.keys() & rivals.keys())
        ahead = [100 * (anytime(ours[seed]) - anytime(rivals[seed])) for seed in both]
        ends = [100 * (_end(ours[seed]) - _end(rivals[seed])) for seed in both]
        what = "ahead of retraining on what is kept (GDumb) at the same joules"
        rows += [
            _row(f"anytime accuracy {what}, {kept}", ahead, reach=0.0),
            _row(f"accuracy at the end {what}, {kept}", ends),
        ]
    held = _columns([[entry["bytes"] for entry in run["experiences"]] for run in ours.values()])
    joules = _columns(
        [
            [entry["update_j"] + entry["beside_j"] for entry in run["experiences"]]
            for run in ours.values()
        ]
    )
    note = f"means over {len(ours)} seeds: " + ", ".join(f"{each:.3g}" for each in joules) + " J"
    rows.append(
        growth(
            _ID,
            f"growth of joules per experience, {kept}",
            joules[1:],
            held_to=True,
            note=f"{note}; without the first",
        )
    )
    if any(held):
        note = f"{max(held) / 2**20:.1f} MiB at the most"
        what = f"growth of bytes in memory, {kept}"
        rows.append(growth(_ID, what, held[1:], held_to=True, note=f"{note}; without the first"))
    return rows


def _of(runs: Mapping[str, Run], stream: str, memory: str, policy: str) -> dict[int, Run]:
    wanted = (stream, memory, policy)
    found = [
        run
        for run in runs.values()
        if (run.get("stream"), run.get("memory", "all"), run.get("policy")) == wanted
    ]
    return {run["seed"]: run for run in sorted(found, key=lambda run: int(run["seed"]))}


def _end(run: Run) -> float:
    last = len(run["experiences"]) - 1
    return accuracy(run["experiences"][last]["right"], run["n_test"], last)


def _columns(rows: Sequence[Sequence[float]]) -> list[float]:
    return [statistics.fmean(column) for column in zip(*rows, strict=True)]


def _row(
    what: str, values: Sequence[float], unit: str = "points", *, reach: float | None = None
) -> Row:
    found = mean(values)
    return Row(
        id=_ID,
        what=what,
        value=found.value,
        unit=unit,
        reach=reach,
        better="higher",
        seeds=found.seeds,
        interval=found.interval,
        note="mean and 95 % interval over seeds; the budget is the joules of retraining in full "
        "on a memory of 2,000 at each arrival",
    )
