"""Decide about new digits before they have labels: the labels come after the decision.

Run ``python examples/late_labels.py``; ``--quick`` takes three experiences instead of eight.
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial

import torch
from torch.utils.data import Dataset, TensorDataset

from greentrain import StreamTrainer
from greentrain.demo import DigitsModel
from greentrain.streams import Experience, digits_stream

MISSING = -1


def without_labels(dataset: Dataset) -> TensorDataset:
    """Return the images of a dataset; a label of -1 is none."""
    images = torch.stack([image for image, _ in dataset])
    return TensorDataset(images, torch.full((len(images),), MISSING))


def ask_experts(experience: Experience) -> tuple[Dataset, Dataset]:
    """Return the data with labels, once they are needed."""
    print(f"  the labels of {experience.id} arrive")
    return experience.train, experience.val


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="three experiences")
    stream = digits_stream()[: 3 if parser.parse_args().quick else None]
    with (
        tempfile.TemporaryDirectory() as folder,
        StreamTrainer(
            DigitsModel,
            budget="1 Wh",
            num_experiences=len(stream),
            monitor="val_acc",
            ledger=f"sqlite:///{folder}/late.db",
            trainer={"max_epochs": 5, "accelerator": "cpu"},
            loader={"batch_size": 16},
        ) as trainer,
    ):
        for experience in stream:
            print(experience.id)
            arrival = Experience(
                experience.id,
                without_labels(experience.train),
                without_labels(experience.val),
                labels=partial(ask_experts, experience),
            )
            result = trainer.update(arrival)
            print(f"  {result.decision.action}: {result.reason}")
            print(f"  val_acc {result.metric_before} -> {result.metric_after}")


if __name__ == "__main__":
    main()
