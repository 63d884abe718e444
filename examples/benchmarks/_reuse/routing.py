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

_SKIPPED = "SkipBlocks in a residual net: operations of a prediction"
_MIXED = "MixtureOfExperts in a perceptron: operations of a prediction"
_SMALLER = "a perceptron as large as one expert: operations of a prediction"
_TARGET = 0.6
_THRESHOLDS = (1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -3.0, -5.0)
_GATE_WEIGHT, _BALANCE_WEIGHT = 2.0, 0.01
_EXPERTS, _EXPERT, _WIDTH, _HIDDEN = 2, 512, 128, 1024
_SAMPLES, _EPOCHS = 24_000, 6  # of the perceptrons


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows: each way against its full net, and a smaller full net for comparison."""
    return table([measured(seed, quick) for seed in seeds])


def measured(seed: int, quick: bool) -> nets.Found:
    """Return the share of the full net's operations and the lost accuracy of each way."""
    return {
        _SKIPPED: _skipping(seed, quick),
        _MIXED: _mixing(seed, quick),
        _SMALLER: _one_expert(seed, quick),
    }


def table(found: Sequence[nets.Found]) -> list[dict[str, Any]]:
    """Return the rows of what was measured for each seed."""
    note = "Operations by torch.utils.flop_counter as they ran on test data."
    alone = f"No routing: what the smaller size alone gives. {note}"
    return [
        nets.row("routing", _SKIPPED, found, reach=70.0, note=note),
        nets.row("routing", _MIXED, found, reach=70.0, samples=_SAMPLES, note=note),
        nets.row("routing", _SMALLER, found, reach=None, samples=_SAMPLES, note=alone),
    ]


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
