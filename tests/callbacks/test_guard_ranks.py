"""A guard on two forked ranks takes one decision, even if their measurements differ."""

from __future__ import annotations

import json

import pytest
from pytorch_lightning import Trainer

from greentrain.callbacks import BudgetGuard
from tests.callbacks.test_processes import SaveView, free_port
from tests.models import Classifier, Clock, Tick, constant_meter, loader

__all__ = ["free_port"]  # a fixture


class Uneven(Tick):
    """Let the second rank's time pass faster; what is on the host is measured by the first."""

    def on_train_batch_start(self, trainer, *args, **kwargs) -> None:
        self.clock.seconds += self.step_s * (1 + 0.5 * trainer.global_rank)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking a process with threads
@pytest.mark.parametrize("options", [{"cap": "60 J"}, {"cap": "0.006 gCO2e", "zone": "DE"}])
def test_ranks_stop_together_and_have_room_for_the_validation(tmp_path, options):
    clock = Clock()
    guard = BudgetGuard(meter=constant_meter(clock), anneal=True, **options)
    Trainer(
        callbacks=[guard, Uneven(clock, 0.01, 0.02), SaveView(tmp_path, guard)],
        max_epochs=50,
        accelerator="cpu",
        devices=2,
        strategy="ddp_fork",
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=False,
        default_root_dir=tmp_path,
    ).fit(Classifier(), loader(), loader(4))
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2))
    assert first["stopped"] and second["stopped"]
    assert first["steps"] == second["steps"] >= 10
    assert first["used_j"] == second["used_j"] <= 60.0
