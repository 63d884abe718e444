"""Skip blocks for easy digits, and route digits to experts, in one small module.

Run ``python examples/routing.py``; ``--quick`` trains for 4 epochs instead of 20.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.methods import MixtureOfExperts, SkipBlocks, auxiliary_loss, count_operations
from greentrain.streams import digits_stream


class RoutedDigits(LightningModule):
    """Gated blocks or experts between the first and the last layer."""

    def __init__(self, middle: nn.Module, weight: float = 0.0) -> None:
        super().__init__()
        self.weight = weight
        self.net = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), middle, nn.Linear(64, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(batch, 10)``."""
        return self.net(images)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy, and the loss of gates and experts."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        return loss + self.weight * auxiliary_loss(self)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 64))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 epochs instead of 20")
    options = parser.parse_args()
    digits = digits_stream()
    train = DataLoader(ConcatDataset([each.train for each in digits]), 32, shuffle=True)
    images, labels = next(iter(DataLoader(ConcatDataset([each.val for each in digits]), 4096)))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    for name, middle, weight in (
        ("dense", lambda: nn.Sequential(*(block() for _ in range(3))), 0.0),
        ("skipped blocks", lambda: SkipBlocks([block() for _ in range(3)], 64, target=0.5), 1.0),
        ("experts", lambda: MixtureOfExperts(64, 256, experts=4), 0.01),
    ):
        seed_everything(0, verbose=False)
        model = RoutedDigits(middle(), weight)
        Trainer(max_epochs=4 if options.quick else 20, **quiet).fit(model, train)
        operations = count_operations(model, images) / len(images)
        with torch.no_grad():
            accuracy = (model.eval()(images).argmax(1) == labels).float().mean()
        print(f"{name}: accuracy {accuracy:.3f}, {operations:,.0f} operations a prediction")


if __name__ == "__main__":
    main()
