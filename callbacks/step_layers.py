"""Wrap the training step of a module, once for all callbacks that change what it returns."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch

from greentrain.errors import ConfigurationError

Step = Callable[..., Any]
Layer = Callable[..., Any]
_LAYERS = "__greentrain_layers__"


def wrap_training_step(module: Any, layer: Layer, *, innermost: bool = False) -> Callable[[], None]:
    """Call a function instead of the training step of a module; return what removes it again.

    The function gets the step as its first argument, then the arguments of the step. Several
    functions are wrapped around each other in the order of the calls, and may be removed in any
    order. With the last one removed, the module is as it was.

    Args:
        module: The module, whose class stays as it is.
        layer: Called as ``layer(step, batch, *rest)``; returns the output of the step.
        innermost: Whether the others are wrapped around it, for one that replaces the step.

    Example:
        >>> class Model:
        ...     def training_step(self, batch, batch_idx):
        ...         return batch
        >>> model = Model()
        >>> remove = wrap_training_step(model, lambda step, *given: 10 * step(*given))
        >>> model.training_step(2, 0)
        20
        >>> remove()
        >>> model.training_step(2, 0), vars(model)
        (2, {})
    """
    own = vars(module).get("training_step")
    layers: list[Layer] | None = getattr(own, _LAYERS, None)
    if layers is None:
        layers = _install(module, own)
    added = functools.partial(layer)  # one function may be added twice
    layers.insert(0 if innermost else len(layers), added)

    def remove() -> None:
        if added not in layers:
            return
        layers.remove(added)
        if not layers:
            _uninstall(module, layers)

    return remove


def loss_of(output: Any) -> torch.Tensor:
    """Return the loss in the output of a training step.

    Raises:
        ConfigurationError: If there is none.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, torch.Tensor):
        raise ConfigurationError(
            f"training_step returned {type(output).__name__} without a loss, to which a term was "
            "to be added; return the loss, or {'loss': loss, ...}"
        )
    return loss


def with_loss(output: Any, loss: torch.Tensor) -> Any:
    """Return the output of a training step with another loss."""
    return {**output, "loss": loss} if isinstance(output, Mapping) else loss


def _install(module: Any, own: Step | None) -> list[Layer]:
    step = module.training_step
    layers: list[Layer] = []

    @functools.wraps(step)
    def training_step(*given: Any, **named: Any) -> Any:
        wrapped = step
        for each in layers:
            wrapped = functools.partial(each, wrapped)
        return wrapped(*given, **named)

    setattr(training_step, _LAYERS, layers)
    training_step.__greentrain_own__ = own  # type: ignore[attr-defined]
    module.training_step = training_step
    return layers


def _uninstall(module: Any, layers: list[Layer]) -> None:
    current = vars(module).get("training_step")
    if getattr(current, _LAYERS, None) is not layers:
        return  # something else has wrapped it since; without layers it changes nothing
    own = current.__greentrain_own__
    del module.training_step
    if own is not None:
        module.training_step = own
