"""Prune a trained module: single weights, or whole channels, which saves operations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import prune

from greentrain.errors import ConfigurationError

_MAKERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# Layers between two others that treat each channel alone.
_BETWEEN = (
    *_NORMS,
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardswish),
    *(nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Identity, nn.Flatten),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d),
)


def magnitude_prune(module: nn.Module, *, share: float) -> int:
    """Set the smallest weights of all linear layers and convolutions to 0, in place.

    ``torch.nn.utils.prune.global_unstructured`` with the L1 norm (Han et al. 2015, arXiv
    1506.02626). The layers stay as large, so that a dense library runs as many operations as
    before. It saves storage after compression; :func:`prune_channels` saves operations.

    Args:
        module: A trained module.
        share: Share of the weights to set to 0, in (0, 1).

    Returns:
        Number of weights that are 0 now.

    Raises:
        ConfigurationError: If the share cannot be used, or there are no such layers.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6))
        >>> magnitude_prune(net, share=0.5)  # of 100 weights
        50
    """
    check_share(share)
    layers = [each for each in module.modules() if type(each) in _MAKERS]
    if not layers:
        raise ConfigurationError(_NOTHING.format(type(module).__name__))
    pairs = [(each, "weight") for each in layers]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=share)
    for layer, name in pairs:
        prune.remove(layer, name)  # type: ignore[no-untyped-call]
    return sum(int((_weight(each) == 0).sum()) for each in layers)


def prune_channels(module: nn.Module, *, share: float) -> dict[str, int]:
    """Remove channels of layers whose outputs only the next layer of a ``Sequential`` uses.

    Filters with the smallest L1 norms are removed (Li et al. 2017, arXiv 1608.08710), after a
    following batch normalisation is folded into them. The layer and the next one become smaller,
    so that each step needs fewer operations. Both are found in ``nn.Sequential`` only, also in
    nested ones. Between them may be layers that treat each channel alone: normalisation of batches,
    activations, pooling, dropout, ``Flatten``. Inputs and outputs of a ``Sequential`` keep their
    size, so a residual block whose layers are a ``Sequential`` can be pruned.

    Train some steps afterwards, with a new optimizer: the parameters are new ones.

    Args:
        module: A trained module, changed in place.
        share: Share of the channels to remove from each layer, in (0, 1). One channel stays.

    Returns:
        Channels that are left, by the name of the layer.

    Raises:
        ConfigurationError: If the share cannot be used, or there is no such pair of layers.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 6))
        >>> prune_channels(net, share=0.5)
        {'0': 5}
        >>> net[2].in_features, net(torch.zeros(1, 4)).shape
        (5, torch.Size([1, 6]))
    """
    check_share(share)
    names = {id(each): name for name, each in module.named_modules()}
    uses = Counter(id(each) for _, each in module.named_modules(remove_duplicate=False))
    left = {}
    for first, between, last in _pairs(module):
        if any(uses[id(each)] > 1 for each in (first, *between, last)):
            continue  # a layer in two places would be cut for one of them
        channels, kept = len(_weight(first)), _kept_channels(first, between, share)
        _keep_outputs(first, kept)
        for each in between:
            if isinstance(each, _NORMS):
                _keep_norm(each, kept)
        _keep_inputs(last, kept, channels)
        left[names[id(first)]] = len(kept)
    if not left:
        raise ConfigurationError(
            f"{type(module).__name__} has no two layers in an nn.Sequential of which the second "
            "alone uses the outputs of the first; channels of other layers cannot be removed"
        )
    return left


def check_share(share: float) -> None:
    """Raise an error unless a share is between 0 and 1.

    Raises:
        ConfigurationError: If it is not.
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ConfigurationError(f"share is {share!r}; it must be between 0 and 1")


_NOTHING = "{} has no linear layer and no convolution, so nothing can be pruned"


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, list[nn.Module], nn.Module]]:
    """Yield two layers of a chain, and the layers between them."""
    inner: set[int] = set()
    for sequence in module.modules():
        if type(sequence) is not nn.Sequential or id(sequence) in inner:
            continue
        chain = list(_leaves(sequence, inner))
        # A layer that mixes channels, or of which nothing is known, ends a chain.
        ends = [place for place, each in enumerate(chain) if not isinstance(each, _BETWEEN)]
        for begin, end in pairwise(ends):
            first, last = chain[begin], chain[end]
            if _fits(first) and _fits(last):
                yield first, chain[begin + 1 : end], last


def _leaves(sequence: nn.Sequential, inner: set[int]) -> Iterator[nn.Module]:
    """Yield the layers of a sequence and of those directly in it, which are added to a set."""
    for each in sequence:
        if type(each) is nn.Sequential:
            inner.add(id(each))
            yield from _leaves(each, inner)
        else:
            yield each


def _fits(layer: nn.Module) -> bool:
    # A subclass may compute something else, and hooks of `prune` hold a mask of the old shape.
    return (
        type(layer) in _MAKERS and getattr(layer, "groups", 1) == 1 and not layer._forward_pre_hooks
    )


def _kept_channels(first: nn.Module, between: list[nn.Module], share: float) -> torch.Tensor:
    weight = _weight(first).detach()
    scores = weight
    for norm in between:
        if isinstance(norm, _NORMS) and norm.weight is not None and norm.running_var is not None:
            factor = norm.weight.detach() / (norm.running_var + norm.eps).sqrt()
            scores = scores * factor.view(-1, *[1] * (weight.ndim - 1))
    number = min(round(share * len(weight)), len(weight) - 1)
    if not number:
        return torch.arange(len(weight), device=weight.device)
    method = prune.LnStructured(number, n=1, dim=0)
    mask: torch.Tensor = method.compute_mask(scores, torch.ones_like(scores))  # type: ignore[no-untyped-call]
    return mask.flatten(1)[:, 0].nonzero().flatten()


def _weight(layer: nn.Module) -> nn.Parameter:
    return layer.weight  # type: ignore[return-value]


def _keep_outputs(layer: nn.Module, kept: torch.Tensor) -> None:
    layer.weight = _some(_weight(layer), kept)
    if layer.bias is not None:
        layer.bias = _some(layer.bias, kept)  # type: ignore[arg-type]
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", len(kept))


def _keep_inputs(layer: nn.Module, kept: torch.Tensor, channels: int) -> None:
    # After `Flatten`, each channel is a run of as many inputs as it has places.
    places = _weight(layer).shape[1] // channels
    inputs = (kept[:, None] * places + torch.arange(places, device=kept.device)).flatten()
    layer.weight = _some(_weight(layer), inputs, dim=1)
    setattr(layer, "in_features" if isinstance(layer, nn.Linear) else "in_channels", len(inputs))


def _keep_norm(norm: nn.Module, kept: torch.Tensor) -> None:
    for name in ("weight", "bias"):
        if getattr(norm, name) is not None:
            setattr(norm, name, _some(getattr(norm, name), kept))
    for name in ("running_mean", "running_var"):
        if getattr(norm, name) is not None:
            setattr(norm, name, getattr(norm, name)[kept].clone())
    norm.num_features = len(kept)  # type: ignore[assignment]


def _some(parameter: nn.Parameter, kept: torch.Tensor, dim: int = 0) -> nn.Parameter:
    values = parameter.detach().index_select(dim, kept).clone()
    return nn.Parameter(values, requires_grad=parameter.requires_grad)
