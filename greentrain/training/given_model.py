"""Check and copy a model that is given as an instance, whose weights are the start."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import nn
from torch._dynamo import OptimizedModule
from torch.nn.parameter import is_lazy

from greentrain.errors import ConfigurationError
from greentrain.training.fit_callbacks import has_finite_weights

BATCH_NORMS = (nn.BatchNorm1d, nn.SyncBatchNorm)
"""Layers that cannot train on one value of each channel."""
_COMPILED = ("forward", "predict_step", "test_step", "training_step", "validation_step")
"""Methods that a compilation replaces on the instance."""


def check_given_model(model: object) -> LightningModule:
    """Return a given model, without its compilation.

    Raises:
        ConfigurationError: If it is no instance of a ``LightningModule``, or nothing of it can be
            trained or validated.
    """
    if isinstance(model, OptimizedModule):
        model = model._orig_mod
    if isinstance(model, type):
        raise ConfigurationError(
            f"model is the class {model.__name__}; give an instance, whose weights are the start: "
            f"{model.__name__}.load_from_checkpoint(...). For fresh weights use StreamTrainer"
        )
    if not isinstance(model, LightningModule):
        raise ConfigurationError(
            f"model is a {type(model).__name__}; it must be a LightningModule of pytorch_lightning"
        )
    name = type(model).__name__
    if not is_overridden("validation_step", model):
        raise ConfigurationError(
            f"{name} has no validation_step, so no metric shows whether an update is better; "
            "define one that logs a metric, such as self.log('val_acc', ...)"
        )
    weights = list(model.parameters())
    if not any(each.requires_grad for each in weights):
        raise ConfigurationError(
            f"{name} has no weight to train: all are frozen, or there are none. Call unfreeze() "
            "on it first"
        )
    if any(is_lazy(each) for each in weights):
        raise ConfigurationError(
            f"{name} has lazy layers without weights yet; run it on one batch first"
        )
    if any(each.device.type == "meta" for each in weights):
        raise ConfigurationError(
            f"{name} is on the meta device, where weights have no values; load its weights first"
        )
    return model


def check_weights(model: LightningModule, smallest_batch: int, flat: Collection[str]) -> None:
    """Refuse a model that a fit cannot continue from.

    Args:
        model: The model in training mode.
        smallest_batch: Samples of the smallest batch.
        flat: Names of layers that have one value of each channel for a sample.

    Raises:
        ConfigurationError: If a weight is not finite, or batches of one sample would be normalised.
    """
    name = type(model).__name__
    if not has_finite_weights(model):
        raise ConfigurationError(
            f"{name} has a weight that is NaN or infinite, and no training repairs it; give a "
            "model whose training did not diverge, such as an earlier checkpoint"
        )
    normalised = sorted(
        place
        for place, layer in model.named_modules()
        if isinstance(layer, BATCH_NORMS) and layer.training and place in flat
    )
    if smallest_batch == 1 and normalised:
        raise ConfigurationError(
            f"{name} normalises batches in {normalised[0]!r}, which needs two samples in a batch, "
            "and the new data have batches of one. Give a larger batch_size and at least two new "
            "samples, or put the layer into evaluation mode"
        )


@contextmanager
def flat_layers(model: LightningModule) -> Iterator[set[str]]:
    """Yield the names of layers of batch normalisation whose inputs have two dimensions.

    They are found while the model is called within the block.
    """
    found: set[str] = set()

    def note(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _, inputs: found.add(name) if inputs[0].dim() == 2 else None

    layers = [each for each in model.named_modules() if isinstance(each[1], BATCH_NORMS)]
    handles = [layer.register_forward_pre_hook(note(name)) for name, layer in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def copy_model(model: LightningModule) -> LightningModule:
    """Return a copy of a model on the CPU, without its Trainer and its compilation.

    A model in evaluation mode is copied in training mode: its dropout and batch normalisation
    would not train.

    Raises:
        ConfigurationError: If it holds a value that cannot be copied.
    """
    unused = [getattr(model, name, None) for name in ("_trainer", "_fabric", "_compiler_ctx")]
    memo: dict[int, Any] = {id(each): None for each in unused if each is not None}
    try:
        copied = copy.deepcopy(model, dict(memo))
    except Exception as error:  # the module may hold anything
        name = next((name for name, each in vars(model).items() if not _copies(each, memo)), "it")
        raise ConfigurationError(
            f"{type(model).__name__} cannot be copied because of its attribute {name!r} "
            f"({error}); delete the attribute, or make it in setup()"
        ) from error
    for name in _COMPILED if model._compiler_ctx is not None else ():
        vars(copied).pop(name, None)
    if not model.training:
        copied.train()
    return copied.cpu()


def return_like(updated: LightningModule, given: LightningModule) -> LightningModule:
    """Return an updated model on the device, and in the mode, of the given one."""
    device = next(given.parameters()).device
    if next(updated.parameters()).device != device:
        updated = updated.to(device)
    return updated if given.training else updated.eval()


def same_weights(left: dict[str, Any], right: dict[str, Any]) -> bool:
    """Return whether two state dictionaries are equal.

    Example:
        >>> one, two = {"weight": torch.tensor([1.0])}, {"weight": torch.tensor([2.0])}
        >>> same_weights(one, one), same_weights(one, two)
        (True, False)
    """
    return left.keys() == right.keys() and all(_equal(left[name], right[name]) for name in left)


def _equal(left: Any, right: Any) -> bool:
    if not isinstance(left, torch.Tensor) or not isinstance(right, torch.Tensor):
        return type(left) is type(right) and bool(left == right)
    return left.shape == right.shape and torch.equal(left.cpu(), right.cpu())


def _copies(value: Any, memo: dict[int, Any]) -> bool:
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:  # any object may refuse to be copied
        return False
    return True
