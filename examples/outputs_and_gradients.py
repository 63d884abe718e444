"""Learn digits in five experiences of two classes, and keep the first by outputs or gradients.

Run ``python examples/outputs_and_gradients.py``; ``--quick`` learns two of them, in one epoch each.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from torch.utils.data import DataLoader, Dataset

from greentrain.callbacks import AGEM, DER, GEM, MIR, EnergyMonitor, LwF
from greentrain.demo import DigitsModel
from greentrain.streams import class_incremental, digits
from greentrain.units import format_energy

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


class Digits(DigitsModel):
    """The model of the demo, for images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images ``(batch, 1, 8, 8)``."""
        return super().forward(images.flatten(1))


def methods() -> dict[str, list[Callback]]:
    """Return the callbacks of each method, with 20 stored samples of an experience."""
    return {
        "fine-tuning": [],
        "LwF": [LwF(Digits)],
        "A-GEM": [AGEM(20)],
        "GEM": [GEM(20)],
        "DER": [DER(100)],
        "ER-MIR": [MIR(100)],
        "DER++": [DER(100, beta=0.5)],
    }


@torch.no_grad()
def accuracy(model: Digits, data: Dataset[object]) -> float:
    """Return the accuracy on a dataset, in percent."""
    images, labels = next(iter(DataLoader(data, batch_size=1000)))
    return 100 * float((model.eval()(images).argmax(1) == labels).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two experiences, one epoch")
    quick = parser.parse_args().quick
    epochs = 1 if quick else 20
    stream = class_incremental(digits()[0], n_experiences=5, val_share=0.3)
    for name, callbacks in methods().items():
        seed_everything(0, verbose=False)
        model, used_j = Digits(), 0.0
        for experience in stream[: 2 if quick else 5]:  # one fit for each, with the same callbacks
            monitor = EnergyMonitor(ledger=False, summary=False)
            trainer = Trainer(max_epochs=epochs, callbacks=[monitor, *callbacks], **QUIET)
            trainer.fit(model, DataLoader(experience.train, 16, shuffle=True))
            used_j += monitor.total.total_j or 0.0
        mean = sum(accuracy(model, each.val) for each in stream) / len(stream)
        print(f"{name}: {mean:.1f} % of all experiences, {format_energy(used_j)}")


if __name__ == "__main__":
    main()
