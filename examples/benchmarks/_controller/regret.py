"""Distance of the controller from the best schedule, on a small exact table."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from _continual.models import Perceptron
from _results import Row

from _controller.running import BATCH_SIZE, EPOCHS
from _controller.shares import Run, mean
from _controller.streams import Pair, classes, read, thinned
from greentrain.simulation import (
    RecordedTable,
    always_full,
    best_schedule,
    share_of_gap,
    simulate,
    train_once,
)
from greentrain.simulation.recording import record

SHARES = tuple(range(10, 110, 10))
"""Budgets in % of the joules of retraining in full at each experience."""
_SAMPLES = 4000
_JOULES_PER_SAMPLE = 1e-3
_FIXED_J = 1.0


def regret_run(
    folder: Path, data: Pair, seed: int, *, num_experiences: int = 5, epochs: int = EPOCHS
) -> dict[str, Any]:
    """Train every sequence of update modes at step fraction 1 on a stream of classes.

    Joules are computed from the number of trained samples, so they contain no noise of the machine.

    Args:
        folder: Folder of the table; an interrupted recording is resumed.
        data: Images and labels.
        seed: Seed of stream and weights.
        num_experiences: Number of experiences.
        epochs: Usual epochs of a full retraining.
    """
    stream = read(classes(thinned(data, _SAMPLES, seed), seed)[:num_experiences], seed, tested=1)
    pixels = stream[0].train[0][0].numel()
    with tempfile.TemporaryDirectory() as temporary:
        table = record(
            partial(Perceptron, pixels=pixels),
            stream,
            out=folder / f"regret-{seed}.jsonl",
            budget="1 kWh",
            monitor="val_acc",
            exact=True,
            cost="samples",
            joules_per_sample=_JOULES_PER_SAMPLE,
            fixed_j=_FIXED_J,
            ledger=f"sqlite:///{temporary}/regret.db",
            trainer={"max_epochs": epochs, "accelerator": "cpu"},
            loader={"batch_size": BATCH_SIZE},
            seed=seed,
        )
    trained = sum(row.steps > 0 for rows in table.rows.values() for row in rows)
    return {
        "name": f"regret-{seed}",
        "seed": seed,
        "num_experiences": num_experiences,
        "trainings": trained,
        "once": train_once(table).anytime,
        "full": always_full(table).anytime,
        "points": [_point(table, budget) for budget in SHARES],
    }


def regret_rows(runs: Mapping[str, Run]) -> list[Row]:
    """Return the mean regret over all budgets, and the regret at the worst of them."""
    found = [run for name, run in runs.items() if name.startswith("regret-")]
    what = "points of share behind the best schedule"
    if not found:
        return [Row(id="regret", what=what, value=None, unit="points", reach=5.0, note="not run")]
    each = {budget: [_regret(run, budget) for run in found] for budget in SHARES}
    means = {budget: statistics.fmean(values) for budget, values in each.items()}
    over_all = mean([statistics.fmean(_regrets(run)) for run in found])
    worst = max(means, key=means.__getitem__)
    shares = ", ".join(f"{value:.1f} at {budget} %" for budget, value in means.items())
    note = (
        f"exact table of {found[0]['trainings']} trainings, "
        f"{found[0]['num_experiences']} arrivals of two "
        f"classes of Fashion-MNIST, {_SAMPLES // 5} samples each, step fraction 1, joules by "
        f"samples; {shares}"
    )
    rows = [
        ("mean over budgets of 10 to 100 %", over_all.value, over_all.interval),
        (f"at the worst budget, {worst} %", means[worst], (min(each[worst]), max(each[worst]))),
    ]
    return [
        Row(
            id="regret",
            what=f"{what}, {which}",
            value=value,
            unit="points",
            reach=5.0,
            seeds=len(found),
            interval=interval,
            note=note,
        )
        for which, value, interval in rows
    ]


def _point(table: RecordedTable, budget: int) -> dict[str, float]:
    budget_j = budget / 100 * table.full_j
    return {
        "budget": budget,
        # As in a stream with a budget in joules, the first training has a cap.
        "default": simulate(table, None, budget_j, calibrated=False).anytime,
        "best": best_schedule(table, budget_j).anytime,
    }


def _regrets(run: Run) -> Sequence[float]:
    return [_regret(run, budget) for budget in SHARES]


def _regret(run: Run, budget: int) -> float:
    point = next(each for each in run["points"] if each["budget"] == budget)
    ends = {"once": run["once"], "full": run["full"]}
    best, ours = (share_of_gap(point[key], **ends) for key in ("best", "default"))
    return 100 * ((best or 0.0) - (ours or 0.0))
