"""Accuracy with a tenth of the labels: the share of the gap that ``PartialLabels`` closes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from _controller.streams import thinned
from pytorch_lightning import Callback
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from _reuse.kept import finished
from _reuse.models import Cnn, accuracy, fit, halved
from greentrain.callbacks import PartialLabels
from greentrain.methods import MISSING_LABEL, PartialBatches, weakly_augmented
from greentrain.streams import fashion_mnist, mnist

IDS = ("labels",)
_SHARE = 0.1
_BATCH = 64
_EPOCH = 20
"""Steps between two changes of the learning rate."""
_RATIO = 7
"""Samples without labels for each one with a label, as in the paper."""
_NAMES = {"MNIST": mnist, "Fashion-MNIST": fashion_mnist}


class WeakOnly(Callback):
    """Augment each training batch weakly: the references train as the labelled part does."""

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, index: int) -> None:
        batch[0].copy_(weakly_augmented(batch[0]))


def rows(
    quick: bool,
    seeds: Sequence[int],
    kept: Path | None = None,
    left_out: Sequence[str] = (),
) -> list[dict[str, Any]]:
    """Return the rows of each set of data; see :class:`_results.Row` for the keys."""
    size, steps, tested = (320, 20, 500) if quick else (2000, 2560, 3000)
    names = [name for name in _NAMES if name not in left_out]
    cases = [(name, seed) for seed in seeds for name in names]
    runs = finished(accuracies, cases, kept, size=size, steps=steps, tested=tested)
    found = [
        _row(
            name,
            [run for run, (of, _) in zip(runs, cases, strict=True) if of == name],
            size,
            steps,
        )
        for name in names
    ]
    return found + [_not_run(name) for name in left_out if name in _NAMES]


def _not_run(name: str) -> dict[str, Any]:
    what = f"{name}: share of the gap between a tenth of the labels and all that is closed"
    note = "not run in the present form: the processors were busy"
    return {"id": "labels", "what": what, "value": None, "unit": "% of the gap", "reach": 40.0} | {
        "better": "higher",
        "note": note,
    }


def _row(name: str, runs: Sequence[Mapping[str, float]], size: int, steps: int) -> dict[str, Any]:
    means = {key: statistics.fmean(run[key] for run in runs) for key in runs[0]}

    def share(of: Mapping[str, float]) -> float:
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
        f"labels of {100 * _SHARE:g} % chosen at random, a small CNN. All have {steps} steps of "
        f"{_BATCH} samples with labels, weakly augmented; PartialLabels has {_RATIO} times as many "
        "without in addition, so it computes more. The values are the paper's. The number of steps "
        "was chosen on held-out training data of another seed: after 640, all labels gave no more "
        "than a tenth of them. Lowest and highest seed",
    }


def accuracies(name: str, seed: int, *, size: int, steps: int, tested: int) -> dict[str, float]:
    """Return the accuracies with few labels, with few and the other samples, and with all."""
    train, test = (halved(part) for part in thinned(_NAMES[name](), size, seed))
    test = TensorDataset(*(part[:tested] for part in test.tensors))
    images, labels = train.tensors
    known = torch.zeros(size, dtype=torch.bool)
    known[: round(_SHARE * size)] = True  # the samples are in random order
    partly = torch.where(known, labels, torch.tensor(MISSING_LABEL))
    few = TensorDataset(images[known], labels[known])
    mixed = PartialBatches(partly, labelled=_BATCH, ratio=_RATIO, steps=_EPOCH, seed=seed)
    return {
        "few": _trained(_repeated(few, seed), test, steps, seed, WeakOnly()),
        "partial": _trained(
            DataLoader(TensorDataset(images, partly), batch_sampler=mixed),
            test,
            steps,
            seed,
            PartialLabels(),
        ),
        "all": _trained(_repeated(train, seed), test, steps, seed, WeakOnly()),
    }


def _repeated(dataset: TensorDataset, seed: int) -> DataLoader[Any]:
    """Return a loader of epochs of equal length, in full batches with repetition."""
    sampler = RandomSampler(
        dataset, num_samples=_EPOCH * _BATCH, generator=torch.Generator().manual_seed(seed)
    )
    return DataLoader(dataset, _BATCH, sampler=sampler)


def _trained(
    loader: DataLoader[Any], test: TensorDataset, steps: int, seed: int, *callbacks: Any
) -> float:
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    model = Cnn()
    fit(model, loader, steps // _EPOCH, callbacks)
    return accuracy(model, test)
