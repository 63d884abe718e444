"""Offer cached features and selective training to the controller, and list what it chose.

Run ``python examples/offered_methods.py``; ``--quick`` learns 3 experiences instead of all 10.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
from torch import nn

from greentrain import StreamTrainer
from greentrain.callbacks import FeatureCache, SelectiveTraining
from greentrain.demo import DigitsModel
from greentrain.energy import ConstantMeter
from greentrain.streams import digits_stream


class SampleLosses(DigitsModel):
    """The model of the demo, with the loss of each sample."""

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> dict[str, torch.Tensor]:
        """Return the mean loss, and the losses that selective training needs."""
        images, labels = batch
        losses = nn.functional.cross_entropy(self(images), labels, reduction="none")
        return {"loss": losses.mean(), "sample_losses": losses}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 experiences")
    options = parser.parse_args()
    experiences = list(digits_stream())[: 3 if options.quick else None]
    with (
        tempfile.TemporaryDirectory() as folder,
        StreamTrainer(
            SampleLosses,
            budget="0.2 Wh",
            num_experiences=len(experiences),
            monitor="val_acc",
            ledger=f"sqlite:///{folder}/methods.db",
            trainer={"max_epochs": 4 if options.quick else 10, "accelerator": "cpu"},
            meter=ConstantMeter(10.0),  # replace it by None to measure
            methods={
                "cached": FeatureCache("layers", freeze=2),
                "selective": SelectiveTraining("selective_backprop"),
            },
        ) as stream,
    ):
        for result in stream.run(experiences):
            offered = {each.action.method for each in result.decision.alternatives} - {""}
            print(f"{result.experience_id}: {result.decision.action}, {result.energy_j:.1f} J")
            print(f"  offered methods: {', '.join(sorted(offered)) or 'none yet'}")


if __name__ == "__main__":
    main()
