"""Pull weights back to values that earlier experiences need, each as hard as it matters to them.

The penalty of all parameter anchors is one quadratic, ``strength / 2 * sum(importance * (theta -
reference) ** 2)``. They differ in the importance: 1 (L2), the Fisher information (EWC), the path
integral (SI), the sensitivity of the outputs (MAS).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from greentrain.errors import ConfigurationError

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Reference values of parameters, and how much each of them matters.

    Args:
        reference: The values, by the names of the parameters.
        importance: The weight of each value, with the same names and shapes, 0 or more.

    Raises:
        ConfigurationError: If names or shapes differ.
    """

    reference: Tensors
    importance: Tensors

    def __post_init__(self) -> None:
        shapes = {name: each.shape for name, each in self.reference.items()}
        if shapes != {name: each.shape for name, each in self.importance.items()}:
            raise ConfigurationError(
                "the reference and the importance of an anchor have different names or shapes; "
                "make both from the parameters of one model"
            )

    def to(self, device: torch.device | str) -> Anchor:
        """Return the anchor on a device."""
        return Anchor(
            reference={name: each.to(device) for name, each in self.reference.items()},
            importance={name: each.to(device) for name, each in self.importance.items()},
        )


def penalty(parameters: Mapping[str, Tensor], anchor: Anchor, strength: float) -> Tensor:
    """Return ``strength / 2 * sum(importance * (theta - reference) ** 2)``.

    Kirkpatrick et al. 2017, equation 3. Parameters without a reference of their shape are free.

    Args:
        parameters: The parameters, by name.
        anchor: The anchor.
        strength: Weight of the penalty.

    Returns:
        The penalty, a scalar with a gradient.

    Example:
        >>> anchor = Anchor(reference={"w": torch.tensor([1.0, 2.0])},
        ...     importance={"w": torch.tensor([3.0, 0.0])})
        >>> now = {"w": torch.tensor([3.0, 9.0])}
        >>> penalty(now, anchor, strength=0.5)  # 0.25 * 3 * 2 ** 2
        tensor(3.)
    """
    terms = [
        (anchor.importance[name].to(each) * (each - anchor.reference[name].to(each)) ** 2).sum()
        for name, each in parameters.items()
        if _is_anchored(each, name, anchor)
    ]
    return strength / 2 * torch.stack(terms).sum() if terms else torch.zeros(())


@torch.no_grad()
def add_penalty_gradient(
    parameters: Mapping[str, Tensor], anchor: Anchor, strength: float, *, scale: float = 1.0
) -> None:
    """Add the gradient of the penalty to ``.grad`` of parameters, without a backward pass.

    It is ``strength * importance * (theta - reference)``. A parameter without ``.grad`` gets one.
    One that needs no gradient, or has no reference of its shape, is left as it is.

    Args:
        parameters: The parameters, by name.
        anchor: The anchor.
        strength: Weight of the penalty.
        scale: Factor of the gradients that are there already: the loss scale of a ``GradScaler``.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([3.0, 9.0]))
        >>> anchor = Anchor(reference={"w": torch.tensor([1.0, 2.0])},
        ...     importance={"w": torch.tensor([3.0, 0.0])})
        >>> add_penalty_gradient({"w": weight}, anchor, strength=0.5)
        >>> weight.grad
        tensor([3., 0.])
    """
    for name, each in parameters.items():
        if not each.requires_grad or not _is_anchored(each, name, anchor):
            continue
        reference = anchor.reference[name].to(each)
        pull = (each.detach() - reference).mul_(anchor.importance[name].to(each))
        if each.grad is None:
            each.grad = pull.mul_(strength * scale)
        elif each.grad.layout is torch.strided:
            each.grad.add_(pull, alpha=strength * scale)
        else:  # of a sparse embedding
            each.grad = each.grad.to_dense().add_(pull, alpha=strength * scale)


def merge(earlier: Anchor | None, later: Anchor) -> Anchor:
    """Return the one anchor whose penalty is that of two anchors, up to a constant.

    A sum of quadratics is a quadratic: the importances are added, and the reference is the mean of
    both, weighted by importance. So EWC with one anchor for each experience needs the memory of
    one. Where nothing matters, the reference is the later one.

    Example:
        >>> first, second = (
        ...     Anchor(
        ...         reference={"w": torch.tensor([value])},
        ...         importance={"w": torch.tensor([f])},
        ...     )
        ...     for value, f in ((0.0, 1.0), (4.0, 3.0)))
        >>> merged = merge(first, second)
        >>> merged.reference["w"], merged.importance["w"]
        (tensor([3.]), tensor([4.]))
    """
    if earlier is None:
        return later
    reference = {**earlier.reference, **later.reference}
    importance = {**earlier.importance, **later.importance}
    for name, new in later.importance.items():
        old = earlier.importance.get(name)
        if old is None or old.shape != new.shape:
            continue
        total = old.to(new) + new
        share = torch.where(total > 0, new / total, torch.ones_like(new))
        start = earlier.reference[name].to(new)
        reference[name] = start + share * (later.reference[name] - start)
        importance[name] = total
    return Anchor(reference=reference, importance=importance)


def accumulate(earlier: Anchor | None, later: Anchor, *, decay: float = 1.0) -> Anchor:
    """Return an anchor at the later values, with ``decay * earlier + later`` as importance.

    Online EWC (Schwarz et al. 2018, section 3.2) decays; SI and MAS add.

    Example:
        >>> first, second = (
        ...     Anchor(
        ...         reference={"w": torch.tensor([value])},
        ...         importance={"w": torch.tensor([f])},
        ...     )
        ...     for value, f in ((0.0, 1.0), (4.0, 3.0)))
        >>> online = accumulate(first, second, decay=0.5)
        >>> online.reference["w"], online.importance["w"]
        (tensor([4.]), tensor([3.5000]))
    """
    if earlier is None:
        return later
    reference = {**earlier.reference, **later.reference}
    importance = {**earlier.importance, **later.importance}
    for name, new in later.importance.items():
        old = earlier.importance.get(name)
        if old is not None and old.shape == new.shape:
            importance[name] = decay * old.to(new) + new
    return Anchor(reference=reference, importance=importance)


def digest(tensor: Tensor) -> str:
    """Return the SHA-256 of a tensor's values, by which it can be found again.

    Example:
        >>> digest(torch.tensor([1.0, 2.0])) == digest(torch.tensor([1.0, 2.0]))
        True
        >>> digest(torch.tensor([1.0, 2.0])) == digest(torch.tensor([1.0, 2.1]))
        False
    """
    data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(data.numpy().tobytes()).hexdigest()


def _is_anchored(parameter: Tensor, name: str, anchor: Anchor) -> bool:
    reference = anchor.reference.get(name)
    return reference is not None and reference.shape == parameter.shape
