"""Help for callbacks that replace the loss or the batches of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from greentrain.callbacks.batch_parts import Unpack
from greentrain.callbacks.der import check_tensors
from greentrain.errors import ConfigurationError


def experience_tensors(trainer: Any, unpack: Unpack) -> tuple[Tensor, Tensor]:
    """Return inputs and targets of all training samples of this process, on the CPU.

    Raises:
        ConfigurationError: If they are no tensors, or there is none.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    for batch in trainer.train_dataloader:
        inputs, targets = unpack(batch)
        check_tensors(inputs, targets)
        parts.append((inputs.detach().cpu(), targets.detach().cpu()))
    if not parts:
        raise ConfigurationError(
            "the training loader gave no sample, so nothing can be stored; give a loader that can "
            "be read again"
        )
    inputs, targets = (torch.cat(each) for each in zip(*parts, strict=True))
    return inputs, targets


def refuse_together(callback: Any, trainer: Any, kinds: tuple[type, ...], why: str) -> None:
    """Refuse a fit with two callbacks that exclude each other.

    Raises:
        MisconfigurationException: If another callback of the Trainer is of one of the kinds.
    """
    for other in trainer.callbacks:
        if other is not callback and isinstance(other, kinds):
            raise MisconfigurationException(
                f"{type(callback).__name__} and {type(other).__name__} exclude each other: {why}; "
                "leave one of them out"
            )


def check_factory(make_model: object) -> Callable[[], nn.Module]:
    """Return a function that makes models.

    Raises:
        ConfigurationError: If it cannot be called.
    """
    if not callable(make_model):
        raise ConfigurationError(
            f"make_model is {make_model!r}; it must be a function that returns a module of the "
            "same architecture"
        )
    return make_model
