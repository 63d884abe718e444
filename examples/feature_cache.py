"""Train a head on frozen layers with and without ``FeatureCache``, and compare the energy.

Run ``python examples/feature_cache.py``; ``--quick`` trains for 3 epochs instead of 20.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import LightningModule, Trainer
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.callbacks import EnergyMonitor, FeatureCache
from greentrain.streams import digits_stream
from greentrain.units import format_energy


class Digits(LightningModule):
    """A backbone that stays as it is, and a head that is trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.backbone = nn.Sequential(
            *(nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 32, 3, padding=1)),
            *(nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.Flatten()),
        )
        self.backbone.requires_grad_(False)
        self.head = nn.Linear(64 * 16, 10)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.head(self.backbone(images)), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam for the head."""
        return torch.optim.Adam(self.head.parameters(), lr=1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 epochs instead of 20")
    epochs = 3 if parser.parse_args().quick else 20
    data = ConcatDataset([each.train for each in digits_stream()])
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    weights = []
    for cache in (None, FeatureCache("backbone", max_bytes="100 MB")):
        model = Digits()
        monitor = EnergyMonitor(ledger=False, summary=False)
        callbacks = [monitor, *([] if cache is None else [cache])]
        trainer = Trainer(max_epochs=epochs, callbacks=callbacks, accelerator="cpu", **quiet)
        torch.manual_seed(2)
        trainer.fit(model, DataLoader(data, 32, shuffle=True))
        weights.append(model.head.weight.detach())
        looked_up, came = (0, epochs * len(data)) if cache is None else cache.used
        energy = format_energy(monitor.total.total_j)
        print(f"{looked_up} of {came} samples were looked up; the fit used {energy}")
    print(
        f"the largest difference of a weight is {float((weights[0] - weights[1]).abs().max()):.1g}"
    )


if __name__ == "__main__":
    main()
