"""Results of runs: anytime accuracy, schedules of FULL and SKIP, shares of the gap, intervals."""

from __future__ import annotations

import importlib
import itertools
import math
import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Run = Mapping[str, Any]
"""A line of ``runs.jsonl``."""

SURE = 4.0
"""Smallest gap in standard errors of which a share has a meaning."""


@dataclass(frozen=True, slots=True)
class Mean:
    """The mean of a figure over seeds.

    Args:
        value: The mean.
        seeds: Number of seeds.
        interval: The 95 % interval of Student's t; ``None`` for one seed.
        standard_error: Standard error of the mean; ``None`` for one seed.
    """

    value: float
    seeds: int
    interval: tuple[float, float] | None
    standard_error: float | None

    @property
    def sure(self) -> bool:
        """True if the mean is at least four standard errors above 0."""
        return self.standard_error is not None and self.value >= SURE * self.standard_error > 0


def mean(values: Collection[float]) -> Mean:
    """Return the mean over seeds, with an interval for two or more.

    Example:
        >>> found = mean([1.0, 3.0])  # deviations of 1: a standard error of 1, and t is 12.7
        >>> found.value, found.standard_error, round(found.interval[1], 3)
        (2.0, 1.0, 14.706)
    """
    value, seeds = statistics.fmean(values), len(values)
    if seeds < 2:
        return Mean(value, seeds, None, None)
    error = statistics.stdev(values) / math.sqrt(seeds)
    half = _student(seeds - 1) * error
    return Mean(value, seeds, (value - half, value + half), error)


def anytime(run: Run) -> float:
    """Return the mean over experiences of the yardstick: accuracy on all test samples so far.

    Some streams have another yardstick, see ``kinds.py``.

    Example:
        >>> experiences = [{"right": [8]}, {"right": [6, 12]}]
        >>> anytime({"n_test": [10, 20], "experiences": experiences})  # 8 of 10, then 18 of 30
        0.7
    """
    each = [
        score(run, entry["right"], position) for position, entry in enumerate(run["experiences"])
    ]
    return statistics.fmean(each)


def score(run: Run, values: Sequence[float], position: int) -> float:
    """Return the yardstick of a stream after an experience, from the values of a model.

    Args:
        run: A run of the stream.
        values: The model's value for each experience: a sum over its test samples, such as the
            number of right ones, or the yardstick itself in a stream with ``direct``.
        position: The experience.

    Example:
        >>> score({"n_test": [10, 20]}, [6, 12], 1), score({"direct": True}, [0.5, 0.7], 1)
        (0.6, 0.7)
    """
    return values[position] if run.get("direct") else accuracy(values, run["n_test"], position)


def accuracy(right: Sequence[float], n_test: Sequence[int], position: int) -> float:
    """Return the accuracy on the test samples of the experiences up to one."""
    return sum(right[: position + 1]) / sum(n_test[: position + 1])


def schedule_anytime(full: Run, fulls: Collection[int]) -> float:
    """Return the anytime accuracy of retraining in full at some experiences and skipping the rest.

    It is exact: full retraining does not use the earlier model, so every such schedule has the
    model that the reference trained at that experience.

    Args:
        full: The reference.
        fulls: The experiences, from 0; before the first of them the accuracy is 0.

    Example:
        >>> experiences = [{"trained": [9, 5]}, {"trained": [8, 8]}]
        >>> full = {"n_test": [10, 10], "experiences": experiences}
        >>> schedule_anytime(full, [0]), schedule_anytime(full, [0, 1]), schedule_anytime(full, [1])
        (0.8, 0.85, 0.4)
    """
    each = []
    for position in range(len(full["experiences"])):
        trained = [at for at in fulls if at <= position]
        right = full["experiences"][max(trained)]["trained"] if trained else [0] * (position + 1)
        each.append(score(full, right, position))
    return statistics.fmean(each)


def once_and_always(full: Run) -> tuple[float, float]:
    """Return the anytime accuracy of training once, and of retraining in full at each arrival."""
    return schedule_anytime(full, [0]), schedule_anytime(full, range(len(full["experiences"])))


def share(run: Run, full: Run) -> float:
    """Return the share of the gap that a run closes, in %: 0 for training once, 100 for always."""
    once, always = once_and_always(full)
    return 100 * (anytime(run) - once) / (always - once)


def best_fixed(full: Run, budget_j: float) -> tuple[float, tuple[int, ...]]:
    """Return the result of the best schedule of FULL and SKIP within a budget, in hindsight.

    If the budget cannot pay for a single training, training once counts nevertheless.

    Args:
        full: The reference.
        budget_j: Joules.

    Returns:
        Its anytime accuracy, and the experiences at which it retrains.
    """
    joules = [entry["update_j"] for entry in full["experiences"]]
    affordable = [
        chosen
        for chosen in _subsets(len(joules))
        if sum(joules[at] for at in chosen) <= budget_j or chosen == (0,)
    ]
    return max((schedule_anytime(full, chosen), chosen) for chosen in affordable)


def samples(run: Run) -> int:
    """Return the number of samples that a run trained on, repetitions included."""
    return sum(entry["samples"] for entry in run["experiences"])


def pairs(
    runs: Mapping[str, Run],
    stream: str,
    policy: str = "default",
    budget: int | None = None,
    memory: str = "all",
) -> list[tuple[Run, Run]]:
    """Return the runs of a policy with the references of their seeds, in the order of seeds.

    Args:
        runs: All runs.
        stream: The stream.
        policy: The policy.
        budget: Budget in % of the reference.
        memory: Past data that is kept.
    """
    found = []
    for run in _of_kind(runs.values(), stream, policy, budget, memory):
        reference = f"{stream}-{run['seed']}-full"
        if reference in runs:
            found.append((run, runs[reference]))
    return sorted(found, key=lambda pair: int(pair[0]["seed"]))


def references(runs: Mapping[str, Run], stream: str) -> list[Run]:
    """Return the references of a stream, in the order of seeds."""
    found = _of_kind(runs.values(), stream, "full", None, "all")
    return sorted(found, key=lambda run: int(run["seed"]))


def gap(runs: Mapping[str, Run], stream: str) -> Mean | None:
    """Return the gap between training once and always, over the seeds of a stream."""
    each = [once_and_always(full) for full in references(runs, stream)]
    return mean([always - once for once, always in each]) if each else None


def _student(degrees: int) -> float:
    special = importlib.import_module("scipy.special")  # untyped
    return float(special.stdtrit(degrees, 0.975))


def _of_kind(
    runs: Iterable[Run], stream: str, policy: str, budget: int | None, memory: str
) -> Iterator[Run]:
    wanted = (stream, policy, budget, memory)
    for run in runs:
        if "stream" not in run or run.get("logged") is not None:  # a measurement of another kind
            continue
        if (run["stream"], run["policy"], run["share"], run.get("memory", "all")) == wanted:
            yield run


def _subsets(count: int) -> Iterator[tuple[int, ...]]:
    for length in range(1, count + 1):
        yield from itertools.combinations(range(count), length)
