"""Train on a tenth of the labels: with these samples only, and with ``PartialLabels`` on all.

Run ``python examples/partial_labels.py``; ``--quick`` trains for 2 epochs instead of 40.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import Trainer
from torch.utils.data import ConcatDataset, DataLoader, TensorDataset

from greentrain.callbacks import PartialLabels
from greentrain.demo import DigitsModel
from greentrain.methods import MISSING_LABEL
from greentrain.streams import digits_stream


class Digits(DigitsModel):
    """The model of the demo, for images of 8 x 8 pixels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return super().forward(images.flatten(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="2 epochs instead of 40")
    epochs = 2 if parser.parse_args().quick else 40
    digits = digits_stream()
    samples = list(ConcatDataset([each.train for each in digits]))
    val = DataLoader(ConcatDataset([each.val for each in digits]), 256)
    images = torch.stack([image for image, _ in samples]).view(-1, 1, 8, 8)
    labels = torch.tensor([int(label) for _, label in samples])
    known = torch.arange(len(labels)) % 10 == 0
    partly = torch.where(known, labels, torch.tensor(MISSING_LABEL))
    trainings = {
        "labelled samples only": (TensorDataset(images[known], labels[known]), 10 * epochs, []),
        "with the others": (TensorDataset(images, partly), epochs, [PartialLabels()]),
        "all labels": (TensorDataset(images, labels), epochs, []),
    }
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    for name, (data, length, callbacks) in trainings.items():
        torch.manual_seed(1)
        model = Digits()
        trainer = Trainer(max_epochs=length, callbacks=[*callbacks], accelerator="cpu", **quiet)
        trainer.fit(model, DataLoader(data, 64, shuffle=True))
        [metrics] = trainer.validate(model, val, verbose=False)
        print(f"{name}: accuracy {metrics['val_acc']:.3f}")
        for callback in callbacks:
            confident, others = callback.pseudo
            print(f"  {100 * confident / others:.0f} % of the others had a pseudo-label")


if __name__ == "__main__":
    main()
