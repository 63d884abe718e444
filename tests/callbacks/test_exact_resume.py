"""A fit that continues from a checkpoint ends like one that was never interrupted.

Each test trains once, saves checkpoints at many points, and continues from some of them. The whole,
with pauses and real kills, is ``examples/benchmarks/_carbon/exact_resume.py``.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau, StepLR
from torch.utils.data import DataLoader, Dataset

from greentrain.callbacks import ExactResume, resumable_loader
from greentrain.errors import ConfigurationError
from tests import prepared
from tests.callbacks.forks import FORKS, free_port
from tests.models import trainer

__all__ = ["free_port"]

BENCHMARK = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[2] / "examples/benchmarks")!r})
from _carbon.exact_resume import exact_resume
for row in exact_resume(Path(), quick=True, cases=("augmentation", "ddp")):
    print(row.value, row.seeds)
"""
EXPECTED_WARNINGS = [
    "ignore:.*many workers which may be a bottleneck",
    "ignore:.*smaller than the logging interval",
    "ignore:.*ended before the epoch ended",
    "ignore:.*Checkpoint directory .* exists and is not empty",
    "ignore:ExactResume:",
]
pytestmark = [pytest.mark.filterwarnings(each) for each in EXPECTED_WARNINGS]


class Samples(Dataset):
    """Samples with noise of the global generators."""

    def __init__(self, count: int = 14) -> None:
        self.features = torch.linspace(-1, 1, count)[:, None] * torch.ones(2)

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = random.random() + np.random.rand() + torch.rand(2)
        return self.features[index] + 0.1 * noise.float()


class Network(LightningModule):
    """A network with dropout, whose hooks use random numbers as well."""

    def __init__(self, schedule: str = "") -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 4), nn.Dropout(0.4), nn.Linear(4, 1))
        self.schedule = schedule

    def on_train_start(self) -> None:
        torch.rand(3)  # again in a process that continues, before its first batch

    def training_step(self, batch, batch_idx):
        loss = (self.layers(batch).squeeze(1) - batch.sum(1)).square().mean()
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx) + torch.rand(()))

    def configure_optimizers(self):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        interval, _, monitor = self.schedule.partition(" ")
        if not interval:
            return [optimizer], [StepLR(optimizer, 1, gamma=0.8)]
        plateau = ReduceLROnPlateau(optimizer, patience=0, threshold=0.9, factor=0.7)
        scheduler = {"scheduler": plateau, "interval": interval, "monitor": monitor}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Hooked(Network):
    """A network whose own hook runs after a checkpoint of ``ModelCheckpoint``."""

    def on_train_batch_end(self, *arguments) -> None:
        pass


class SaveAt(Callback):
    """Save a checkpoint in some hooks, named by hook and number of the batch."""

    def __init__(self, folder: Path, *hooks: str) -> None:
        self.folder = folder
        for hook in hooks:
            setattr(self, hook, lambda trainer, *_, hook=hook: self._save(trainer, hook))

    def _save(self, trainer, hook: str) -> None:
        if trainer.sanity_checking:
            return
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1
        trainer.save_checkpoint(self.folder / f"{hook} {done}")


STEP, VALIDATION, EPOCH = "on_train_batch_end", "on_validation_end", "on_train_epoch_end"
START, END = "on_train_epoch_start", "on_train_end"


def fit(
    folder: Path,
    *hooks: str,
    load: str | None = None,
    loader: Any = None,
    model: LightningModule | None = None,
    exact: ExactResume | None = None,
    val: DataLoader | None = None,
    **options: Any,
) -> dict[str, list[float]]:
    """Train on 7 batches an epoch, and return weights, state of the optimizer and rate."""
    seed(3 if load is None else 99)
    made = model or Network()
    callbacks = [SaveAt(folder, *hooks), *([exact] if exact else [])]
    used = trainer(*callbacks, **{"max_epochs": 3, **options})
    val = val or DataLoader(Samples(4), 2)
    train = loader() if loader else resumable_loader(Samples(), 2, seed=1)
    used.fit(made, train, val, ckpt_path=load and str(folder / load))
    (optimizer,) = used.optimizers
    return {
        "weights": nn.utils.parameters_to_vector(made.parameters()).tolist(),
        "moments": [each["exp_avg"].flatten().tolist() for each in optimizer.state.values()],
        "rate": [group["lr"] for group in optimizer.param_groups],
    }


def seed(number: int) -> None:
    """Seed like Lightning's ``seed_everything``, which would leave an environment variable."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def shuffled(**options: Any) -> DataLoader:
    return DataLoader(Samples(), 2, shuffle=True, **options)


@pytest.mark.parametrize(
    ("options", "points"),
    [
        ({}, f"{STEP} 3,{STEP} 7,{VALIDATION} 7,{EPOCH} 7,{START} 7,{STEP} 14,{EPOCH} 14,{END} 21"),
        ({"limit_val_batches": 0}, f"{STEP} 7,{STEP} 14,{EPOCH} 14"),
        ({"val_check_interval": 3}, f"{STEP} 3,{VALIDATION} 3,{STEP} 7,{STEP} 10,{VALIDATION} 13"),
        ({"accumulate_grad_batches": 3}, f"{STEP} 3,{STEP} 7,{STEP} 10,{EPOCH} 7"),
        ({"max_steps": 18, "max_epochs": -1}, f"{STEP} 7,{VALIDATION} 7,{EPOCH} 7,{EPOCH} 14"),
        ({"limit_train_batches": 4}, f"{STEP} 2,{STEP} 4,{EPOCH} 4,{STEP} 7"),
        ({"check_val_every_n_epoch": 2}, f"{STEP} 7,{EPOCH} 7,{VALIDATION} 14,{STEP} 16"),
    ],
    ids=["plain", "no-validation", "validations", "accumulation", "steps", "limit", "every-second"],
)
def test_a_fit_continues_exactly(tmp_path, options, points):
    expected = fit(tmp_path, STEP, VALIDATION, EPOCH, START, END, exact=ExactResume(), **options)
    for point in points.split(","):
        found = fit(tmp_path, load=point, exact=ExactResume(), **options)
        assert found == expected, point


@pytest.mark.parametrize("schedule", ["epoch val_loss", "epoch loss", "step loss"])
def test_a_schedule_by_a_metric_continues(tmp_path, schedule):
    model = Network(schedule)
    expected = fit(tmp_path, STEP, VALIDATION, EPOCH, exact=ExactResume(), model=model)
    assert expected["rate"][0] < 0.05
    # Averages of the training's loss are of the rest of the epoch.
    points = [f"{VALIDATION} 7", f"{EPOCH} 7", f"{EPOCH} 14"]
    points += [f"{STEP} 3", f"{STEP} 7"] if schedule != "epoch loss" else []
    for point in points:
        model = Network(schedule)
        assert fit(tmp_path, load=point, exact=ExactResume(), model=model) == expected, point


@pytest.mark.parametrize("workers", [0, 1])
def test_any_loader_continues_at_the_end_of_an_epoch(tmp_path, workers):
    def loader():
        return shuffled(num_workers=workers)

    expected = fit(tmp_path, EPOCH, VALIDATION, exact=ExactResume(), loader=loader)
    for point in (f"{EPOCH} 7", f"{VALIDATION} 14"):
        assert fit(tmp_path, load=point, exact=ExactResume(), loader=loader) == expected, point


def test_workers_of_the_validation_change_nothing(tmp_path):
    def val():
        return DataLoader(Samples(4), 2, num_workers=1, persistent_workers=True)

    expected = fit(tmp_path, EPOCH, exact=ExactResume(), val=val())
    assert fit(tmp_path, load=f"{EPOCH} 7", exact=ExactResume(), val=val()) == expected


def test_two_loaders_continue(tmp_path):
    def loaders():
        return [resumable_loader(Samples(count), 2, seed=count) for count in (14, 6)]

    class Both(Network):
        def training_step(self, batch, batch_idx):
            return super().training_step(torch.cat(batch), batch_idx)

        def validation_step(self, batch, batch_idx):
            pass

    expected = fit(tmp_path, STEP, exact=ExactResume(), loader=loaders, model=Both())
    for number in (2, 4, 7, 12):
        point = f"{STEP} {number}"
        found = fit(tmp_path, load=point, exact=ExactResume(), loader=loaders, model=Both())
        assert found == expected, point


def test_lightning_alone_does_not(tmp_path):
    expected = fit(tmp_path, STEP, EPOCH, loader=shuffled)
    for point in (f"{STEP} 3", f"{EPOCH} 7"):
        assert fit(tmp_path, load=point, loader=shuffled) != expected


def test_a_fit_without_an_interruption_is_as_without_the_callback(tmp_path):
    options = {"limit_val_batches": 0}
    assert fit(tmp_path, exact=ExactResume(), **options) == fit(tmp_path, **options)


@pytest.mark.parametrize(
    ("options", "point", "reason"),
    [
        ({"accumulate_grad_batches": 3}, f"{STEP} 2", "saved between two optimizer steps"),
        ({"loader": shuffled}, f"{STEP} 2", "the train loader is a DataLoader, which begins its"),
        ({"model": Hooked()}, f"{STEP} 2", "the model's on_train_batch_end runs after the chec"),
        ({}, "on_train_batch_start 2", "saved in the middle of a step"),
        ({}, "on_validation_batch_end 7", "saved in the middle of a step or a validation"),
        ({"max_steps": 9}, f"{EPOCH} 9", "saved after the fit was stopped within an epoch"),
    ],
)
def test_an_inexact_checkpoint_is_refused(tmp_path, options, point, reason):
    hook = point.partition(" ")[0]
    with pytest.warns(UserWarning, match=f"does not continue exactly: .*{reason}"):
        fit(tmp_path, hook, exact=ExactResume(), **options)
    options = {**options, "max_steps": -1}
    with pytest.raises(ConfigurationError, match=f"{reason}.*Choose another checkpoint"):
        fit(tmp_path, load=point, exact=ExactResume(), **options)
    exact = ExactResume(on_inexact="warn")
    with pytest.warns(UserWarning, match=f"the fit does not continue exactly: .*{reason}"):
        fit(tmp_path, load=point, exact=exact, **options)
    assert reason in exact.inexact


def test_persistent_workers_are_refused(tmp_path):
    def loader():
        return shuffled(num_workers=1, persistent_workers=True)

    fit(tmp_path, EPOCH, exact=ExactResume(), loader=loader)
    with pytest.raises(ConfigurationError, match="persistent_workers=True, and their random"):
        fit(tmp_path, load=f"{EPOCH} 7", exact=ExactResume(), loader=loader)


def test_a_checkpoint_without_random_states_is_refused(tmp_path):
    fit(tmp_path, EPOCH)
    with pytest.raises(ConfigurationError, match="saved without ExactResume, and has no random"):
        fit(tmp_path, load=f"{EPOCH} 7", exact=ExactResume())
    fit(tmp_path, load=f"{EPOCH} 7", exact=ExactResume(on_inexact="warn"))


def test_bad_arguments_get_one_sentence(tmp_path):
    with pytest.raises(ConfigurationError, match=r"on_inexact='stop'\) is not allowed; choose"):
        ExactResume(on_inexact="stop")
    with pytest.raises(ConfigurationError, match="two ExactResume callbacks; remove one"):
        trainer(ExactResume(), Named()).fit(Network(), resumable_loader(Samples(), 2))


class Named(ExactResume):
    @property
    def state_key(self) -> str:
        return "another"


def test_weights_of_a_checkpoint_can_be_validated(tmp_path):
    fit(tmp_path, STEP, exact=ExactResume())
    val = DataLoader(Samples(4), 2)
    trainer(ExactResume()).validate(Network(), val, ckpt_path=str(tmp_path / f"{STEP} 2"))
    saved = torch.load(tmp_path / f"{STEP} 2", weights_only=True)
    assert saved["callbacks"]["ExactResume"]["point"]["kind"] == "step"


def test_model_checkpoint_saves_at_optimizer_steps(tmp_path):
    """One that continues would save a second time after the next batch."""
    options = {"accumulate_grad_batches": 3}
    fit(tmp_path, STEP, exact=ExactResume(), **options)
    every = ModelCheckpoint(tmp_path, every_n_train_steps=1, save_top_k=-1, filename="{step}")
    options |= {"max_epochs": 1, "enable_checkpointing": True}
    resumed = trainer(ExactResume(), every, **options)
    loader = resumable_loader(Samples(), 2, seed=1)
    resumed.fit(Network(), loader, ckpt_path=str(tmp_path / f"{STEP} 3"))
    assert sorted(path.name for path in tmp_path.glob("step=*")) == ["step=2.ckpt", "step=3.ckpt"]


class Report(Callback):
    """Write the weights of each rank into a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, trainer, pl_module) -> None:
        weights = nn.utils.parameters_to_vector(pl_module.parameters()).tolist()
        drawn = torch.rand(()).item()
        file = self.folder / f"rank{trainer.global_rank}.json"
        file.write_text(json.dumps([weights, drawn]))


@FORKS
def test_two_processes_continue(tmp_path):
    def ranks(load: str | None) -> list[Any]:
        seed(3 if load is None else 99)
        callbacks = [ExactResume(), Report(tmp_path), SaveAt(tmp_path, STEP)]
        options = {"strategy": "ddp_fork", "devices": 2, "default_root_dir": tmp_path}
        model = Network()
        used = trainer(*callbacks, max_epochs=2, **options)
        used.fit(model, resumable_loader(Samples(), 2, seed=1), ckpt_path=load)
        return [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]

    expected = ranks(None)
    assert expected[0][0] == expected[1][0]
    assert ranks(str(tmp_path / f"{STEP} 6")) == expected
    with pytest.raises(ConfigurationError, match=r"2 process\(es\) saved it, and 1 continue"):
        fit(tmp_path, load=f"{STEP} 6", exact=ExactResume())


@pytest.mark.slow
def test_pauses_and_kills_change_no_bit(tmp_path):
    done = prepared.python("-c", BENCHMARK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["0.0", "2"] * 4
