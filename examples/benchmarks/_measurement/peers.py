"""Measure simulated nodes with the peers and with greentrain, in real time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from _results import Row

from _measurement import truth
from _measurement.processes import NAMES, PEERS, Answer, Workers, at_once
from tests.nvml.simulation import NOT_SUPPORTED, Node

_LEAD_S = 12.0
_LEAD_PER_JOB_S = 2.0
"""Seconds from the start of workers until they measure, so that all have finished importing."""

_NOT_QUICK = "not run with --quick"

Nodes = dict[str, Node]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A measurement of a node by a tool, with the name of its case."""

    tool: str
    case: str
    node: Node
    mask: str | None = None


def blank(row: Row, tool: str, note: str) -> Row:
    """Return the row of a tool that was not run, like the row of another tool."""
    return replace(row, what=f"{NAMES[tool]}: {row.what}", note=note)


def present(workers: Workers, row: Row, tools: Sequence[str]) -> tuple[list[str], list[Row]]:
    """Return the tools that can be run, and a row without a value for each other tool."""
    missing = {tool: workers.missing(tool) for tool in tools}
    can = [tool for tool in tools if not missing[tool]]
    return can, [blank(row, tool, missing[tool]) for tool in tools if missing[tool]]


def counters(workers: Workers, *, quick: bool) -> list[Row]:
    """Return errors with an energy counter, over 10 s."""

    def nodes() -> Nodes:
        one, two, bursty = workers.node(), workers.node(2), workers.node(2)
        for index, card in enumerate(bursty.shown):
            card.square(50.0, 350.0, 0.37, phase_s=0.1 * index)
        return {"one card": one} if quick else {"one card": one, "two": two, "two, bursts": bursty}

    row = Row(id="counter_10s", what="", value=None, unit="%")
    tools = ["greentrain", "codecarbon-run", "carbontracker", "zeus"]
    rows = _errors(workers, row, tools, nodes, quick=quick)
    if quick:
        return rows
    return rows + _errors(workers, row, ["codecarbon"], nodes, quick=quick, windows=2)


def sampled(workers: Workers, *, quick: bool) -> list[Row]:
    """Return errors without an energy counter, over 10 s."""

    def nodes() -> Nodes:
        constant, bursty = workers.node(), workers.node()
        bursty.cards[0].square(50.0, 350.0, 0.5)
        for node in (constant, bursty):
            node.cards[0].counter_result = NOT_SUPPORTED
        return {"constant": constant} if quick else {"constant": constant, "bursts": bursty}

    row = Row(id="sampled_60s", what="", value=None, unit="%")
    tools = ["greentrain"] if quick else ["greentrain", "codecarbon-run", "carbontracker", "zeus"]
    return _errors(workers, row, tools, nodes, quick=quick)


def masks(workers: Workers, *, quick: bool) -> list[Row]:
    """Count the masks under which a peer measures other cards than the visible ones, or none."""
    row = Row(id="masks", what="masks that give wrong cards", value=None, unit="masks")
    can, rows = present(workers, row, list(PEERS))
    if quick:
        return rows + [blank(row, tool, _NOT_QUICK) for tool in can]
    chosen = [truth.MASKS[index] for index in (0, 1, 2, 4, 6)]
    cards = {str(mask): shown for mask, shown in chosen}
    jobs = [
        _Job(tool=tool, case=str(mask), node=truth.eight_cards(workers), mask=mask)
        for tool in can
        for mask, _ in chosen
    ]
    answers = _windows(workers, jobs, 2.0, quick=quick)

    def wrong(job: _Job, answer: Answer) -> str:
        joules = answer.result.get("joules")
        if joules is None:
            return f"{job.case}: {_why(answer)}"
        seconds = answer.result["ended_s"] - answer.result["began_s"]
        truth_j = seconds * sum(100.0 * (index + 1) for index in cards[job.case])
        right = abs(joules - truth_j) <= 0.2 * truth_j
        return "" if right else f"{job.case}: {joules:.0f} of {truth_j:.0f} J"

    return rows + _counts(row, can, jobs, answers, wrong)


def faults(workers: Workers, *, quick: bool) -> list[Row]:
    """Count the faults of a card that break a peer: negative joules, or no figure at all."""
    row = Row(id="faults", what="faults that break figures or training", value=None, unit="faults")
    can, rows = present(workers, row, list(PEERS))
    if quick:
        return rows + [blank(row, tool, _NOT_QUICK) for tool in can]
    jobs = [
        _Job(tool=tool, case=fault, node=workers.node())
        for tool in can
        for fault in ("restart", "loss")
    ]

    def strike(begin_at_s: float) -> None:
        for job in jobs:
            job.node.run_in_real_time()
            at_s, card = begin_at_s + 2.0 - job.node.origin_s, job.node.cards[0]
            if job.case == "restart":
                card.restart_s = at_s
            else:
                card.lost_s = at_s

    def wrong(job: _Job, answer: Answer) -> str:
        joules = answer.result.get("joules")
        if joules is None:
            return f"{job.case}: {_why(answer)}"
        text = f"{job.case}: {joules / answer.truth_j:.1f} times the truth"
        return text if joules <= 0 or answer.code else ""

    answers = _windows(workers, jobs, 5.0, quick=quick, before=strike)
    return rows + _counts(row, can, jobs, answers, wrong)


def ranks(workers: Workers, *, quick: bool) -> list[Row]:
    """Count the cards whose sum is wrong if each of two processes of a host runs a peer."""
    row = Row(id="ranks", what="cards not counted exactly once", value=None, unit="cards")
    can, rows = present(workers, row, ["codecarbon", "zeus"])
    if quick:
        return rows + [blank(row, tool, _NOT_QUICK) for tool in can]
    jobs = [_Job(tool=tool, case="", node=workers.node(2)) for tool in can for _ in range(2)]
    answers = _windows(workers, jobs, 5.0, quick=quick)
    for tool in can:
        mine = [a for job, a in zip(jobs, answers, strict=True) if job.tool == tool]
        times = sum((a.result.get("joules") or 0.0) / a.truth_j for a in mine if a.result)
        value = 0.0 if abs(times - 1.0) <= 0.1 else 2.0
        note = f"two processes that see two cards: their sum is {times:.2f} times the truth"
        rows.append(replace(blank(row, tool, note), value=value))
    return rows


def _windows(
    workers: Workers,
    jobs: Sequence[_Job],
    seconds: float,
    *,
    quick: bool,
    windows: int = 1,
    before: Callable[[float], None] | None = None,
) -> list[Answer]:
    """Measure nodes by their tools, all at the same time; ``before`` gets their start time."""
    lead_s = 0.0 if quick else _LEAD_S + _LEAD_PER_JOB_S * len(jobs)
    begin_at_s = time.monotonic() + lead_s
    if before is not None:
        before(begin_at_s)
    task = {"task": "window", "seconds": seconds, "windows": windows, "begin_at_s": begin_at_s}

    def call(job: _Job) -> Answer:
        tool = job.tool if windows > 1 else _WHOLE_RUN.get(job.tool, job.tool)
        environment = {} if job.mask is None else {"CUDA_VISIBLE_DEVICES": job.mask}
        return workers.run(tool, task, job.node, **environment)

    return at_once(call, jobs, width=2 if quick else max(1, len(jobs)))


_WHOLE_RUN = {"codecarbon": "codecarbon-run"}
"""Variant of a tool that measures a single window."""


def _errors(
    workers: Workers,
    row: Row,
    tools: Sequence[str],
    nodes: Callable[[], Nodes],
    *,
    quick: bool,
    windows: int = 1,
) -> list[Row]:
    """Return the worst error of each tool over some nodes, with the signed errors in the note."""
    seconds = 2.0 if quick else 10.0
    parts = f" in {windows} windows" if windows > 1 else ""
    row = replace(row, what=f"worst error over {seconds:.0f} s{parts}, in real time")
    can, rows = present(workers, row, tools)
    jobs = [_Job(tool=tool, case=case, node=node) for tool in can for case, node in nodes().items()]
    answers = _windows(workers, jobs, seconds, quick=quick, windows=windows)
    for tool in can:
        notes, errors = [], []
        for job, answer in zip(jobs, answers, strict=True):
            if job.tool != tool:
                continue
            joules = answer.result.get("joules")
            if joules is None:
                notes.append(f"{job.case}: {_why(answer)}")
                continue
            errors.append(100.0 * (joules / answer.truth_j - 1.0))
            notes.append(f"{job.case} {errors[-1]:+.2f} %")
        worst = max((abs(error) for error in errors), default=None)
        rows.append(replace(blank(row, tool, ", ".join(notes)), value=worst, seeds=len(notes)))
    return rows


def _counts(
    row: Row,
    tools: Sequence[str],
    jobs: Sequence[_Job],
    answers: Sequence[Answer],
    wrong: Callable[[_Job, Answer], str],
) -> list[Row]:
    """Count the wrong results of each tool, and list them in the note."""
    rows = []
    for tool in tools:
        judged = [wrong(j, a) for j, a in zip(jobs, answers, strict=True) if j.tool == tool]
        problems = [problem for problem in judged if problem]
        counted = blank(row, tool, "; ".join(problems) or "none")
        rows.append(replace(counted, value=float(len(problems)), seeds=len(judged)))
    return rows


def _why(answer: Answer) -> str:
    """Return the reason why a result has no joules."""
    text = str(answer.result.get("refused", ""))
    return text or (f"ended with code {answer.code}" if answer.code else "no value")
