"""Gates over residual blocks, and a mixture of experts: operations of a prediction."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from _reuse import nets
from greentrain.methods import MixtureOfExperts, SkipBlocks, auxiliary_loss, count_operations

_TARGET = 0.6
_THRESHOLDS = (1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -3.0, -5.0)
_GATE_WEIGHT, _BALANCE_WEIGHT = 2.0, 0.01
_EXPERTS, _EXPERT, _WIDTH, _HIDDEN = 2, 512, 128, 1024
_SAMPLES, _EPOCHS = 24_000, 6  # of the perceptrons


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows: each way against its full net, and a smaller full net for comparison."""
    makers: dict[str, tuple[float | None, Callable[[int, bool], tuple[float, float]]]] = {
        "SkipBlocks in a residual net: operations of a prediction": (70.0, _skipping),
        "MixtureOfExperts in a perceptron: operations of a prediction": (70.0, _mixing),
        "a perceptron as large as one expert: operations of a prediction": (None, _one_expert),
    }
    found = []
    for what, (reach, make) in makers.items():
        pairs = [make(seed, quick) for seed in seeds]
        shares, lost = [share for share, _ in pairs], [each for _, each in pairs]
        note = "Operations by torch.utils.flop_counter as they ran on test data."
        if reach is None:
            note = "No routing: what the smaller size alone gives. " + note
        unit = "% of the full net's"
        samples = 12_000 if make is _skipping else _SAMPLES
        found.append(
            nets.row(
                *("routing", what, shares, lost),
                reach=reach,
                unit=unit,
                samples=samples,
                note=note,
            )
        )
    return found


def _skipping(seed: int, quick: bool) -> tuple[float, float]:
    torch.manual_seed(seed)
    blocks = [nets.body() for _ in range(4)]
    skip = SkipBlocks(blocks, channels=16, target=_TARGET)
    net = nn.Sequential(nets.stem(), skip, nets.head())
    data = nets.data(seed, quick=quick)
    loss = _with(_GATE_WEIGHT)
    nets.train(net, data.train, seed=seed, epochs=nets.epochs(quick), loss=loss)
    full = nets.trained_dense_net(seed, quick=quick)

    def measured(threshold: float) -> tuple[float, float]:
        skip.threshold.fill_(threshold)
        return nets.measured(net, data.val)

    target = nets.accuracy(full, data.val) - nets.WITHIN
    skip.threshold.fill_(nets.cheapest(_THRESHOLDS, measured, target))
    return _against(full, net, data)


def _mixing(seed: int, quick: bool) -> tuple[float, float]:
    return _perceptrons(lambda: MixtureOfExperts(_WIDTH, _EXPERT, experts=_EXPERTS), seed, quick)


def _one_expert(seed: int, quick: bool) -> tuple[float, float]:
    return _perceptrons(lambda: _layers(_EXPERT), seed, quick)


def _layers(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(_WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, _WIDTH))


@functools.lru_cache(maxsize=8)
def _wide(seed: int, quick: bool) -> nn.Module:
    return _trained(lambda: _layers(_HIDDEN), seed, quick)


def _perceptrons(make: Callable[[], nn.Module], seed: int, quick: bool) -> tuple[float, float]:
    """Return share and loss of a perceptron with some layers, against that with the wide ones."""
    net = _trained(make, seed, quick)
    return _against(_wide(seed, quick), net, nets.data(seed, quick=quick, samples=_SAMPLES))


def _trained(make: Callable[[], nn.Module], seed: int, quick: bool) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, _WIDTH), nn.ReLU()),
        *(nets.Residual(make()), nn.ReLU(), nn.Linear(_WIDTH, 10)),
    )
    train = nets.data(seed, quick=quick, samples=_SAMPLES).train
    epochs, loss = 2 if quick else _EPOCHS, _with(_BALANCE_WEIGHT)
    nets.train(net, train, seed=seed, epochs=epochs, rate=1e-3, loss=loss)
    return net


def _with(weight: float) -> nets.Loss:
    def loss(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(net(images), labels) + weight * auxiliary_loss(net)

    return loss


def _against(full: nn.Module, net: nn.Module, data: nets.Data) -> tuple[float, float]:
    accuracy, operations = nets.measured(net, data.test)
    whole = count_operations(full, torch.zeros(1, 1, 28, 28))
    return operations / whole, nets.accuracy(full, data.test) - accuracy
