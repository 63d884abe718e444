"""Count the cards that a fit of several processes measures, and how often."""

from __future__ import annotations

from dataclasses import dataclass

from _results import Row

from _measurement.processes import Answer, Workers, at_once
from tests.nvml.simulation import Node

_TOLERANCE = 0.1  # of a fit of 3 s, in which the counter ticks every 0.1 s


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """Numbers of forked processes and of hosts; each process sees its own card or all."""

    ranks: int
    hosts: int
    one_card_each: bool
    node: Node


def ranks(workers: Workers, *, quick: bool) -> Row:
    """Count the cards of hosts that a fit of several processes does not count exactly once."""
    cases = [
        _case(workers, count, hosts, one_card_each=one_card_each)
        for count in ((2,) if quick else (2, 4))
        for hosts in ((1,) if quick else (1, 2))
        for one_card_each in ((True,) if quick else (False, True))
    ]

    def call(case: _Case) -> Answer:
        task = {"task": "ranks", "gpu_only": True, "ledger": False}
        how = {"ranks": case.ranks, "hosts": case.hosts, "one_card_each": case.one_card_each}
        return workers.run("greentrain", {**task, **how}, case.node)

    answers = at_once(call, cases, width=1)
    wrong = [
        problem
        for case, answer in zip(cases, answers, strict=True)
        for problem in _wrong(case, answer)
    ]
    ran = any(answer.result for answer in answers)
    return Row(
        id="ranks",
        what="greentrain: cards of hosts not counted exactly once",
        value=float(len(wrong)) if ran else None,
        unit="cards",
        reach=0.0,
        better="equal",
        seeds=len(cases),
        note=(
            f"{' and '.join(str(n) for n in sorted({case.ranks for case in cases}))} forked "
            "processes (gloo) on 1 or 2 hosts (simulated by their ids), each seeing its card or "
            f"all; every process is checked{''.join('; ' + problem for problem in wrong)}"
        ),
    )


def _case(workers: Workers, count: int, hosts: int, *, one_card_each: bool) -> _Case:
    node = workers.node(count // hosts)
    for index, card in enumerate(node.shown):
        card.constant(100.0 * (index + 1))
    return _Case(ranks=count, hosts=hosts, one_card_each=one_card_each, node=node)


def _wrong(case: _Case, answer: Answer) -> list[str]:
    """Return the errors in the figures of each process of a fit."""
    where = f"{case.ranks} processes on {case.hosts} hosts"
    if not answer.result:
        return [f"{where}: ended with code {answer.code}, {answer.error}"]
    problems = []
    for rank, figures in enumerate(answer.result["ranks"]):
        counted: dict[tuple[str, str], float] = {}
        for name, uuid, joules in figures["cards"]:
            host = name.partition("/")[0] if case.hosts > 1 else "node0"
            counted[host, uuid] = counted.get((host, uuid), 0.0) + (joules or 0.0)
        for host in (f"node{number}" for number in range(case.hosts)):
            for card in case.node.shown:
                joules = counted.pop((host, card.uuid.decode()), 0.0)
                times = joules / (card.high_w * figures["seconds"])
                if abs(times - 1.0) > _TOLERANCE:
                    problems.append(f"{where}, rank {rank}: a card of {host} {times:.2f} times")
        problems += [f"{where}, rank {rank}: {uuid} of {host}" for host, uuid in counted]
    return problems
