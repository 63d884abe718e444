"""Measure the time of a callback on the training thread, and its memory."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from _results import Row

from _measurement.peers import blank, present
from _measurement.processes import NAMES, PEERS, Answer, Workers, at_once

_SETUP = Row(id="setup_ms", what="hooks until the first batch", value=None, unit="ms")
_EPOCH = Row(id="epoch_hooks_ms", what="hooks of one epoch", value=None, unit="ms")


def hooks(workers: Workers, *, quick: bool) -> list[Row]:
    """Return the time of the hooks on the training thread, at start-up and in epochs."""
    task = {"task": "fit", "batches": 20, "epochs": 20 if quick else 200, "gpu_only": False}
    can, missing = present(workers, _SETUP, list(PEERS))
    kinds = [("bare", False), ("greentrain", True), ("greentrain", False)]
    kinds += [(tool, False) for tool in can]
    collected: dict[tuple[str, bool], list[Answer]] = {kind: [] for kind in kinds}
    for _ in range(
        1 if quick else 5
    ):  # interleaved, so that changes of the machine's speed affect all alike
        for tool, ledger in kinds:
            answer = workers.run(tool, {**task, "ledger": ledger}, workers.node())
            collected[tool, ledger].append(answer)
    missing += [blank(_EPOCH, tool, workers.missing(tool)) for tool in PEERS if tool not in can]
    bare = [answer.result for answer in collected.pop(("bare", False)) if answer.result]
    rows = []
    for (tool, ledger), answers in collected.items():
        runs = [answer.result for answer in answers if answer.result]
        errors = [answer.error for answer in answers if not answer.result]
        failed = f"; {len(errors)} of {len(answers)} failed: {errors[-1]}" if errors else ""
        rows += _of_tool(tool, runs, bare, ledger=ledger, failed=failed)
    return sorted([*rows, *missing], key=lambda row: row.id, reverse=True)


def _of_tool(
    tool: str,
    runs: Sequence[dict[str, Any]],
    bare: Sequence[dict[str, Any]],
    *,
    ledger: bool,
    failed: str,
) -> list[Row]:
    name = NAMES[tool] + (", with a ledger" if ledger else "")
    ours = tool == "greentrain"
    setup_ms = [run["setup_ms"] - each["setup_ms"] for run, each in zip(runs, bare, strict=False)]
    epoch_ms = [run["epoch_ms"] - each["epoch_ms"] for run, each in zip(runs, bare, strict=False)]
    per_batch = sorted({hook for run in runs for hook in run["batch_hooks"]})
    begun = [_median([run["to_first_batch_ms"] for run in each]) for each in (runs, bare)]
    note = f"one simulated card, CPU and RAM; medians of fresh processes, interleaved{failed}"
    return [
        _timed(
            _SETUP,
            name,
            setup_ms,
            reach=50.0 if ours else None,
            note=f"from fit() to the first batch {begun[0]:.0f} ms, bare {begun[1]:.0f} ms; {note}",
        ),
        _timed(
            _EPOCH,
            name,
            epoch_ms,
            reach=(5.0 if ledger else 1.0) if ours else None,
            note=f"per batch: {', '.join(per_batch) or 'nothing'}; {note}, of the median epoch",
        ),
    ]


def _timed(row: Row, name: str, values: list[float], *, reach: float | None, note: str) -> Row:
    return Row(
        id=row.id,
        what=f"{name}: {row.what}",
        value=_median(values) if values else None,
        unit=row.unit,
        reach=reach,
        seeds=len(values),
        interval=(min(values), max(values)) if values else None,
        note=note,
    )


def _median(values: Sequence[float]) -> float:
    return statistics.median(values) if values else float("nan")


def memory(workers: Workers, *, quick: bool) -> list[Row]:
    """Return the growth of a process over many epochs, with and without greentrain."""
    early, late = (30, 300) if quick else (1_000, 10_000)
    task = {"task": "memory", "batches": 1, "epochs": late, "at": (early, late), "ledger": True}
    kinds = [("bare", True), ("greentrain", True), ("greentrain", False)][: 2 if quick else 3]

    def call(kind: tuple[str, bool]) -> Answer:
        tool, gpu_only = kind
        return workers.run(tool, {**task, "gpu_only": gpu_only}, workers.node())

    nothing = [float("nan")] * 2
    answers = at_once(call, kinds, width=2)
    bare, gpu, *more = (answer.result.get("grown_mb", nothing) for answer in answers)
    rows = [
        _grown(
            "greentrain: NVML meter, monitor and ledger",
            gpu[1] - bare[1],
            reach=30.0,
            note=f"resident memory after {late:,} epochs, beyond that of bare training",
        ),
        _grown(
            f"greentrain: growth from epoch {early:,} to {late:,}",
            gpu[1] - gpu[0] - (bare[1] - bare[0]),
            note=f"beyond that of bare training, which grows by {bare[1] - bare[0]:.1f} MB",
        ),
    ]
    if more:
        share_mb = more[0][1] - gpu[1]
        note = "the same with CPU and RAM by CodeCarbon, beyond that without"
        rows.append(_grown("greentrain: CodeCarbon's share", share_mb, note=note))
    return rows


def _grown(what: str, grown_mb: float, *, reach: float | None = None, note: str) -> Row:
    known = grown_mb == grown_mb
    return Row(
        id="memory_mb",
        what=what,
        value=grown_mb if known else None,
        unit="MB",
        reach=reach,
        note=note if known else "its process ended without a result",
    )
