"""What a model makes of its inputs, noted while it is validated anyway."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch._dynamo import OptimizedModule

from greentrain.callbacks.base import Callback
from greentrain.evaluation.signals.drift import LOOKED_AT, Shift, drift_score, spread

PENULTIMATE = "penultimate features"
"""What goes into the last linear or convolution layer that runs."""
OUTPUTS = "outputs"
"""What ``forward`` returns."""
INPUTS = "inputs"
"""What the model is given."""
KINDS = (PENULTIMATE, OUTPUTS, INPUTS)
"""The kinds of features, best first."""

WIDEST = 1024
"""Features of a sample beyond which they are hashed into as many."""
_HEADS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SEED = 0

_log = logging.getLogger(__name__)


class FeatureTap(Callback):
    """Note the features of some samples while a module is validated; no forward pass is added.

    Hooks on the module's linear and convolution layers see what goes into the last one that runs
    in each batch; positions in an image or a text are averaged. A module that was compiled shows
    none of that, and one without such layers only what its ``forward`` returns, if it is called.
    Nothing that the module does makes the tap raise: kinds of features that cannot be had are
    missing, and one line at level DEBUG says why.

    Args:
        samples: Samples of the validation.
        limit: Samples that are noted at most, at even distances.

    Example:
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> model = BoringModel()  # a linear layer of 32 features
        >>> tap = FeatureTap(samples=4)
        >>> tap.attach(model)
        >>> for batch in torch.ones(2, 2, 32):
        ...     tap.begin()
        ...     _ = model(batch)
        ...     tap.take(batch)
        >>> tap.close()
        >>> {kind: tuple(features.shape) for kind, features in tap.features.items()}
        {'penultimate features': (4, 32), 'outputs': (4, 2), 'inputs': (4, 32)}
    """

    def __init__(self, samples: int, *, limit: int = LOOKED_AT) -> None:
        self._wanted = spread(samples, limit)
        self._seen = 0
        self._handles: list[Any] = []
        self._last: dict[str, Any] = {}
        self._noted: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
        self._words = False
        self._said = False

    @property
    def features(self) -> dict[str, torch.Tensor]:
        """What was noted of every batch, ``(samples, features)``, by its kind, best first."""
        rows = int((self._wanted < self._seen).sum())
        found = {}
        for kind in KINDS:
            parts = self._noted[kind]
            alike = len({part.shape[1] for part in parts}) == 1
            if alike and sum(map(len, parts)) == rows:
                found[kind] = torch.cat(parts)
        return found

    def attach(self, model: nn.Module) -> None:
        """Hook into a model."""
        if _compiled(model):
            self._say("it is compiled, and its layers show nothing")
            return
        for module in model.modules():
            if isinstance(module, _HEADS):
                self._handles.append(module.register_forward_pre_hook(self._entered))
        self._handles.append(model.register_forward_hook(self._returned))

    def begin(self) -> None:
        """Expect a batch."""
        self._last = {}

    def take(self, batch: Any) -> None:
        """Note the batch that has run."""
        try:
            inputs = _first_tensor(batch)
            if inputs is None:
                raise ValueError("its batches begin with no tensor")
            n = len(inputs)
            inside = (self._wanted >= self._seen) & (self._wanted < self._seen + n)
            rows = self._wanted[inside] - self._seen
            self._seen += n
            for kind, values in {**self._last, INPUTS: inputs}.items():
                noted = _flat(self._pooled(values) if kind == PENULTIMATE else values, rows, n)
                if noted is not None and len(rows):
                    self._noted[kind].append(noted)
        except Exception as error:  # whatever a module does, its validation goes on
            self._say(f"a batch could not be read: {error}")
        self._last = {}

    def close(self) -> None:
        """Unhook, again and again if need be."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._last = [], {}

    def on_validation_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Hook into the module."""
        self.attach(pl_module)

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Expect a batch."""
        self.begin()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Note the batch."""
        self.take(batch)

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Unhook."""
        self.close()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Unhook."""
        self.close()

    def _entered(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._last[PENULTIMATE] = args[0] if args else None
        self._words = isinstance(module, nn.Linear)

    def _pooled(self, values: Any) -> Any:
        """Return the mean over the positions in a text or an image."""
        if not isinstance(values, torch.Tensor) or values.ndim < 3:
            return values
        # (samples, words, features) of a linear layer, (samples, channels, height, width) of others
        return values.flatten(1, -2).mean(1) if self._words else values.flatten(2).mean(2)

    def _returned(self, module: nn.Module, args: Any, returned: Any) -> None:
        self._last[OUTPUTS] = returned

    def _say(self, why: str) -> None:
        if not self._said:
            _log.debug("not all features of the model can be noted: %s", why)
        self._said = True


def shift_between(old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> Shift | None:
    """Tell how far new data lie from old, by the best kind of features that says anything.

    Args:
        old: Features of old data by their kind, as a :class:`FeatureTap` notes them.
        new: Those of new data, by the same model.

    Returns:
        The shift, with what it is of in ``by``; ``None`` where it cannot be said.

    Example:
        >>> old, new = torch.arange(9.0).reshape(9, 1), torch.arange(5.0, 14.0).reshape(9, 1)
        >>> shift_between({OUTPUTS: old, INPUTS: old}, {OUTPUTS: new}).by
        'MMD2 of outputs'
    """
    for kind in KINDS:
        if kind in old and kind in new:
            shift = drift_score(old[kind], new[kind])
            if shift is not None:
                return Shift(value=shift.value, by=f"{shift.by} of {kind}")
    return None


def _compiled(model: nn.Module) -> bool:
    # Hooks that are added later are not run where compiled code takes a layer's place.
    return getattr(model, "_compiler_ctx", None) is not None or any(
        isinstance(each, OptimizedModule) or getattr(each, "_compiled_call_impl", None) is not None
        for each in model.modules()
    )


def _first_tensor(batch: Any) -> torch.Tensor | None:
    """Return the first tensor of a batch, which is what the model is given."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.ndim else None
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(parts, (str, bytes)) or not isinstance(parts, Iterable):
        return None
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)


def _flat(values: Any, rows: torch.Tensor, n: int) -> torch.Tensor | None:
    """Return some rows of what a batch of ``n`` samples gave, ``(rows, features)``.

    Numbers of words are no features, so whole numbers are left out, but for bytes of images.
    """
    if not isinstance(values, torch.Tensor) or not values.ndim or len(values) != n:
        return None
    if not (values.is_floating_point() or values.dtype is torch.uint8):
        return None
    taken = values.detach()[rows.to(values.device)].float()
    return _hashed(taken.reshape(len(taken), -1)).cpu()


def _hashed(features: torch.Tensor) -> torch.Tensor:
    """Bring many features down to :data:`WIDEST`, keeping distances to about 4 %.

    Each is added to one of them with a random sign (Weinberger et al. 2009, "Feature Hashing for
    Large Scale Multitask Learning", equation 3), the same ones each time.
    """
    wide = features.shape[1]
    if wide <= WIDEST:
        return features
    generator = torch.Generator().manual_seed(_SEED)
    signs = torch.randint(2, (wide,), generator=generator).to(features) * 2 - 1
    places = torch.randint(WIDEST, (wide,), generator=generator).to(features.device)
    return features.new_zeros(len(features), WIDEST).index_add_(1, places, features * signs)
