"""Classify easy digits by an early layer: train exits, choose a threshold, and predict.

Run ``python examples/early_exit.py``; ``--quick`` trains for 4 epochs instead of 20.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.callbacks import EarlyExit
from greentrain.methods import choose_threshold, exit_table
from greentrain.streams import digits_stream


class DeepDigits(LightningModule):
    """A perceptron of five layers for 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (64, 128, 128, 128)
        self.inner = nn.Sequential(
            *(nn.Sequential(nn.Linear(size, 128), nn.ReLU()) for size in sizes)
        )
        self.last = nn.Linear(128, 10)
        self.example_input_array = torch.zeros(1, 64)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits, ``(batch, 10)``."""
        return self.last(self.inner(images))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam for all weights, the exits' among them."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 epochs instead of 20")
    options = parser.parse_args()
    seed_everything(0, verbose=False)
    digits = digits_stream()
    train = DataLoader(ConcatDataset([each.train for each in digits]), 32, shuffle=True)
    val = DataLoader(ConcatDataset([each.val for each in digits]), 256)

    model, exits = DeepDigits(), EarlyExit(["inner.0", "inner.1", "inner.2"], classes=10)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    Trainer(max_epochs=4 if options.quick else 20, callbacks=[exits], **quiet).fit(model, train)
    rows = exit_table(exits.heads, model, val)
    print("threshold  accuracy  million operations of 1,000 predictions")
    for row in rows:
        print(f"{row.threshold:9.3g}  {row.accuracy:8.3f}  {row.operations / 1e6:.1f}")
    chosen = choose_threshold(rows, accuracy=rows[-1].accuracy - 0.005)
    exits.heads.threshold.fill_(chosen.threshold)
    share = chosen.operations / rows[-1].operations
    print(f"chosen {chosen.threshold:g}: {100 * share:.0f} % of the operations")


if __name__ == "__main__":
    main()
