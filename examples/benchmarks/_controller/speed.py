"""Time of a decision after a thousand experiences."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from _results import Row

from _controller.shares import Run
from greentrain.control import BudgetController, State, StepPlan
from greentrain.simulation.simulator import InMemoryAccount

NAME = "decide_ms"
EXPERIENCES = 1000
_TIMED = 100
_NEW = 1000
_METRIC = 0.9


def decide_run(
    *, experiences: int = EXPERIENCES, clock: Callable[[], float] = time.process_time
) -> dict[str, Any]:
    """Run a controller through many experiences, and time the decisions at the end.

    Args:
        experiences: Number of experiences before the timed ones.
        clock: Returns seconds.
    """
    num_experiences = experiences + _TIMED
    account = InMemoryAccount(num_experiences * 10.0)
    controller = BudgetController(account)
    plan = StepPlan(epochs=10, batch_size=64, reuse_fraction=0.2)
    controller.cost.calibrate(fixed_j=1.0, step_j=0.01)
    took_ms, last = [], None
    for position in range(num_experiences):
        candidates = plan.candidates(
            n_new=_NEW, n_stored=position * _NEW, has_model=position > 0, keeps_data=True
        )
        # The metric on new data is below the last one, and more so at every tenth experience.
        fall = 0.05 if position % 10 == 0 else 0.01
        state = State(
            position=position,
            num_experiences=num_experiences,
            has_model=position > 0,
            metric_before=None if last is None else last - fall / 4,
            metric_new=None if last is None else last - fall,
            metric_new_sd=0.01,
            metric_last=last,
            metric_best=last,
            metric_ceiling=1.0,
            n_new=_NEW,
            n_stored=position * _NEW,
            warm_starts=position,
        )
        began_s = clock()
        state, decision = controller.decide(state, candidates)
        took_ms.append(1000 * (clock() - began_s))
        reservation = controller.reserve(decision, "update")
        trained = reservation is not None
        last = _METRIC if trained or last is None else last - fall / 4
        actual_j = 0.0
        if reservation is not None:
            actual_j = 1.0 + 0.01 * decision.steps
            account.settle(reservation, actual_j)
        controller.learn(
            decision, state, steps=decision.steps, actual_j=actual_j, metric_after=last
        )
    return {"name": NAME, "experiences": experiences, "ms": took_ms[-_TIMED:]}


def decide_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the median."""
    run = runs.get(NAME)
    what = "processor time of one decision after 1,000 experiences"
    if run is None:
        return [Row(id=NAME, what=what, value=None, unit="ms", reach=20.0, note="not run")]
    return [
        Row(
            id=NAME,
            what=what,
            value=statistics.median(run["ms"]),
            unit="ms",
            reach=20.0,
            seeds=len(run["ms"]),
            interval=(min(run["ms"]), max(run["ms"])),
            note=f"after {run['experiences']:,} others, all update modes and step fractions; "
            "median, quickest and slowest",
        )
    ]
