"""Update a model by small low-rank adapters, which are merged into its weights at the end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from greentrain._about import DISTRIBUTION
from greentrain.callbacks.base import Callback
from greentrain.callbacks.module_names import find_module
from greentrain.errors import ConfigurationError
from greentrain.units import is_whole


class LoraUpdate(Callback):
    """Train low-rank adapters of linear layers instead of the layers, by the package ``peft``.

    At the start of a fit each ``nn.Linear`` gets an adapter of ``rank * (inputs + outputs)``
    numbers, and all other parameters are frozen (Hu et al. 2021, arXiv 2106.09685). At its end the
    adapters are merged: the model has its own layers and names again. A checkpoint from within the
    fit has the adapters, and a resumed fit needs this callback with the same arguments.

    Linear layers inside of ``nn.MultiheadAttention`` get none, because its forward pass does not
    call them.

    Args:
        module: Name of the part of the model whose layers get adapters; empty for all of it.
        rank: Rank of the adapters.
        train: Names of modules that are trained as usual, such as a new head. Their layers get no
            adapter.

    Attributes:
        trained: Number of trained parameters, and of all.

    Raises:
        ConfigurationError: If an argument cannot be used. At the start of a fit, if ``peft`` is not
            installed or cannot wrap the layers, or several processes train.

    Example:
        >>> LoraUpdate("backbone", rank=4, train=["head"]).trained
        (0, 0)
    """

    def __init__(self, module: str = "", *, rank: int = 8, train: Sequence[str] = ()) -> None:
        if not isinstance(module, str):
            raise ConfigurationError(f"module is {module!r}; it must be the name of a module")
        if not is_whole(rank, 1):
            raise ConfigurationError(f"rank is {rank!r}; it must be a whole number, 1 or more")
        if isinstance(train, str) or not all(isinstance(each, str) for each in train):
            raise ConfigurationError(f"train is {train!r}; it must be a list of names of modules")
        self.module, self.rank, self.train = module, int(rank), tuple(train)
        self.trained = (0, 0)
        self._wrapped: nn.Module | None = None
        self._kept: list[tuple[nn.Parameter, bool]] = []
        self._fast: bool | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Add the adapters, and freeze all other parameters."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"the fit has {trainer.world_size} processes, and LoraUpdate adds the adapters of "
                "one; give devices=1, or leave it out"
            )
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError:
            raise ConfigurationError(
                f"LoraUpdate needs the package peft; install it: pip install '{DISTRIBUTION}[peft]'"
            ) from None
        trained = [find_module(pl_module, name) for name in self.train]
        names = self._layers(pl_module)
        before = [(each, each.requires_grad) for each in pl_module.parameters()]
        pattern = "|".join(re.escape(name) for name in names)
        config = LoraConfig(r=self.rank, lora_alpha=2 * self.rank, target_modules=f"({pattern})")
        try:
            inject_adapter_in_model(config, pl_module)
        except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
            raise ConfigurationError(
                f"peft cannot wrap the layers of {self.module or type(pl_module).__name__!r}: "
                f"{error}; give another module, or leave LoraUpdate out"
            ) from error
        self._wrapped, self._kept = pl_module, before
        for module in trained:
            module.requires_grad_(True)
        counts = [(each.numel(), each.requires_grad) for each in pl_module.parameters()]
        self.trained = (sum(n for n, on in counts if on), sum(n for n, _ in counts))
        fast = getattr(torch.backends, "mha", None)
        if fast is not None:  # the fast path of nn.TransformerEncoderLayer calls no layer
            self._fast = fast.get_fastpath_enabled()
            fast.set_fastpath_enabled(False)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Merge the adapters."""
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Merge the adapters, so that the model has its own layers again."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Merge the adapters if that is not done."""
        self._close()

    def _layers(self, pl_module: nn.Module) -> list[str]:
        """Return the names of the linear layers that get an adapter."""
        root = find_module(pl_module, self.module) if self.module else pl_module
        left_out = [find_module(pl_module, name) for name in self.train]
        left_out += [each for each in pl_module.modules() if type(each) is nn.MultiheadAttention]
        skipped = {id(part) for each in left_out for part in each.modules()}
        inside = {id(part) for part in root.modules()}
        names = [
            name
            for name, each in pl_module.named_modules()
            if id(each) in inside and id(each) not in skipped and type(each) is nn.Linear
        ]
        if not names:
            raise ConfigurationError(
                f"{self.module or type(pl_module).__name__!r} has no nn.Linear that peft can wrap; "
                "give a module that has some, or leave LoraUpdate out"
            )
        return names

    def _close(self) -> None:
        model, self._wrapped = self._wrapped, None
        if model is None:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, BaseTunerLayer):
                    child.merge()
                    setattr(parent, name, child.get_base_layer())
        vars(model).pop("peft_config", None)
        for parameter, before in self._kept:
            parameter.requires_grad_(before)
        self._kept = []
        if self._fast is not None:
            torch.backends.mha.set_fastpath_enabled(self._fast)
            self._fast = None
