"""Two processes on one host, really forked: the host is measured once, and both ranks agree."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from pytorch_lightning import Callback, Trainer

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.ledger import Ledger
from tests.models import Classifier, Clock, Tick, constant_meter, loader


class Tell(Callback):
    """Write what a rank saw into a file of its own: attributes do not come back from a fork."""

    def __init__(self, folder: Path, guard: BudgetGuard) -> None:
        self.folder = folder
        self.guard = guard

    def on_train_end(self, trainer, pl_module):
        told = {
            "steps": trainer.global_step,
            "stopped": self.guard.stopped,
            "used_j": self.guard.used_j,
            "epoch_wh": float(trainer.callback_metrics.get("energy/epoch_wh", -1.0)),
        }
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(told))


@pytest.fixture(autouse=True)
def free_port(monkeypatch):
    """Give the ranks a port to meet at; Lightning would choose one and leave it set."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))


def run(folder: Path, cap_j: float) -> list[dict]:
    clock = Clock()
    meter = constant_meter(clock)
    guard = BudgetGuard(cap_j, meter=meter)
    monitor = EnergyMonitor(meter, ledger=f"sqlite:///{folder / 'greentrain.db'}")
    Trainer(
        callbacks=[monitor, guard, Tick(clock), Tell(folder, guard)],
        max_epochs=3,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit(Classifier(), loader())
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking a process with threads
def test_joules_are_counted_once_and_every_rank_logs_the_same(tmp_path):
    first, second = run(tmp_path, cap_j=1e6)
    assert first == second
    assert first["steps"] == 30  # each rank has half of the 20 batches, three times
    assert first["epoch_wh"] == pytest.approx(10 / 3600)  # ten steps of 1 J, not twenty
    ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)
    assert len(ledger.rows("run")) == 1
    assert sum(row["energy_j"] for row in ledger.rows("window")) == pytest.approx(30.0)
    ledger.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_every_rank_stops_at_the_same_step(tmp_path):
    first, second = run(tmp_path, cap_j=25.0)
    assert first == second
    assert first["stopped"]
    assert 5 <= first["steps"] <= 25
