"""Early exits: operations of a prediction at an accuracy within 0.5 points of the full net."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from _reuse import nets
from greentrain.methods import ExitHeads, choose_threshold, count_operations, exit_table

IDS = ("exit",)
_LAYERS = ("0", "1", "2", "3")  # the stem, and all blocks but the last
_WEIGHT = 0.3
_JOINT = "early exits trained jointly: operations of a prediction"
_FROZEN = "early exits trained on frozen features: operations of a prediction"


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows: heads trained with the net, and heads on the frozen full net.

    The threshold is chosen on validation data: the fewest operations at an accuracy of at most 0.3
    points below that of the full net, which was trained without heads.
    """
    return table([measured(seed, quick) for seed in seeds])


def measured(seed: int, quick: bool) -> nets.Found:
    """Return the share of the full net's operations and the lost accuracy of each way."""
    full = nets.trained_dense_net(seed, quick=quick)
    return {
        _JOINT: _shares(full, *_joint(seed, quick), seed, quick),
        _FROZEN: _shares(full, *_frozen(full, seed, quick), seed, quick),
    }


def table(found: Sequence[nets.Found]) -> list[dict[str, Any]]:
    """Return the rows of what was measured for each seed."""
    note = "Operations by torch.utils.flop_counter as they ran on test data."
    return [
        *nets.pair_of_rows("exit", _JOINT, found, reach=50.0, note=note),
        *nets.pair_of_rows("exit", _FROZEN, found, reach=None, note=note),
    ]


def _joint(seed: int, quick: bool) -> tuple[nn.Module, ExitHeads]:
    torch.manual_seed(seed)
    net = nets.dense_net()
    heads = _heads(net)
    both = nn.ModuleList([net, heads])

    def loss(_: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with heads.capture(net) as outputs:
            whole = cross_entropy(net(images), labels)
        return whole + _WEIGHT * heads.loss(outputs, labels)

    train = nets.data(seed, quick=quick).train
    nets.train(both, train, seed=seed, epochs=nets.epochs(quick), loss=loss)
    return net, heads


def _frozen(full: nn.Module, seed: int, quick: bool) -> tuple[nn.Module, ExitHeads]:
    torch.manual_seed(seed)
    heads = _heads(full)

    def loss(_: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad(), heads.capture(full) as outputs:
            full(images)
        return heads.loss(outputs, labels)

    train = nets.data(seed, quick=quick).train
    nets.train(heads, train, seed=seed, epochs=2, loss=loss)
    return full, heads


def _heads(net: nn.Module) -> ExitHeads:
    return ExitHeads.of(net, _LAYERS, classes=10, example=torch.zeros(2, 1, 28, 28))


def _shares(
    full: nn.Module, net: nn.Module, heads: ExitHeads, seed: int, quick: bool
) -> tuple[float, float]:
    """Return the share of the full net's operations, and the lost accuracy, on test data."""
    data = nets.data(seed, quick=quick)
    images, labels = data.val
    target = nets.accuracy(full, data.val) - nets.WITHIN
    batches = zip(images.split(500), labels.split(500), strict=True)
    table = exit_table(heads, net, batches)
    reachable = min(target, max(each.accuracy for each in table))
    threshold = choose_threshold(table, accuracy=reachable).threshold
    heads.threshold.fill_(threshold)
    heads.eval()
    accuracy, operations = nets.measured(lambda each: heads(net, each), data.test)
    whole = count_operations(full, torch.zeros(1, 1, 28, 28))
    return operations / whole, nets.accuracy(full, data.test) - accuracy
