"""Add two callbacks to an existing Lightning script: measure each epoch, and stop before a cap.

Run ``python examples/existing_script.py``; ``--quick`` trains for 2 epochs instead of 10.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.streams import digits_stream
from greentrain.units import format_energy


class Digits(LightningModule):
    """A small perceptron for 8 x 8 digits, without any code about energy."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        self.log("val_acc", (self.layers(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cap", default="0.5 Wh", help="most energy of the fit, or '0.1 gCO2e'")
    parser.add_argument(
        "--zone", help="grid zone of the power, such as DE; a cap in grams needs it"
    )
    parser.add_argument("--quick", action="store_true", help="2 epochs instead of 10")
    options = parser.parse_args()

    digits = digits_stream()
    train = DataLoader(ConcatDataset([each.train for each in digits]), 32, shuffle=True)
    val = DataLoader(ConcatDataset([each.val for each in digits]), 256)

    monitor = EnergyMonitor(ledger="sqlite:///greentrain.db", zone=options.zone)
    guard = BudgetGuard(options.cap, zone=options.zone)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    trainer = Trainer(max_epochs=2 if options.quick else 10, callbacks=[monitor, guard], **quiet)
    trainer.fit(Digits(), train, val)

    for window in monitor.windows:
        if window.phase in ("train_epoch", "validation"):
            print(f"{window.phase:12} {window.epoch} {format_energy(window.reading.total_j)}")
    print(f"total          {format_energy(monitor.total.total_j)}")
    print(guard.reason or f"{guard.steps} steps, and the cap of {options.cap} was not reached")


if __name__ == "__main__":
    main()
