"""Decide how many of the first layers of a model can be frozen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from greentrain.errors import ConfigurationError


def relative_information(layers: Iterable[nn.Module]) -> list[float | None]:
    """Return how much the present gradients would change each layer, relative to its size.

    It is ``sum(g^2) / sum(theta^2)`` over the parameters of a layer. The mean of ``g^2`` over
    batches estimates the diagonal of the Fisher information (Kirkpatrick et al. 2017, arXiv
    1612.00796). Its ratio to the weights is the squared relative gradient norm (Lee et al. 2022,
    "Surgical fine-tuning", arXiv 2210.11466, section 4).

    Args:
        layers: The layers, in order, after a backward pass.

    Returns:
        One number for each layer; ``None`` for one without gradients, such as a ReLU.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.constant_(layer.weight, 2.0)
        >>> layer(torch.tensor([[3.0]])).backward()  # the gradient is 3
        >>> relative_information([layer, nn.ReLU()])
        [2.25, None]
    """
    return [_information(layer) for layer in layers]


def freezing_depth(information: Sequence[float | None], *, share: float = 0.1) -> int:
    """Return the number of first layers whose information is small.

    The layers before the first one with more than ``share`` of the largest information can be
    frozen. The layer with the largest is never one of them.

    Args:
        information: The mean of :func:`relative_information` over some batches, for each layer in
            order; ``None`` for one without parameters, which is frozen with the layers before it.
        share: Share of the largest, in (0, 1).

    Returns:
        The number, 0 if no layer with parameters can be frozen.

    Raises:
        ConfigurationError: If ``share`` is not between 0 and 1.

    Example:
        >>> freezing_depth([0.01, None, 0.02, None, 1.0])
        4
        >>> freezing_depth([0.5, None, 0.02, None, 1.0])
        0
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise ConfigurationError(f"share is {share!r}; it must be between 0 and 1")
    known = [each for each in information if each is not None]
    if not known or max(known) <= 0:
        return 0
    most = share * max(known)
    first = next(at for at, each in enumerate(information) if each is not None and not each <= most)
    return first if any(each is not None for each in information[:first]) else 0


def _information(layer: nn.Module) -> float | None:
    own = [(each.grad, each) for each in layer.parameters() if each.grad is not None]
    size = sum(_square(each) for _, each in own)
    return sum(_square(gradient) for gradient, _ in own) / size if size > 0 else None


def _square(tensor: torch.Tensor) -> float:
    return float(tensor.detach().float().square().sum())
