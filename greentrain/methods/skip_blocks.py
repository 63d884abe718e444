"""Residual blocks that learned gates skip for easy samples."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods.auxiliary_loss import AuxiliaryLoss


class SkipBlocks(AuxiliaryLoss):
    """Residual blocks, each with a gate that decides for each sample whether the block runs.

    ``x + g(x) * block(x)`` with a gate ``g`` of 0 or 1, as in SkipNet (Wang et al. 2018, arXiv
    1711.09485) and ConvNet-AIG (Veit & Belongie 2018, arXiv 1711.11503). In training, all blocks
    run. The gates are sampled by the Gumbel trick for two choices, with a straight-through gradient
    (Jang et al. 2017, arXiv 1611.01144). In evaluation, a gate is open if its score is above
    :attr:`threshold`, and a block runs only on the samples whose gate is open.

    The loss is ``(share - target) ** 2``. ``share`` is the share of the blocks' operations that
    runs, over the batch. Add it with :func:`auxiliary_loss`. Inputs and outputs are ``(batch,
    channels, ...)``.

    Args:
        blocks: The blocks, without their skip connections. Each returns the shape of its input.
        channels: Size of dimension 1 of all inputs.
        target: Share of the blocks' operations to run, above 0 and at most 1.
        costs: Operations of each block; equal unless given.
        temperature: Temperature of the gates' gradient, above 0.

    Attributes:
        threshold: Log-odds above which a gate is open in evaluation, a buffer; 0 at first. Choose
            another on validation data: a lower one runs more blocks.
        used: Share of each block's samples for which it ran in the last forward pass.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> layer = SkipBlocks([nn.Linear(8, 8), nn.Linear(8, 8)], channels=8, target=0.5)
        >>> layer(torch.randn(4, 8)).shape
        torch.Size([4, 8])
        >>> layer.take_loss() is not None  # of this forward pass
        True
    """

    threshold: torch.Tensor

    def __init__(
        self,
        blocks: Iterable[nn.Module],
        channels: int,
        *,
        target: float = 0.5,
        costs: Sequence[float] | None = None,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if not len(self.blocks):
            raise ConfigurationError("there are no blocks; give one or more")
        if not 0 < target <= 1:
            raise ConfigurationError(f"target is {target!r}; it must be above 0 and at most 1")
        if not temperature > 0:
            raise ConfigurationError(f"temperature is {temperature!r}; it must be above 0")
        weights = [1.0] * len(self.blocks) if costs is None else [float(each) for each in costs]
        if len(weights) != len(self.blocks) or not min(weights) > 0:
            raise ConfigurationError(
                f"costs are {costs!r}; they must be one positive number for each of the "
                f"{len(self.blocks)} blocks"
            )
        self.target, self.temperature = float(target), float(temperature)
        self.costs = tuple(each / sum(weights) for each in weights)
        self.gates = nn.ModuleList(nn.Linear(channels, 1) for _ in self.blocks)
        for gate in self.gates:  # most gates are open at first, so that the blocks learn
            nn.init.constant_(gate.bias, 2.0)  # type: ignore[arg-type]
        self.register_buffer("threshold", torch.tensor(0.0))
        self.used: tuple[float, ...] = ()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs of the blocks, ``(batch, channels, ...)``."""
        if self.training:
            return self._trained(inputs)
        used = []
        for block, gate in zip(self.blocks, self.gates, strict=True):
            rows = (_scores(gate, inputs) > self.threshold).nonzero().flatten()
            used.append(len(rows) / max(1, len(inputs)))
            if len(rows) == len(inputs):
                inputs = inputs + block(inputs)
            elif len(rows):
                inputs = inputs.index_add(0, rows, block(inputs[rows]).to(inputs.dtype))
        self.used = tuple(used)
        return inputs

    def _trained(self, inputs: torch.Tensor) -> torch.Tensor:
        shares = []
        for block, gate in zip(self.blocks, self.gates, strict=True):
            opened = straight_through(_scores(gate, inputs), self.temperature)
            shares.append(opened.mean())
            weights = opened.view(-1, *[1] * (inputs.ndim - 1))
            inputs = inputs + weights.to(inputs.dtype) * block(inputs)
        used = torch.stack(shares)
        self._loss = ((used * used.new_tensor(self.costs)).sum() - self.target) ** 2
        self.used = tuple(used.tolist())
        return inputs


def straight_through(scores: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Sample gates of 0 or 1, whose gradient is that of a sigmoid with the same noise.

    The binary case of Gumbel-softmax: the difference of two Gumbel variables is logistic.

    Args:
        scores: Log-odds of an open gate, of any shape.
        temperature: Temperature of the sigmoid, above 0.

    Example:
        >>> straight_through(torch.tensor([-100.0, 100.0])).tolist()
        [0.0, 1.0]
    """
    uniform = torch.rand_like(scores).clamp(1e-6, 1 - 1e-6)
    noisy = scores + uniform.log() - (-uniform).log1p()
    soft = (noisy / temperature).sigmoid()
    return (noisy > 0).to(soft.dtype) + soft - soft.detach()


def _scores(gate: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    """Return the log-odds of each sample, ``(batch,)``, in full precision."""
    means = inputs.flatten(2).mean(2) if inputs.ndim > 2 else inputs
    return gate(means).flatten().float()  # type: ignore[no-any-return]
