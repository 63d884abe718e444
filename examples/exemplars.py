"""Learn digits class by class from stored samples: iCaRL, and the control that it must beat.

Run ``python examples/exemplars.py``; ``--quick`` learns two experiences, in one epoch each.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.callbacks import EnergyMonitor, GDumb, ICaRL
from greentrain.demo import DigitsModel
from greentrain.streams import class_incremental, digits
from greentrain.units import format_energy

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


class ImageModel(DigitsModel):
    """The model of the demo, for images, with a test."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images ``(batch, 1, 8, 8)``; iCaRL replaces them in a test."""
        return self.layers(images.flatten(1))

    def test_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())


def features(model: ImageModel, images: torch.Tensor) -> torch.Tensor:
    """Return the last hidden layer."""
    return model.layers[:-1](images.flatten(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two experiences, one epoch")
    quick = parser.parse_args().quick
    stream = class_incremental(digits()[0], n_experiences=5, val_share=0.3)
    methods: dict[str, list[Callback]] = {
        "fine-tuning": [],
        "GDumb": [GDumb(ImageModel, 100)],
        "iCaRL": [ICaRL(ImageModel, features, capacity=100)],
    }
    for name, callbacks in methods.items():
        seed_everything(0, verbose=False)
        model, used_j = ImageModel(), 0.0
        for experience in stream[: 2 if quick else 5]:  # one fit for each, with the same callbacks
            monitor = EnergyMonitor(ledger=False, summary=False)
            trainer = Trainer(
                max_epochs=1 if quick else 20, callbacks=[monitor, *callbacks], **QUIET
            )
            trainer.fit(model, DataLoader(experience.train, 16, shuffle=True))
            used_j += monitor.total.total_j or 0.0
        tested = DataLoader(ConcatDataset([each.val for each in stream]), 1000)
        [result] = trainer.test(model, tested, verbose=False)
        accuracy = 100 * result["accuracy"]
        print(f"{name}: {accuracy:.1f} % of all experiences, {format_energy(used_j)}")


if __name__ == "__main__":
    main()
