"""Compute the features of frozen layers once for each sample, and train the layers behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from greentrain.callbacks.base import Callback
from greentrain.callbacks.module_names import find_module
from greentrain.errors import ConfigurationError
from greentrain.methods import (
    FeatureStore,
    content_keys,
    freezing_depth,
    relative_information,
    state_key,
)
from greentrain.texts import get_logger, short_repr
from greentrain.units import is_whole, parse_bytes, plain_quantity

_log = get_logger(__name__)

_LEAST_REUSED = 0.5
"""Share of the samples so far that must come again in an epoch: few mean augmentation."""


class FeatureCache(Callback):
    """Freeze the first layers, compute their features once, and train the layers behind them.

    The named module keeps its weights and its batch statistics during the fit, and is evaluated
    without dropout. Its output is kept for each sample. When a sample comes again, in any order and
    in training or validation, it is looked up instead of computed.

    A sample is recognised by its content, after the transform: see
    :func:`greentrain.methods.content_keys`. So any loader works, and random augmentation
    before the frozen layers is refused after the second epoch. Augment behind them instead.

    Args:
        trunk: Name of the module, as in ``model.named_modules()``: ``"backbone"``. It is called
            with one tensor of samples, and returns one tensor.
        freeze: ``"all"`` of the module, a number of first layers of an ``nn.Sequential``, or
            ``"auto"``: as many as :func:`greentrain.methods.freezing_depth` finds in the first
            ``probe_steps`` steps, in which all layers are trained.
        max_bytes: Most bytes of the features, such as ``"1 GB"``.
        folder: Folder of a memory-mapped file, which later trainings with the same weights use too;
            ``None`` for memory.
        share: Share of the largest information up to which ``"auto"`` freezes a layer.
        probe_steps: Optimizer steps in which ``"auto"`` measures.

    Attributes:
        used: Samples that were looked up, and all samples that came.
        depth: Number of frozen layers of an ``nn.Sequential``; ``None`` for all, or before it is
            found.

    Raises:
        ConfigurationError: If an argument cannot be used. At the start of a fit, if there is no
            such module, or several processes train. Within it, if the module's weights change, the
            features need more than ``max_bytes``, or samples do not come again.

    Example:
        >>> cache = FeatureCache("backbone", max_bytes="200 MB")
        >>> cache.used
        (0, 0)
    """

    def __init__(
        self,
        trunk: str,
        *,
        freeze: int | Literal["all", "auto"] = "all",
        max_bytes: str | int = "1 GB",
        folder: str | Path | None = None,
        share: float = 0.1,
        probe_steps: int = 8,
    ) -> None:
        if not isinstance(trunk, str) or not trunk:
            raise ConfigurationError(
                f"trunk is {short_repr(trunk)}; it must be the name of a module, such as 'backbone'"
            )
        if freeze not in ("all", "auto") and not is_whole(freeze, 1):
            raise ConfigurationError(
                f"freeze is {freeze!r}; it must be 'all', 'auto', or a number of layers, 1 or more"
            )
        if not is_whole(probe_steps, 1):
            raise ConfigurationError(f"probe_steps is {probe_steps!r}; it must be 1 or more")
        if not is_whole(max_bytes):
            max_bytes = parse_bytes(plain_quantity(max_bytes, "max_bytes", "1 GB"))
        if max_bytes < 1:
            raise ConfigurationError(f"max_bytes is {max_bytes} bytes; it must be above 0")
        freezing_depth([], share=share)
        self.trunk, self.freeze = trunk, freeze
        self.max_bytes = int(max_bytes)
        self.folder = None if folder is None else Path(folder)
        self.share, self.probe_steps = float(share), int(probe_steps)
        self.used = (0, 0)
        self.depth: int | None = None
        self._resumed: int | None = None
        self._store: FeatureStore | None = None
        self._stored_key = ""
        self._information: list[list[float | None]] = []
        self._forget()

    def _forget(self) -> None:
        """Clear what belongs to one fit."""
        self._module: nn.Module | None = None
        self._frozen: list[nn.Module] = []
        self._versions: list[int] | None = None
        self._kept: list[tuple[Any, str, Any]] = []
        self._trainer: Any = None
        self._epoch = (0, 0)
        self._expected = 0
        self._checked = False
        self._row: Tensor | None = None
        self._warned = False

    @property
    def state_key(self) -> str:
        """Key of the state in a checkpoint: caches of other modules have other keys."""
        return self._generate_state_key(trunk=self.trunk)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Find the module, and freeze its layers unless they are to be found."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise ConfigurationError(
                f"the fit has {trainer.world_size} processes, and FeatureCache keeps the features "
                "of one; give devices=1, or leave it out"
            )
        self._forget()
        self._trainer = trainer
        self._module = _module_of(pl_module, self.trunk)
        if self.freeze != "all" and not isinstance(self._module, nn.Sequential):
            raise ConfigurationError(
                f"freeze={self.freeze!r} needs the order of the layers, and {self.trunk!r} is a "
                f"{type(self._module).__name__}; give the name of an nn.Sequential, or freeze='all'"
            )
        if self.freeze == "all":
            self._begin(pl_module, None)
        elif self.freeze != "auto":
            self._begin(pl_module, int(self.freeze))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Freeze the layers that an earlier part of this training found."""
        if self.freeze == "auto" and self._resumed:
            self._begin(pl_module, self._resumed)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure the information of the layers in the first steps, and freeze the first ones."""
        if self.freeze != "auto" or self.depth is not None or self._module is None:
            return
        self._information.append(relative_information(self._module.children()))
        if len(self._information) < self.probe_steps:
            return
        means = [_mean(values) for values in zip(*self._information, strict=True)]
        depth = freezing_depth(means, share=self.share)
        self._information = []
        if depth:
            self._begin(pl_module, depth)
        self.depth = depth
        _log.info("FeatureCache freezes %d layers of %r", depth, self.trunk)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Check the call of the layers, and the size of all features, after the first batch."""
        if not self._frozen or self._checked:
            return
        self._checked = True
        if not self._epoch[1] and self.freeze != "auto":
            raise ConfigurationError(
                f"the training step did not call {self.trunk!r}, so nothing can be looked up; give "
                "the name of a module that it calls"
            )
        row, batches = self._row, float(trainer.num_training_batches)
        if row is None or batches == float("inf") or trainer.max_epochs == 1:
            return
        if self._store is not None and not self._store.fits(batches * len(row), row):
            raise ConfigurationError(
                f"the features of {self.trunk!r} need {row[0].numel() * row.element_size()} bytes "
                f"for each of {batches * len(row):.0f} samples, and max_bytes is "
                f"{self.max_bytes}; raise max_bytes, or freeze more layers, whose features may be "
                "smaller"
            )

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Check that the weights are unchanged, and that samples came again."""
        found, came = self._epoch
        self._epoch = (0, 0)
        if not self._frozen:
            return
        self._check_key()
        if found < _LEAST_REUSED * min(came, self._expected) and not self._warned:
            raise ConfigurationError(
                f"{came - found} of {came} samples of an epoch did not come before, so their "
                "features had to be computed again: random augmentation changes them, or each "
                f"epoch has other samples. Augment behind {self.trunk!r}, or leave FeatureCache out"
            )
        self._expected += came - found
        if self.used[1]:
            self.log("features_reused", self.used[0] / self.used[1])

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Give the module back as it was."""
        self._close()

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Give the module back as it was."""
        self._close()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of layers that were found, for a checkpoint; features are not in it."""
        return {"depth": self.depth, "used": list(self.used)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore from a checkpoint."""
        self._resumed = state_dict["depth"]
        self.used = tuple(state_dict["used"])

    def _begin(self, pl_module: nn.Module, depth: int | None) -> None:
        """Freeze the module, or its first layers, and replace its forward pass."""
        module = self._module
        if module is None:
            return
        layers = list(module.children())
        if depth is not None and depth > len(layers):
            raise ConfigurationError(
                f"freeze is {depth}, and {self.trunk!r} has {len(layers)} layers; give at most that"
            )
        self.depth = depth
        self._frozen = [module] if depth is None else layers[:depth]
        behind = [] if depth is None else layers[depth:]
        for part in (each for frozen in self._frozen for each in frozen.modules()):
            self._keep(part, "training", part.training)
            part.training = False
        for parameter in (each for frozen in self._frozen for each in frozen.parameters()):
            self._keep(parameter, "requires_grad", parameter.requires_grad)
            parameter.requires_grad_(False)
            parameter.grad = None
        if not any(each.requires_grad for each in pl_module.parameters()):
            self._close()
            raise ConfigurationError(
                f"no parameter is left to train when {self.trunk!r} is frozen; give a smaller part "
                "of the model"
            )
        own, whole = vars(module).get("forward"), module.forward

        def compute(inputs: Tensor) -> Any:
            if depth is None:
                return whole(inputs)
            for layer in self._frozen:
                inputs = layer(inputs)
            return inputs

        def forward(*args: Any, **kwargs: Any) -> Any:
            if len(args) != 1 or kwargs or not isinstance(args[0], Tensor) or args[0].ndim < 2:
                raise ConfigurationError(
                    f"{self.trunk!r} is not called with one tensor of samples, and FeatureCache "
                    "has nothing to recognise them by; give a module that is"
                )
            output = self._features(args[0], compute)
            for layer in behind:
                output = layer(output)
            return output

        module.forward = forward
        self._kept.append((module, "forward", own))

    def _features(self, inputs: Tensor, compute: Any) -> Tensor:
        """Return the features of samples: looked up, or computed and kept."""
        store = self._opened()
        keys = content_keys(inputs)
        positions = store.positions(keys)
        known = [at for at in positions if at is not None]
        self._count(len(known), len(keys))
        if len(known) == len(keys):
            return store.rows(known).to(inputs.device)
        missing = [at for at, position in enumerate(positions) if position is None]
        for part in self._frozen:
            part.eval()  # Lightning and users' code may call train() on the whole model
        with torch.no_grad():
            computed = compute(inputs[missing] if known else inputs)
        if not isinstance(computed, Tensor) or computed.shape[:1] != (len(missing),):
            raise ConfigurationError(
                f"{self.trunk!r} does not return one tensor with a row for each sample, and "
                "FeatureCache keeps one; give a module that does"
            )
        if self._row is None:
            self._row = computed.detach()
        added = store.add([keys[at] for at in missing], computed)
        if not added and not self._warned:
            self._warned = True
            _log.warning(
                "the features of %r fill max_bytes; those of further samples are computed each "
                "time. Raise max_bytes",
                self.trunk,
            )
        if not known:
            return computed
        features = computed.new_empty((len(keys), *computed.shape[1:]))
        features[missing] = computed
        there = [at for at, position in enumerate(positions) if position is not None]
        features[there] = store.rows(known).to(features)
        return features

    def _count(self, found: int, came: int) -> None:
        self.used = (self.used[0] + found, self.used[1] + came)
        if self._trainer.training:
            self._epoch = (self._epoch[0] + found, self._epoch[1] + came)

    def _opened(self) -> FeatureStore:
        """Return the store, opened at the first call of a fit; the weights may not change after."""
        versions = [each._version for each in self._tensors()]
        if self._versions is None or self._store is None:
            key = self._key()
            if self._store is None or key != self._stored_key:
                self._store = FeatureStore(self.max_bytes, folder=self.folder, key=key)
            self._stored_key, self._versions = key, versions
        elif versions != self._versions:
            self._check_key()
            self._versions = versions  # written, with the same values
        return self._store

    def _check_key(self) -> None:
        if self._versions is not None and self._key() != self._stored_key:
            raise ConfigurationError(
                f"the weights or buffers of {self.trunk!r} changed while its features were kept, "
                "so these are out of date. Leave the frozen layers out of an average of weights or "
                "any other change, or leave FeatureCache out"
            )

    def _key(self) -> str:
        return state_key(self._frozen, str(self._trainer.precision))

    def _tensors(self) -> list[Tensor]:
        return [
            each
            for part in self._frozen
            for each in (*part.parameters(), *part.buffers())
            if not each.is_inference()
        ]

    def _keep(self, owner: Any, name: str, value: Any) -> None:
        self._kept.append((owner, name, value))

    def _close(self) -> None:
        for owner, name, value in reversed(self._kept):
            if name == "forward":
                del owner.forward
                if value is not None:
                    owner.forward = value
            else:
                setattr(owner, name, value)
        if self.folder is not None and self._store is not None:
            self._store.close()
            self._store = None
        self._forget()


def _module_of(pl_module: nn.Module, name: str) -> nn.Module:
    module = find_module(pl_module, name)
    if hasattr(module, "_orig_mod") or isinstance(module, torch.jit.ScriptModule):
        raise ConfigurationError(
            f"{name!r} is compiled, and its forward pass cannot be replaced; compile the layers "
            "behind it only"
        )
    return module


def _mean(values: tuple[float | None, ...]) -> float | None:
    known = [each for each in values if each is not None]
    return sum(known) / len(known) if known else None
