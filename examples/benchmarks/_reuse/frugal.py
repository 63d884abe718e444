"""Pruned channels and low rank: operations of a training step, at the full net's accuracy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from _reuse import nets
from torch import nn

from greentrain.methods import low_rank, magnitude_prune, prune_channels

_REPAIR_EPOCHS, _RATE = 2.0, 1e-3


def rows(quick: bool, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows: each way after a repair of two epochs, against the full net after the same.

    The goal is in joules of a step. This machine has no meter of its processor, so operations of
    forward and backward pass are counted.
    """
    ways: dict[str, tuple[float | None, Callable[[nn.Module], Any]]] = {
        "half of the channels pruned": (70.0, lambda net: prune_channels(net, share=0.5)),
        "layers of low rank": (70.0, lambda net: low_rank(net, share=0.75)),
        "half of the weights set to 0": (None, lambda net: magnitude_prune(net, share=0.5)),
    }
    found: dict[str, list[tuple[float, float]]] = {what: [] for what in ways}
    for seed in seeds:
        data = nets.data(seed, quick=quick)
        full = _repaired(lambda net: None, seed, quick)
        before, reached = nets.step_operations(full), nets.accuracy(full, data.test)
        for what, (_, change) in ways.items():
            net = _repaired(change, seed, quick)
            share = nets.step_operations(net) / before
            found[what].append((share, reached - nets.accuracy(net, data.test)))
    notes = {
        what: "Operations of a training step of 64 samples, forward and backward, by "
        "torch.utils.flop_counter; no joules: this machine is shared."
        for what in ways
    }
    notes["half of the weights set to 0"] += " Dense kernels multiply zeros, so nothing is saved."
    return [
        nets.row(
            "frugal",
            f"{what}: operations of a training step",
            [share for share, _ in pairs],
            [lost for _, lost in pairs],
            reach=ways[what][0],
            unit="% of the full net's",
            note=notes[what],
        )
        for what, pairs in found.items()
    ]


def _repaired(change: Callable[[nn.Module], Any], seed: int, quick: bool) -> nn.Module:
    """Return the trained net, changed, and trained for some more epochs."""
    net = nets.trained_dense_net(seed, quick=quick)
    change(net)
    torch.manual_seed(seed)
    pair = nets.data(seed, quick=quick).train
    nets.train(net, pair, seed=seed + 1000, epochs=_REPAIR_EPOCHS, rate=_RATE)
    return net
