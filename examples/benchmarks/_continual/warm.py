"""Measure the loss of warm starts that shrink-and-perturb recovers (Ash & Adams 2020)."""

from __future__ import annotations

import io
import os
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from _results import Row
from torch.utils.data import Dataset, Subset, TensorDataset

from _continual.learning import FULL, WARM
from _continual.resnet import NarrowResNet
from greentrain.control import Action, Candidate
from greentrain.evaluation.evaluator import Evaluator
from greentrain.memory import SampleList, size
from greentrain.training.config import ModeConfig
from greentrain.training.data import UpdateData
from greentrain.training.fit import ModelTrainer

_BATCH_SIZE = 128
_MOST_EPOCHS = 150
_STARTS = {"random": (FULL, 1.0, 0.0), "warm": (WARM, 1.0, 0.0), "shrunk": (WARM, 0.4, 0.1)}
_WHAT = {
    "random": "CIFAR-10 after the second phase, from fresh weights",
    "warm": "CIFAR-10 after the second phase, from the weights of the first",
    "shrunk": "CIFAR-10 after the second phase, shrink-and-perturb 0.4 and 0.1",
}


def warm_gap(*, quick: bool) -> list[Row]:
    """Return the share of the gap closed and the accuracies, or why they were not measured."""
    path = Path(os.environ.get("GREENTRAIN_DATA", "")) / "cifar-10" / "cifar10_jpeg.npz"
    if not torch.cuda.is_available():
        return _rows({}, "not run: torch sees no CUDA GPU")
    if not path.is_file():
        return _rows({}, "not run: $GREENTRAIN_DATA/cifar-10/cifar10_jpeg.npz is not there")
    found = accuracies(cifar(path), seeds=range(1 if quick else 3), accelerator="gpu")
    return _rows(
        found,
        "Two thirds of CIFAR-10's training images (from JPEG), half of them in the first phase. "
        "Narrow ResNet-18, Adam 1e-3, batches of 128, until 99 % of the training images are "
        "correct, no augmentation. Accuracy on the last third",
    )


def cifar(path: Path, count: int | None = None) -> TensorDataset:
    """Read CIFAR-10's training images from the JPEG files in an array.

    Args:
        path: The ``.npz`` file.
        count: Number of images; all by default.

    Returns:
        Images in [-1, 1], ``(n, 3, 32, 32)``, and their labels.
    """
    from PIL import Image

    with np.load(path) as arrays:
        files, offsets, labels = (arrays[f"{key}_train"] for key in ("jpeg", "offset", "y"))
    count = len(labels) if count is None else count
    images = np.empty((count, 32, 32, 3), np.uint8)
    for place in range(count):
        encoded = files[offsets[place] : offsets[place + 1]].tobytes()
        images[place] = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
    return TensorDataset(pixels.contiguous(), torch.from_numpy(labels[:count].astype(np.int64)))


def accuracies(
    data: TensorDataset,
    *,
    seeds: Sequence[int],
    accelerator: str,
    most_epochs: int = _MOST_EPOCHS,
) -> dict[str, list[float]]:
    """Return the accuracy in % after the second phase from each kind of start, seed by seed.

    Args:
        data: Images and labels: two thirds to train on, a third to measure on.
        seeds: The seeds.
        accelerator: Accelerator of the Trainer.
        most_epochs: Most epochs of a phase.
    """
    found: dict[str, list[float]] = {start: [] for start in _STARTS}
    options = {"max_epochs": 1, "accelerator": accelerator, "devices": 1}
    loader = {"batch_size": _BATCH_SIZE}
    evaluator = Evaluator(monitor="val_acc", options=options, loader=loader)
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(data)).tolist()
        end = 2 * len(data) // 3
        first, second = Subset(data, order[: end // 2]), Subset(data, order[end // 2 : end])
        test = Subset(data, order[end:])
        both = Subset(data, order[:end])

        make = partial(ModelTrainer, NarrowResNet, options=options, loader=loader, seed=seed)
        data_1 = UpdateData(new=first, stored=SampleList([]), held=first)
        candidate = _candidate(FULL, first, most_epochs)
        trainer = make(modes=ModeConfig())
        weights = trainer.train(candidate, data_1, weights=None, position=0).module.state_dict()
        data_2 = UpdateData(new=second, stored=first, held=both)
        for start, (action, shrink, perturb) in _STARTS.items():
            trainer = make(modes=ModeConfig(shrink=shrink, perturb=perturb))
            candidate = _candidate(action, both, most_epochs)
            after = trainer.train(candidate, data_2, weights=weights, position=1).module
            found[start].append(100 * evaluator.metric(after, test))
    return found


def _candidate(action: Action, data: Dataset[object], epochs: int) -> Candidate:
    return Candidate(action=action, steps=epochs * -(-size(data) // _BATCH_SIZE))


def _rows(found: dict[str, list[float]], note: str) -> list[Row]:
    means = {start: statistics.fmean(values) for start, values in found.items()}
    share = None
    if means and means["random"] > means["warm"]:
        share = 100 * (means["shrunk"] - means["warm"]) / (means["random"] - means["warm"])
    elif means:
        note = f"not defined, because warm starts lost nothing here: {note}"
    rows = [
        Row(
            id="warm_gap",
            what="share of the gap between warm and fresh starts that shrink-and-perturb closes",
            value=share,
            unit="%",
            reach=80.0,
            better="higher",
            seeds=len(found.get("random", [])) or 1,
            note=note,
        )
    ]
    for start, what in _WHAT.items():
        values = found.get(start, [])
        rows.append(
            Row(
                id="warm_gap",
                what=what,
                value=means.get(start),
                unit="%",
                seeds=len(values) or 1,
                interval=(min(values), max(values)) if values else None,
                note="mean, lowest and highest seed" if values else note,
            )
        )
    return rows
