"""A stream that is killed again and again, at moments of nobody's choosing."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch

from greentrain import Budget, StreamTrainer
from greentrain.ledger import Ledger, verify
from tests.models import Clock, Tick, constant_meter, experience
from tests.prepared import CONTEXT
from tests.training.fitting import timed

KILLS = int(os.environ.get("GREENTRAIN_KILLS", "10"))
BUDGET = Budget.parse("1 kWh", num_experiences=1000)


def _stream(folder: str, experiences: int) -> None:
    """Train on one experience after the other, and say so before each."""
    torch.set_num_threads(1)
    clock = Clock()
    with StreamTrainer(
        timed(clock),
        budget=BUDGET,
        monitor="val_acc",
        ledger=f"sqlite:///{folder}/greentrain.db",
        trainer={
            "max_epochs": 10,
            "accelerator": "cpu",
            "callbacks": [Tick(clock)],
        },
        loader={"batch_size": 8},
        meter=constant_meter(clock),
    ) as streaming:
        for number in range(experiences):
            Path(folder, "at-work").touch()
            streaming.update(experience(f"{number}", (number % 4,), seed=number))


def _start(folder: Path, experiences: int) -> multiprocessing.process.BaseProcess:
    worker = CONTEXT.Process(target=_stream, args=(str(folder), experiences))
    worker.start()
    return worker


@pytest.mark.slow
def test_a_stream_that_is_killed_again_and_again_goes_on(tmp_path: Path) -> None:
    chance = random.Random(0)
    sign, counted_j, positions = tmp_path / "at-work", 0.0, 0
    for _ in range(KILLS):
        sign.unlink(missing_ok=True)
        worker = _start(tmp_path, 1000)
        while not sign.exists() and worker.is_alive():
            time.sleep(0.01)
        time.sleep(chance.uniform(0.0, 1.5))
        os.kill(worker.pid or 0, signal.SIGKILL)
        worker.join()
        assert worker.exitcode == -signal.SIGKILL
        ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)
        found = verify(ledger)
        balance = ledger.balance(ledger.rows("budget")[0]["budget_id"])
        decided = [row["position"] for row in ledger.rows("decision")]
        ledger.close()
        assert found.failures == ()
        assert balance.within
        assert balance.spent_j + balance.reserved_j >= counted_j  # money stays spent
        assert decided == sorted(decided)
        counted_j, positions = balance.spent_j + balance.reserved_j, len(decided)
    worker = _start(tmp_path, 2)
    worker.join()
    assert worker.exitcode == 0
    ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)
    runs, last = ledger.rows("run"), ledger.rows("decision")[-1]
    unsettled = {row["reservation_id"] for row in ledger.rows("reservation")}
    unsettled -= {row["reservation_id"] for row in ledger.rows("settlement")}
    assert len(ledger.rows("closing")) == 1
    assert len(runs) <= KILLS + 1
    assert last["position"] == positions + 1
    for reservation in unsettled:
        ledger.release(reservation, 0.0)
    assert ledger.balance(last["budget_id"]).reserved_j == 0.0
    assert verify(ledger).failures == ()
    ledger.close()
    print(f"{len(runs)} runs, {positions + 2} experiences, {len(unsettled)} open reservations")
