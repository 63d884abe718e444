"""Gates over residual blocks, and a mixture of experts: operations of a prediction."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from _reuse import nets
from greentrain.methods import (
    MixtureOfExperts,
    SkipBlocks,
    auxiliary_loss,
    count_operations,
    prune_channels,
)

IDS = ("routing",)
_SKIPPED = "SkipBlocks in a residual net: operations of a prediction"
_MIXED = "MixtureOfExperts in a perceptron: operations of a prediction"
_SMALLER = "the perceptron pruned to as many hidden units: operations of a prediction"
_TARGET = 0.5
_THRESHOLDS = (1.0, 0.5, 0.0, -0.5, -1.0, -2.0, -3.0, -5.0)
_GATE_WEIGHT, _BALANCE_WEIGHT = 2.0, 0.01
_EXPERTS, _TOP, _WIDTH, _HIDDEN = 4, 2, 128, 1024
SAMPLES, _EPOCHS = 24_000, 6  # of the perceptrons
_MORE_EPOCHS = 3


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows: each way against its full net, and a smaller full net for comparison.

    Gates and experts begin with the weights of the trained full net, and are trained for three
    epochs. They are compared with the full net after the same three epochs.
    """
    return table([measured(seed, quick) for seed in seeds])


def measured(seed: int, quick: bool) -> nets.Found:
    """Return the share of the full net's operations and the lost accuracy of each way."""
    return {
        _SKIPPED: _skipping(seed, quick),
        _MIXED: _mixing(seed, quick),
        _SMALLER: _pruning(seed, quick),
    }


def table(found: Sequence[nets.Found]) -> list[dict[str, Any]]:
    """Return the rows of what was measured for each seed."""
    note = "Operations by torch.utils.flop_counter as they ran on test data."
    alone = f"No routing: what the smaller size alone gives. {note}"
    return [
        *nets.pair_of_rows("routing", _SKIPPED, found, reach=70.0, note=note),
        *nets.pair_of_rows("routing", _MIXED, found, reach=70.0, samples=SAMPLES, note=note),
        *nets.pair_of_rows("routing", _SMALLER, found, reach=None, samples=SAMPLES, note=alone),
    ]


def _skipping(seed: int, quick: bool) -> tuple[float, float]:
    data = nets.data(seed, quick=quick)
    full = nets.trained_dense_net(seed, quick=quick)
    stem, *blocks, head = copy.deepcopy(full)
    torch.manual_seed(seed)
    skip = SkipBlocks([each.body for each in blocks], channels=16, target=_TARGET)
    net = nn.Sequential(stem, skip, head)
    for each in (full, net):
        more, loss = 1 if quick else _MORE_EPOCHS, _with(_GATE_WEIGHT)
        nets.train(each, data.train, seed=seed + 2000, epochs=more, loss=loss)

    def measured(threshold: float) -> tuple[float, float]:
        skip.threshold.fill_(threshold)
        return nets.measured(net, data.val)

    target = nets.accuracy(full, data.val) - nets.WITHIN
    skip.threshold.fill_(nets.cheapest(_THRESHOLDS, measured, target))
    return _against(full, net, data)


def _mixing(seed: int, quick: bool) -> tuple[float, float]:
    net = copy.deepcopy(wide_perceptron(seed, quick))
    torch.manual_seed(seed)
    net[3] = nets.Residual(split(net[3].body))
    return _continued(net, seed, quick)


def _pruning(seed: int, quick: bool) -> tuple[float, float]:
    net = copy.deepcopy(wide_perceptron(seed, quick))
    prune_channels(net[3], share=1 - _TOP / _EXPERTS)
    return _continued(net, seed, quick)


def split(wide: nn.Sequential) -> MixtureOfExperts:
    """Return experts that have equal parts of the hidden units of a trained layer."""
    first, _, second = wide
    hidden = first.out_features // _EXPERTS
    mixture = MixtureOfExperts(_WIDTH, hidden, experts=_EXPERTS, top_k=_TOP)
    with torch.no_grad():
        for number, expert in enumerate(mixture.experts):
            part = slice(number * hidden, (number + 1) * hidden)
            expert[0].weight.copy_(first.weight[part])
            expert[0].bias.copy_(first.bias[part])
            # The weights of the chosen experts sum to 1, so that their mean becomes the sum of all.
            expert[2].weight.copy_(_EXPERTS * second.weight[:, part])
            expert[2].bias.copy_(second.bias)
    return mixture


@functools.lru_cache(maxsize=1)
def wide_perceptron(seed: int, quick: bool) -> nn.Sequential:
    """Return the trained perceptron of a seed, which is trained once."""
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Linear(_WIDTH, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, _WIDTH))
    net = nn.Sequential(
        *(nn.Flatten(), nn.Linear(784, _WIDTH), nn.ReLU()),
        *(nets.Residual(layers), nn.ReLU(), nn.Linear(_WIDTH, 10)),
    )
    _train(net, seed, quick, epochs=_EPOCHS)
    return net


@functools.lru_cache(maxsize=1)
def continued_perceptron(seed: int, quick: bool) -> nn.Sequential:
    """Return the perceptron after three more epochs."""
    net = copy.deepcopy(wide_perceptron(seed, quick))
    continue_training(net, seed, quick)
    return net


def continue_training(net: nn.Module, seed: int, quick: bool) -> nets.Data:
    """Train a perceptron for three more epochs, and return its data."""
    _train(net, seed + 2000, quick, epochs=_MORE_EPOCHS, data_seed=seed)
    return nets.data(seed, quick=quick, samples=SAMPLES)


def _continued(net: nn.Module, seed: int, quick: bool) -> tuple[float, float]:
    """Return share and loss of a changed perceptron after more epochs, against the wide one."""
    data = continue_training(net, seed, quick)
    return _against(continued_perceptron(seed, quick), net, data)


def _train(
    net: nn.Module, seed: int, quick: bool, *, epochs: int, data_seed: int | None = None
) -> None:
    pair = nets.data(seed if data_seed is None else data_seed, quick=quick, samples=SAMPLES).train
    loss = _with(_BALANCE_WEIGHT)
    nets.train(net, pair, seed=seed, epochs=1 if quick else epochs, rate=1e-3, loss=loss)


def _with(weight: float) -> nets.Loss:
    def loss(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(net(images), labels) + weight * auxiliary_loss(net)

    return loss


def _against(full: nn.Module, net: nn.Module, data: nets.Data) -> tuple[float, float]:
    accuracy, operations = nets.measured(net, data.test)
    whole = count_operations(full, torch.zeros(1, 1, 28, 28))
    return operations / whole, nets.accuracy(full, data.test) - accuracy
