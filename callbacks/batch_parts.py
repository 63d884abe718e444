"""Inputs and targets of a batch, and single samples of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from greentrain.errors import ConfigurationError

Unpack = Callable[[Any], tuple[Any, Any]]
Outputs = Callable[[Any, Any], Tensor]


def pair(batch: Any) -> tuple[Any, Any]:
    """Return the inputs and targets of a batch ``(inputs, targets)``.

    Raises:
        ConfigurationError: If it is anything else.
    """
    if isinstance(batch, (list, tuple)) and len(batch) == 2:
        return batch[0], batch[1]
    found = f"{len(batch)} parts" if isinstance(batch, (list, tuple)) else type(batch).__name__
    raise ConfigurationError(
        f"a batch is (inputs, targets), and this one is {found}; give "
        "unpack=lambda batch: (inputs, targets) with the parts of your batch"
    )


def call(module: Any, inputs: Any) -> Any:
    """Return ``module(inputs)``."""
    return module(inputs)


def len_of(inputs: Any) -> int:
    """Return the number of samples in a batch of tensors, nested in lists or dictionaries.

    Raises:
        ConfigurationError: If it holds no tensor.
    """
    for leaf in tree_leaves(inputs):
        if isinstance(leaf, Tensor) and leaf.ndim:
            return len(leaf)
    raise ConfigurationError(
        "the inputs of a batch hold no tensor; give unpack=lambda batch: (inputs, targets)"
    )


def one_of(inputs: Any, index: int) -> Any:
    """Return a batch of one sample."""
    return tree_map(
        lambda leaf: leaf[index : index + 1] if isinstance(leaf, Tensor) and leaf.ndim else leaf,
        inputs,
    )
