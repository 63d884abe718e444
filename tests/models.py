"""A small model, data and clock that the tests of Lightning parts share."""

from __future__ import annotations

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain.energy import ConstantMeter
from greentrain.streams import Experience

STEP_S = 0.01


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Tick(Callback):
    """Let a fixed time pass in each training batch, and in each validation."""

    def __init__(self, clock: Clock, step_s: float = STEP_S, validation_s: float = 0.0) -> None:
        self.clock = clock
        self.step_s = step_s
        self.validation_s = validation_s

    def on_train_batch_start(self, *args, **kwargs) -> None:
        self.clock.seconds += self.step_s

    def on_validation_batch_start(self, *args, **kwargs) -> None:
        self.clock.seconds += self.validation_s


class Classifier(LightningModule):
    """A linear classifier of two features that logs ``val_acc`` and ``val_loss``."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.layer = nn.Linear(2, classes)
        self.rates: list[float] = []

    def training_step(self, batch, batch_idx):
        samples, labels = batch
        return nn.functional.cross_entropy(self.layer(samples), labels)

    def validation_step(self, batch, batch_idx):
        samples, labels = batch
        logits = self.layer(samples)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels))
        self.log("val_acc", (logits.argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
        optimizer.register_step_post_hook(self._note_rate)  # before ours puts it back
        return optimizer

    def _note_rate(self, optimizer, args, kwargs):
        self.rates.append(float(optimizer.param_groups[0]["lr"]))


def blobs(classes, count: int, seed: int = 0) -> TensorDataset:
    """Samples around corners of a square, one corner for each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([each for each in classes for _ in range(count)])
    corners = torch.tensor([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    samples = corners[labels] + 0.2 * torch.randn(len(labels), 2, generator=generator)
    return TensorDataset(samples, labels)


def loader(count: int = 40, batch_size: int = 8) -> DataLoader:
    """A loader of all four classes: ``4 * count / batch_size`` batches."""
    return DataLoader(blobs(range(4), count), batch_size=batch_size)


def experience(name: str, classes, count: int = 40, seed: int = 0) -> Experience:
    """An experience with some of the classes."""
    return Experience(name, blobs(classes, count, seed), blobs(classes, 16, seed + 100))


def constant_meter(clock: Clock, power_w: float = 100.0) -> ConstantMeter:
    """A meter that counts a constant power over a fake clock."""
    return ConstantMeter(power_w, clock=clock)


def trainer(*callbacks: Callback, **options) -> Trainer:
    """A Trainer of two epochs on the processor, without files and output."""
    return Trainer(
        callbacks=list(callbacks),
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        },
    )
