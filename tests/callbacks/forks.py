"""Fits on two and more ranks in processes that Lightning forks, and what each rank saw."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from pytorch_lightning import Callback
from torch.utils.data import DataLoader

from greentrain.callbacks import BudgetGuard
from tests.models import Classifier, loader, trainer

FORKS = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""Of forking a process with threads."""


@pytest.fixture(autouse=True)
def free_port(monkeypatch):
    """Give the ranks a port to meet at; Lightning would choose one and leave it set.

    A module uses it by importing it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))


class SaveView(Callback):
    """Write what a rank saw into a separate file: attributes do not come back from a fork."""

    def __init__(self, folder: Path, guard: BudgetGuard) -> None:
        self.folder = folder
        self.guard = guard

    def on_train_end(self, trainer, pl_module):
        seen = {
            "steps": trainer.global_step,
            "stopped": self.guard.stopped,
            "used_j": self.guard.used_j,
            "epoch_wh": float(trainer.callback_metrics.get("energy/epoch_wh", -1.0)),
        }
        (self.folder / f"rank{trainer.global_rank}.json").write_text(json.dumps(seen))


def fit(
    folder: Path,
    ranks: int,
    *callbacks: Callback,
    epochs: int = 3,
    model: Classifier | None = None,
    val: DataLoader | None = None,
    **options,
) -> list[dict]:
    """Fit on some ranks, and return what each of them saw."""
    options = {"strategy": "ddp_fork", "default_root_dir": folder, **options}
    forked = trainer(*callbacks, max_epochs=epochs, devices=ranks, **options)
    forked.fit(model or Classifier(), loader(), val)
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(ranks)]


def stopped_together(folder: Path, guard: BudgetGuard, tick: Callback) -> dict:
    """Fit on two ranks until the guard stops both at one step, and return what both saw."""
    callbacks = (guard, tick, SaveView(folder, guard))
    options = {"epochs": 50, "val": loader(4), "enable_checkpointing": True}
    first, second = fit(folder, 2, *callbacks, **options)
    assert first == second
    assert first["stopped"]
    assert first["steps"] >= 10
    return first
