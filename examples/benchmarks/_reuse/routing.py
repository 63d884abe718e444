"""Gates over residual blocks, and a mixture of experts: operations of a prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from _reuse import nets
from torch import nn
from torch.nn.functional import cross_entropy

from greentrain.methods import MixtureOfExperts, SkipBlocks, auxiliary_loss, count_operations

_TARGET = 0.45
_GATE_WEIGHT, _BALANCE_WEIGHT = 2.0, 0.01
_EXPERTS, _WIDTH, _HIDDEN = 4, 128, 1024


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
        found.append(nets.row("routing", what, shares, lost, reach=reach, unit=unit, note=note))
    return found


def _skipping(seed: int, quick: bool) -> tuple[float, float]:
    torch.manual_seed(seed)
    blocks = [nets.body() for _ in range(4)]
    skip = SkipBlocks(blocks, channels=16, target=_TARGET)
    net = nn.Sequential(nets.stem(), skip, nets.head())
    data = nets.data(seed, quick=quick)
    loss = _with(_GATE_WEIGHT)
    nets.train(net, data.train, seed=seed, epochs=nets.epochs(quick), loss=loss)
    return _against(nets.trained_dense_net(seed, quick=quick), net, data)


def _mixing(seed: int, quick: bool) -> tuple[float, float]:
    experts = MixtureOfExperts(_WIDTH, _HIDDEN // _EXPERTS, experts=_EXPERTS)
    return _perceptrons(experts, seed, quick)


def _one_expert(seed: int, quick: bool) -> tuple[float, float]:
    return _perceptrons(_layers(_HIDDEN // _EXPERTS), seed, quick)


def _layers(hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(_WIDTH, hidden), nn.ReLU(), nn.Linear(hidden, _WIDTH))


def _perceptrons(middle: nn.Module, seed: int, quick: bool) -> tuple[float, float]:
    """Return share and loss of a perceptron with some layers, against that with the wide ones."""
    data = nets.data(seed, quick=quick)
    trained = []
    for layers in (_layers(_HIDDEN), middle):
        torch.manual_seed(seed)
        for each in layers.modules():
            if isinstance(each, nn.Linear):
                each.reset_parameters()
        net = nn.Sequential(
            *(nn.Flatten(), nn.Linear(784, _WIDTH), nn.ReLU()),
            *(nets.Residual(layers), nn.ReLU(), nn.Linear(_WIDTH, 10)),
        )
        rate, loss = 1e-3, _with(_BALANCE_WEIGHT)
        epochs = nets.epochs(quick)
        nets.train(net, data.train, seed=seed, epochs=epochs, rate=rate, loss=loss)
        trained.append(net)
    return _against(trained[0], trained[1], data)


def _with(weight: float) -> nets.Loss:
    def loss(net: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return cross_entropy(net(images), labels) + weight * auxiliary_loss(net)

    return loss


def _against(full: nn.Module, net: nn.Module, data: nets.Data) -> tuple[float, float]:
    accuracy, operations = nets.measured(net, data.test)
    whole = count_operations(full, torch.zeros(1, 1, 28, 28))
    return operations / whole, nets.accuracy(full, data.test) - accuracy
