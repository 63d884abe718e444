"""Streams on one and on two forked ranks, whose joules a clock of batches gives."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from random import Random
from typing import Any

import torch
from _results import Row
from pytorch_lightning import Callback

from _scale import forks
from greentrain import StreamTrainer
from greentrain.demo import DigitsModel
from greentrain.energy import ConstantMeter
from greentrain.ledger import Ledger, verify
from greentrain.streams import digits_stream

STEP_S = 0.01
POWER_W = 100.0
BUDGET_J = 900.0
_METHOD = "forked gloo ranks on one CPU; 1 J a batch by a clock; one seed"


class Clock(Callback):
    """Let a hundredth of a second pass at each batch, and kill a rank at a moment."""

    def __init__(self, dead: int | None = None, moment: int = 0) -> None:
        self.seconds = 0.0
        self.dead, self.moment, self.batches = dead, moment, 0

    def on_train_batch_end(self, trainer: Any, *args: Any, **kwargs: Any) -> None:
        """Count the batch."""
        self.seconds += STEP_S
        self.batches += 1
        if trainer.global_rank == self.dead and self.batches == self.moment:
            os.kill(os.getpid(), signal.SIGKILL)


def stream(
    folder: Path, ranks: int, experiences: int, clock: Clock, **given: Any
) -> list[dict[str, Any]]:
    """Run a stream in this process, and return its results.

    Args:
        folder: Holds ledger and state.
        ranks: Number of ranks of the launch.
        experiences: Experiences to run.
        clock: Counts the batches.
        **given: Further arguments of the stream.
    """
    torch.set_num_threads(1)
    with StreamTrainer(
        DigitsModel,
        num_experiences=6,
        monitor="val_acc",
        ledger=f"sqlite:///{folder / 'scale.db'}",
        state_dir=folder / "state",
        meter=ConstantMeter(POWER_W, clock=lambda: clock.seconds),
        trainer={"max_epochs": 4, "accelerator": "cpu", "callbacks": [clock]},
        loader={"batch_size": 32 // ranks},
        **{"budget": f"{BUDGET_J} J", **given},
    ) as trainer:
        trainer.run(digits_stream()[:experiences])
        return [
            {"mode": result.update_mode, "steps": result.steps, "metric": result.metric_after}
            for result in trainer.results
        ]


def on_ranks(
    folder: Path, ranks: int, experiences: int, dead: int | None = None, moment: int = 0
) -> list[dict[str, Any]]:
    """Run a stream on some ranks, and return the results of rank 0."""

    def work(rank: int) -> list[dict[str, Any]]:
        return stream(folder, ranks, experiences, Clock(dead, moment))

    return forks.on_ranks(folder, ranks, work)[0] or []


def stream_ranks(folder: Path, *, quick: bool) -> list[Row]:
    """Compare one rank with two."""
    count = 2 if quick else 6
    one = on_ranks(folder / "one", 1, count)
    two = on_ranks(folder / "two", 2, count)
    pairs = list(zip(one, two, strict=True))
    other = sum((a["mode"], a["steps"]) != (b["mode"], b["steps"]) for a, b in pairs)
    points = 100 * abs(one[-1]["metric"] - two[-1]["metric"])
    kept = spent_j(folder / "two") <= BUDGET_J
    same = {"better": "equal", "seeds": count, "note": f"{count} experiences; {_METHOD}"}
    return [
        Row(id="stream_ranks", what="decisions that differ", value=other, unit="", reach=0, **same),
        Row(
            id="stream_ranks",
            what="difference of the final accuracy",
            value=points,
            unit="points",
            reach=0.5,
            note=f"two ranks against one; {_METHOD}",
        ),
        Row(
            id="stream_ranks",
            what="budgets overdrawn on two ranks",
            value=0 if kept else 1,
            unit="",
            reach=0,
            better="equal",
        ),
    ]


def rank_killed(folder: Path, *, quick: bool) -> list[Row]:
    """Kill a rank at random batches, and start again with one process."""
    # The first two experiences have 24 and more batches: both are met.
    random = Random(0)
    kills = [(random.randrange(2), random.randint(1, 44)) for _ in range(2 if quick else 20)]
    failed = []
    for case, (dead, moment) in enumerate(kills):
        place = folder / f"killed{case}"
        on_ranks(place, 2, 2, dead, moment)
        used_j = moment * STEP_S * POWER_W
        # Rank 0 settles what the ranks used. If it is killed, its reservation stays spent.
        known_j = recorded_j(place) if dead else spent_j(place)
        again = on_ranks(place, 1, 2)
        fine = again and known_j >= used_j - 2.0 and spent_j(place) <= BUDGET_J
        if not fine:
            failed.append(f"rank {dead} at batch {moment}")
    note = ", ".join(failed) or (
        f"all streams went on within the budget; all joules but 2 were spent or held; {_METHOD}; "
        f"{sum(not dead for dead, _ in kills)} of the kills are of rank 0"
    )
    what = "kills of a rank after which something was lost"
    return [
        Row(id="rank_killed", what=what, value=len(failed), unit="", reach=0, better="equal",
            seeds=len(kills), note=note)
    ]  # fmt: skip


def recorded_j(folder: Path) -> float:
    """Return the joules of all windows and last heartbeats of a verified ledger."""
    ledger = Ledger(f"sqlite:///{folder / 'scale.db'}", create=False)
    try:
        if not verify(ledger).ok:
            raise SystemExit(f"the ledger in {folder} does not verify")
        return sum(row["energy_j"] or 0.0 for row in ledger.windows())
    finally:
        ledger.close()


def spent_j(folder: Path) -> float:
    """Return what is spent of the budget, with reservations that are still open."""
    ledger = Ledger(f"sqlite:///{folder / 'scale.db'}", create=False)
    try:
        status = ledger.status(ledger.find_budget("stream")["budget_id"])
        return status.spent + status.taken.reserved
    finally:
        ledger.close()
