"""Update a model on a stream of digits within a budget, and print each decision.

Run ``python examples/digits_stream.py``; ``--quick`` takes three experiences instead of eight.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import LightningModule
from torch import nn

from greentrain import StreamTrainer
from greentrain.streams import digits_stream
from greentrain.units import format_energy


class Digits(LightningModule):
    """A small perceptron for 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.layers(images), labels)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy: the name is the ``monitor`` below."""
        images, labels = batch
        self.log("val_acc", (self.layers(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam, at a constant rate: an update averages its weights."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="30 % of full", help="such as '0.05 Wh'")
    parser.add_argument("--quick", action="store_true", help="three experiences, 5 epochs")
    options = parser.parse_args()

    stream = digits_stream()[: 3 if options.quick else None]
    with StreamTrainer(
        Digits,
        budget=options.budget,
        num_experiences=len(stream),
        monitor="val_acc",
        ledger="sqlite:///digits.db",
        trainer={"max_epochs": 5 if options.quick else 15, "accelerator": "auto", "devices": 1},
        loader={"batch_size": 16},
    ) as trainer:
        for experience in stream:
            result = trainer.update(experience)
            print(f"{experience.id}: {experience.metadata['brings']}")
            print(f"  {result.decision.action}: {result.reason}")
            if result.metric_after is not None:
                print(f"  val_acc {result.metric_after:.3f}")
            print(f"  {format_energy(result.energy_j)} used, {format_energy(result.left_j)} left")
    print(f"the budget was {trainer.budget}; `greentrain verify digits.db` checks the ledger")


if __name__ == "__main__":
    main()
