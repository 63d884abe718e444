"""Learn digits in five experiences, and keep the first ones by anchoring parameters.

Run ``python examples/parameter_anchors.py``; ``--quick`` learns two of them, in one epoch each.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import Trainer, seed_everything
from torch.utils.data import DataLoader, Dataset

from greentrain.callbacks import EWC, MAS, SI, EnergyMonitor, L2Anchor, ParameterAnchor
from greentrain.demo import DigitsModel
from greentrain.streams import digits, domain_incremental
from greentrain.units import format_energy

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


class Digits(DigitsModel):
    """The model of the demo, for images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images ``(batch, 1, 8, 8)``."""
        return super().forward(images.flatten(1))


def anchors() -> dict[str, ParameterAnchor | None]:
    """Return each method with a strength."""
    return {
        "no anchor": None,
        "L2": L2Anchor(0.1),
        "EWC": EWC(300.0, samples=100),
        "online EWC": EWC(300.0, decay=0.9, samples=100),
        "SI": SI(2.0),
        "MAS": MAS(0.3, samples=100),
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
    stream = domain_incremental(digits()[0], n_experiences=5, val_share=0.3)
    for name, anchor in anchors().items():
        seed_everything(0, verbose=False)
        model, used_j = Digits(), 0.0
        for experience in stream[: 2 if quick else 5]:  # one fit for each, with the same callback
            monitor = EnergyMonitor(ledger=False, summary=False)
            callbacks = [monitor] if anchor is None else [monitor, anchor]
            trainer = Trainer(max_epochs=1 if quick else 20, callbacks=callbacks, **QUIET)
            trainer.fit(model, DataLoader(experience.train, 16, shuffle=True))
            used_j += monitor.total.total_j or 0.0
        mean = sum(accuracy(model, each.val) for each in stream) / len(stream)
        print(f"{name}: {mean:.1f} % of all experiences, {format_energy(used_j)}")


if __name__ == "__main__":
    main()
