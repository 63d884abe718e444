"""Train on fewer samples: what each method of ``SelectiveTraining`` saves, and what it costs.

Run ``python examples/selective_training.py``; ``--quick`` trains for 4 epochs instead of 24.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from pytorch_lightning import Trainer, seed_everything
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.callbacks import EnergyMonitor, SelectiveTraining
from greentrain.demo import DigitsModel
from greentrain.streams import digits_stream
from greentrain.units import format_energy

METHODS = (None, "batch_loss", "infobatch", "selective_backprop")


class Digits(DigitsModel):
    """The model of the demo, which also returns the loss of each sample."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, Any]:
        """Return the cross-entropy of a batch, and of each of its samples."""
        images, labels = batch
        losses = nn.functional.cross_entropy(self(images), labels, reduction="none")
        return {"loss": losses.mean(), "sample_losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="4 epochs instead of 24")
    options = parser.parse_args()

    digits = digits_stream()
    train = ConcatDataset([each.train for each in digits])
    val = DataLoader(ConcatDataset([each.val for each in digits]), 256)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    for method in METHODS:
        seed_everything(0, verbose=False)
        monitor = EnergyMonitor(
            ledger="sqlite:///greentrain.db", name=method or "all samples", summary=False
        )
        selective = None if method is None else SelectiveTraining(method)
        if selective is None or method == "selective_backprop":
            loader = DataLoader(train, 32, shuffle=True)
        else:
            loader = DataLoader(train, 32, sampler=selective.sampler(train))
        trainer = Trainer(
            max_epochs=4 if options.quick else 24,
            callbacks=[monitor, *([] if selective is None else [selective])],
            **quiet,
        )
        model = Digits()
        trainer.fit(model, loader)
        [metrics] = trainer.validate(model, val, verbose=False)
        used, whole = (1, 1) if selective is None else selective.used
        print(
            f"{method or 'all samples'}: {100 * used / whole:.0f} % of the samples, "
            f"{format_energy(monitor.total.total_j or 0.0)}, accuracy {metrics['val_acc']:.3f}"
        )


if __name__ == "__main__":
    main()
