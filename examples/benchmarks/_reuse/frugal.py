"""Pruned channels and low rank: operations of a training step, at the full net's accuracy."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import nn

from _reuse import nets, routing
from greentrain.errors import ConfigurationError
from greentrain.methods import low_rank, prune_channels

IDS = ("frugal",)
_REPAIR_EPOCHS, _RATE = 2.0, 1e-3
_RANK_SHARES = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)

_PERCEPTRON = "layers of low rank in a perceptron: operations of a training step"
Change = Callable[[nn.Module], Any]


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows: each way after a repair of two epochs, against the full net after the same.

    Of two strengths, the cheaper one is chosen that loses at most 0.3 points on validation data.
    The goal is in joules of a step. This machine has no meter of its processor, so operations of
    forward and backward pass are counted.
    """
    return table([measured(seed, quick) for seed in seeds])


def measured(seed: int, quick: bool) -> nets.Found:
    """Return the share of the full net's operations and the lost accuracy of each way."""
    data = nets.data(seed, quick=quick)
    full = _repaired(lambda net: None, seed, quick)
    target = nets.accuracy(full, data.val) - nets.WITHIN
    before, reached = nets.step_operations(full), nets.accuracy(full, data.test)
    found = {}
    for what, changes in _WAYS.items():
        tries = [_repaired(change, seed, quick) for change in changes]
        net = nets.cheapest(tries, partial(nets.measured, pair=data.val), target)
        share = nets.step_operations(net) / before
        found[what] = (share, reached - nets.accuracy(net, data.test))
    return found | perceptron(seed, quick)


def perceptron(seed: int, quick: bool) -> nets.Found:
    """Return the same of low rank in a perceptron, whose layers are wider than 16 channels."""
    full = routing.continued_perceptron(seed, quick)
    tries = []
    for most in (0.5, 0.65):
        net = copy.deepcopy(routing.wide_perceptron(seed, quick))
        _of_rank(most)(net)
        data = routing.continue_training(net, seed, quick)
        tries.append(net)
    target = nets.accuracy(full, data.val) - nets.WITHIN
    net = nets.cheapest(tries, partial(nets.measured, pair=data.val), target)
    share = nets.step_operations(net) / nets.step_operations(full)
    lost = nets.accuracy(full, data.test) - nets.accuracy(net, data.test)
    return {_PERCEPTRON: (share, lost)}


def table(found: Sequence[nets.Found]) -> list[dict[str, Any]]:
    """Return the rows of what was measured for each seed."""
    note = (
        "Operations of a training step of 64 samples, forward and backward, by "
        "torch.utils.flop_counter; no joules: this machine is shared."
    )
    rows = []
    for what in (*_WAYS, _PERCEPTRON):
        samples = routing.SAMPLES if what == _PERCEPTRON else 12_000
        rows += nets.pair_of_rows("frugal", what, found, reach=70.0, samples=samples, note=note)
    return rows


def _pruned(share: float) -> Change:
    return lambda net: prune_channels(net, share=share)


def _of_rank(most: float) -> Change:
    """Return a change to the highest ranks with at most a share of a step's operations."""

    def change(net: nn.Module) -> None:
        whole = nets.step_operations(net)
        for share in _RANK_SHARES:
            tried = copy.deepcopy(net)
            with suppress(ConfigurationError):  # no layer is cheaper at this share
                low_rank(tried, share=share)
            if nets.step_operations(tried) <= most * whole:
                break
        low_rank(net, share=share)

    return change


_WAYS: Mapping[str, Sequence[Change]] = {
    "channels of a residual net pruned: operations of a training step": (
        _pruned(0.5),
        _pruned(0.35),
    ),
    "layers of low rank in a residual net: operations of a training step": (
        _of_rank(0.5),
        _of_rank(0.65),
    ),
}


def _repaired(change: Change, seed: int, quick: bool) -> nn.Module:
    """Return the trained net, changed, and trained for some more epochs."""
    net = nets.trained_dense_net(seed, quick=quick)
    change(net)
    torch.manual_seed(seed)
    pair = nets.data(seed, quick=quick).train
    nets.train(net, pair, seed=seed + 1000, epochs=_REPAIR_EPOCHS, rate=_RATE)
    return net
