"""Accuracy with a tenth of the labels: the share of the gap that ``PartialLabels`` closes."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
from _controller.streams import thinned
from torch.utils.data import DataLoader, TensorDataset

from _reuse.models import Cnn, accuracy, fit, halved
from greentrain.callbacks import PartialLabels
from greentrain.methods import MISSING_LABEL
from greentrain.streams import fashion_mnist, mnist

IDS = ("labels", "no_labels")
_SHARE = 0.1
_BATCH = 64
_WORKERS = 2
_NAMES = {"MNIST": mnist, "Fashion-MNIST": fashion_mnist}


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of each set of data; see :class:`_results.Row` for the keys."""
    size, epochs, tested = (320, 2, 500) if quick else (2000, 20, 3000)
    cases = [(name, seed) for name in _NAMES for seed in seeds]
    run = partial(_run, size=size, epochs=epochs, tested=tested)
    with ProcessPoolExecutor(_WORKERS, get_context("spawn")) as pool:
        runs = list(pool.map(run, *zip(*cases, strict=True)))
    found = [
        _row(
            name,
            [run for run, (of, _) in zip(runs, cases, strict=True) if of == name],
            size,
            epochs,
        )
        for name in _NAMES
    ]
    note = "not run: the probe without labels is not built"
    what = "decisions without labels at arrival, against decisions with them"
    return [
        *found,
        {"id": "no_labels", "what": what, "value": None, "unit": "points", "reach": 5.0}
        | {"note": note},
    ]


def _row(name: str, runs: Sequence[dict[str, float]], size: int, epochs: int) -> dict[str, Any]:
    means = {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}

    def share(of: dict[str, float]) -> float:
        return 100 * (of["partial"] - of["few"]) / (of["all"] - of["few"])

    each = sorted(share(run) for run in runs)
    return {
        "id": "labels",
        "what": f"{name}: share of the gap between a tenth of the labels and all that is closed",
        "value": share(means),
        "unit": "% of the gap",
        "reach": 40.0,
        "better": "higher",
        "seeds": len(runs),
        "interval": (each[0], each[-1]),
        "note": f"accuracy {means['few']:.1f} % with the labelled samples only, "
        f"{means['partial']:.1f} % with PartialLabels at a threshold of 0.95, "
        f"{means['all']:.1f} % with all labels. {size} samples at 14 x 14 pixels, "
        f"labels of {100 * _SHARE:g} % chosen at random, a small CNN. All have equally many "
        f"steps, those of {epochs} epochs of all samples in batches of {_BATCH}; "
        "lowest and highest seed. A sample without a label has a forward pass, and a step if the "
        "prediction is confident",
    }


def _run(name: str, seed: int, *, size: int, epochs: int, tested: int) -> dict[str, float]:
    """Return the accuracies with few labels, with few and the other samples, and with all."""
    train, test = (halved(part) for part in thinned(_NAMES[name](), size, seed))
    test = TensorDataset(*(part[:tested] for part in test.tensors))
    images, labels = train.tensors
    known = torch.zeros(size, dtype=torch.bool)
    known[: round(_SHARE * size)] = True  # the samples are in random order
    partly = TensorDataset(images, torch.where(known, labels, torch.tensor(MISSING_LABEL)))
    few = TensorDataset(images[known], labels[known])
    steps = epochs * -(-size // _BATCH)
    few_epochs = round(steps / -(-len(few) // _BATCH))
    return {
        "few": _trained(few, test, few_epochs, seed),
        "partial": _trained(partly, test, epochs, seed, PartialLabels()),
        "all": _trained(train, test, epochs, seed),
    }


def _trained(
    train: TensorDataset, test: TensorDataset, epochs: int, seed: int, *callbacks: Any
) -> float:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Cnn()
    fit(model, DataLoader(train, _BATCH, shuffle=True), epochs, callbacks)
    return accuracy(model, test)
