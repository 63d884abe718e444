"""Replace layers of a trained module by two smaller ones, from a singular value decomposition."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods.pruning import check_share


def low_rank(module: nn.Module, *, share: float = 0.95) -> dict[str, int]:
    """Factorise linear layers and convolutions where that saves operations, in place.

    A weight ``W = U S V`` becomes two layers of rank ``r``: ``sqrt(S) V``, then ``U sqrt(S)``. A
    convolution becomes one of its kernel to ``r`` channels, then one of 1 x 1 (Zhang et al. 2016,
    arXiv 1505.06798, without their responses). ``r`` is the smallest rank that keeps the share of
    the squared singular values. A layer stays as it is unless ``r * (inputs + outputs) < inputs *
    outputs``.

    Train some steps afterwards, with a new optimizer: the parameters are new ones.

    Args:
        module: A trained module, changed in place. Linear layers and 2-D convolutions without
            groups are factorised, except those that share a weight or a place.
        share: Share of the squared singular values to keep, in (0, 1).

    Returns:
        The rank of each factorised layer, by its name.

    Raises:
        ConfigurationError: If the share cannot be used, or no layer becomes cheaper.

    Example:
        >>> net = nn.Sequential(nn.Linear(64, 64))
        >>> with torch.no_grad():  # a weight of rank 1
        ...     _ = net[0].weight.copy_(torch.outer(torch.arange(64.0), torch.ones(64)))
        >>> low_rank(net, share=0.99)
        {'0': 1}
    """
    check_share(share)
    uses = Counter(id(each) for _, each in module.named_modules(remove_duplicate=False))
    weights = Counter(id(each) for _, each in module.named_parameters(remove_duplicate=False))
    ranks = {}
    for place, parent in list(module.named_modules()):
        for name, layer in list(parent.named_children()):
            if not _fits(layer) or uses[id(layer)] > 1 or weights[id(layer.weight)] > 1:
                continue
            found = _factors(layer, share)
            if found is not None:
                setattr(parent, name, found[0])
                ranks[f"{place}.{name}" if place else name] = found[1]
    if not ranks:
        raise ConfigurationError(
            f"no layer of {type(module).__name__} needs fewer operations at a share of {share:g}; "
            "lower the share, or keep the module as it is"
        )
    return ranks


def _fits(layer: nn.Module) -> bool:
    # Others read the weight of a subclass, such as attention that of its output layer.
    if type(layer) is nn.Conv2d:
        return layer.groups == 1 and layer.padding_mode == "zeros"
    return type(layer) is nn.Linear


def _factors(layer: Any, share: float) -> tuple[nn.Sequential, int] | None:
    """Return two layers in place of one, and their rank; ``None`` if they cost as much."""
    weight = layer.weight.detach()
    matrix = weight.flatten(1).float()
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    kept = (values**2).cumsum(0) / (values**2).sum().clamp_min(1e-30)
    rank = min(int((kept < share).sum()) + 1, len(values))
    if rank * sum(matrix.shape) >= matrix.numel():
        return None
    root = values[:rank].sqrt()
    first, second = _pair(layer, rank)
    with torch.no_grad():
        first.weight.copy_((root[:, None] * right[:rank]).view_as(first.weight))
        second.weight.copy_((left[:, :rank] * root).view_as(second.weight))
        if second.bias is not None:
            second.bias.copy_(layer.bias)
    pair = nn.Sequential(first, second).to(weight.device, weight.dtype)
    pair.train(layer.training)
    for parameter in pair.parameters():
        parameter.requires_grad = layer.weight.requires_grad
    return pair, rank


def _pair(layer: Any, rank: int) -> tuple[nn.Linear | nn.Conv2d, nn.Linear | nn.Conv2d]:
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        first = nn.Linear(layer.in_features, rank, bias=False)
        return first, nn.Linear(rank, layer.out_features, bias=bias)
    return (
        nn.Conv2d(
            *(layer.in_channels, rank, layer.kernel_size),
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            bias=False,
        ),
        nn.Conv2d(rank, layer.out_channels, 1, bias=bias),
    )
