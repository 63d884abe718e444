"""Real processes: a pause, a ``kill -9``, a second pause, and the end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint

from greentrain.callbacks import ExactResume
from tests.callbacks.test_carbon_aware_pause import Machine, Phases, fit, pausing
from tests.models import Clock, Tick
from tests.prepared import CONTEXT

pytestmark = [
    pytest.mark.filterwarnings("ignore:CarbonAwarePause"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


class KillAt(Callback):
    """Kill the process after a global step."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_args) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def _train(hour: int, clean: range, kill_at: int | None) -> None:
    """Train from an hour on, and continue from the newer of both checkpoints."""
    torch.set_num_threads(1)
    clock = Machine()
    clock.seconds = 3600.0 * hour
    pause = pausing(clock, dict.fromkeys(clean, 100.0), pause="requeue", check_s=1e9)
    every = ModelCheckpoint("saved", every_n_train_steps=1, save_last=True)
    saved = [file for file in (Path("paused.ckpt"), Path("saved/last.ckpt")) if file.exists()]
    newest = max(saved, key=lambda file: file.stat().st_mtime_ns, default=None)
    callbacks = [ExactResume(), every, Phases(clock), KillAt(kill_at), pause]
    load = None if newest is None else str(newest)
    model = fit(*callbacks, load=load, max_epochs=4, enable_checkpointing=True)
    torch.save(model.state_dict(), "end.pt")


def test_two_pauses_with_a_kill_between_them_end_with_the_same_bits(tmp_path):
    """An epoch takes three hours and five steps. The night moves after the kill."""
    codes = []
    for hour, clean, kill_at in (
        (0, range(12, 21), None),  # one epoch, and a pause until the night
        (12, range(12, 21), 8),  # killed within the second epoch
        (14, range(30, 40), None),  # a pause until the next night
        (30, range(30, 40), None),
    ):
        worker = CONTEXT.Process(target=_train, args=(hour, clean, kill_at))
        worker.start()
        worker.join()
        codes.append(worker.exitcode)
    assert codes == [75, -signal.SIGKILL, 75, 0]
    weights = torch.load("end.pt")
    expected = fit(ExactResume(), Tick(Clock()), max_epochs=4).state_dict()
    assert all(torch.equal(weights[name], each) for name, each in expected.items())
