"""Joules at equal accuracy of each method of ``SelectiveTraining``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from _controller.streams import thinned
from torch.utils.data import DataLoader, TensorDataset

from _reuse.counting import COUNTED
from _reuse.curves import Curve, bootstrap, ratio
from _reuse.models import Cnn, accuracy, fit, halved, joules_of_a_sample
from greentrain.callbacks import SelectiveTraining
from greentrain.streams import fashion_mnist

IDS = ("selective",)
METHODS = ("batch_loss", "infobatch", "selective_backprop")
_LENGTHS = (5, 8, 12)
"""Epochs of the trainings with all samples; the last is the reference."""
_SELECTIVE_LENGTHS = (5, 8, 12, 17)
_BATCH = 32


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return one row for each method; see :class:`_results.Row` for the keys."""
    size, lengths, longer = (320, (1, 2), (1, 2)) if quick else (2000, _LENGTHS, _SELECTIVE_LENGTHS)
    data = fashion_mnist()
    whole: list[Curve] = []
    by_method: dict[str, list[Curve]] = {method: [] for method in METHODS}
    for seed in seeds:
        train, test = (halved(part) for part in thinned(data, size, seed))
        whole.append([_trained(None, train, test, epochs, seed) for epochs in lengths])
        for method in METHODS:
            by_method[method].append(
                [_trained(method, train, test, epochs, seed) for epochs in longer]
            )
    target = [curve[-1][1] for curve in whole]
    note = (
        f"Fashion-MNIST at 14 x 14 pixels, {size} samples, a small CNN. The mean accuracy of "
        f"{lengths[-1]} epochs with all samples, reached by trainings of {longer} epochs "
        f"with the default of each method; {COUNTED}. 95 % interval, bootstrap over seeds"
    )
    found = []
    for method, curves in by_method.items():
        value = ratio(curves, whole, target)
        missed = "" if value is not None else "not reached by the longest training; "
        found.append(
            {"id": "selective", "what": f"joules at equal accuracy, {method}", "value": value}
            | {"unit": "% of the joules with all samples", "reach": 60.0, "seeds": len(seeds)}
            | {"interval": bootstrap(curves, whole, target), "note": missed + note}
        )
    return found


def _trained(
    method: Any, train: TensorDataset, test: TensorDataset, epochs: int, seed: int
) -> tuple[float, float]:
    """Return joules and accuracy of one training."""
    torch.manual_seed(seed)
    model, each_j = Cnn(), joules_of_a_sample()
    if method is None:
        fit(model, DataLoader(train, _BATCH, shuffle=True), epochs)
        return epochs * len(train) * each_j["step"], accuracy(model, test)
    selective = SelectiveTraining(method, seed=seed)
    backprop = method == "selective_backprop"
    order = {"shuffle": True} if backprop else {"sampler": selective.sampler(train)}
    fit(model, DataLoader(train, _BATCH, **order), epochs, [selective])
    used, came = selective.used
    scored_j = came * each_j["forward"] if backprop else 0.0
    return used * each_j["step"] + scored_j, accuracy(model, test)
