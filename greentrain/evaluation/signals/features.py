"""Capture the features of samples during a validation, without further forward passes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule
from torch import nn
from torch._dynamo import OptimizedModule

from greentrain.evaluation.signals.drift import MOST_ROWS, Drift, drift_score, spread
from greentrain.texts import get_logger

PENULTIMATE = "penultimate features"
"""Inputs of the last linear or convolution layer that runs."""
OUTPUTS = "outputs"
"""Values that ``forward`` returns."""
INPUTS = "inputs"
"""Inputs of the model."""
KINDS = (PENULTIMATE, OUTPUTS, INPUTS)
"""The kinds of features, best first."""

WIDEST = 1024
"""Largest number of features of a sample; more are hashed into as many."""
_HEADS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_SEED = 0

_log = get_logger(__name__)


class FeatureTap(Callback):
    """Capture the features of some samples while a module is validated.

    Hooks on the module's linear and convolution layers capture the inputs of the last one that runs
    in each batch. Positions in an image or a text are averaged. A compiled module runs no hooks. A
    module without such layers gives only the values that its ``forward`` returns, if it is called.
    The tap never raises: kinds of features that are not available are missing, and one line at
    level DEBUG gives the reason.

    Args:
        samples: Samples of the validation.
        limit: Largest number of samples to capture, at even distances.

    Example:
        >>> from pytorch_lightning.demos.boring_classes import BoringModel
        >>> model = BoringModel()  # a linear layer of 32 features
        >>> tap = FeatureTap(samples=4)
        >>> tap.attach(model)
        >>> for batch in torch.ones(2, 2, 32):
        ...     tap.begin()
        ...     _ = model(batch)
        ...     tap.add(batch)
        >>> tap.close()
        >>> {kind: tuple(features.shape) for kind, features in tap.features.items()}
        {'penultimate features': (4, 32), 'outputs': (4, 2), 'inputs': (4, 32)}
    """

    def __init__(self, samples: int, *, limit: int = MOST_ROWS) -> None:
        self._wanted = spread(samples, limit)
        self._seen = 0
        self._handles: list[Any] = []
        self._last: dict[str, Any] = {}
        self._captured: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
        self._words = False
        self._logged = False

    @property
    def features(self) -> dict[str, torch.Tensor]:
        """The captured features ``(samples, features)`` by their kind, best first."""
        rows = int((self._wanted < self._seen).sum())
        found = {}
        for kind in KINDS:
            parts = self._captured[kind]
            alike = len({part.shape[1] for part in parts}) == 1
            if alike and sum(map(len, parts)) == rows:
                found[kind] = torch.cat(parts)
        return found

    def attach(self, model: nn.Module) -> None:
        """Register hooks on a model."""
        if _compiled(model):
            self._log_once("it is compiled, so its hooks do not run")
            return
        for module in model.modules():
            if isinstance(module, _HEADS):
                self._handles.append(module.register_forward_pre_hook(self._entered))
        self._handles.append(model.register_forward_hook(self._returned))

    def begin(self) -> None:
        """Expect a batch."""
        self._last = {}

    def add(self, batch: Any) -> None:
        """Capture a batch that has run."""
        try:
            inputs = _first_tensor(batch)
            if inputs is None:
                raise ValueError("its batches begin with no tensor")
            n = len(inputs)
            inside = (self._wanted >= self._seen) & (self._wanted < self._seen + n)
            rows = self._wanted[inside] - self._seen
            self._seen += n
            for kind, values in {**self._last, INPUTS: inputs}.items():
                captured = _flat(self._pooled(values) if kind == PENULTIMATE else values, rows, n)
                if captured is not None and len(rows):
                    self._captured[kind].append(captured)
        except Exception as error:  # the validation continues
            self._log_once(f"a batch could not be read: {error}")
        self._last = {}

    def close(self) -> None:
        """Remove the hooks; calling it again is harmless."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._last = [], {}

    def on_validation_start(self, trainer: Any, pl_module: LightningModule) -> None:
        """Register hooks on the module."""
        self.attach(pl_module)

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Expect a batch."""
        self.begin()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: Any, batch: Any, *args: Any
    ) -> None:
        """Capture the batch."""
        self.add(batch)

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Remove the hooks."""
        self.close()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Remove the hooks."""
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

    def _log_once(self, why: str) -> None:
        if not self._logged:
            _log.debug("not all features of the model can be captured: %s", why)
        self._logged = True


def drift_between(old: Mapping[str, torch.Tensor], new: Mapping[str, torch.Tensor]) -> Drift | None:
    """Return the distance of new data from old, by the best kind of features that gives one.

    Args:
        old: Features of old data by their kind, as a :class:`FeatureTap` captures them.
        new: Features of new data, by the same model.

    Returns:
        The drift, with the kind of features in ``measure``; ``None`` if no kind gives one.

    Example:
        >>> old, new = torch.arange(9.0).reshape(9, 1), torch.arange(5.0, 14.0).reshape(9, 1)
        >>> drift_between({OUTPUTS: old, INPUTS: old}, {OUTPUTS: new}).measure
        'MMD2 of outputs'
    """
    for kind in KINDS:
        if kind in old and kind in new:
            drift = drift_score(old[kind], new[kind])
            if drift is not None:
                return Drift(value=drift.value, measure=f"{drift.measure} of {kind}")
    return None


def _compiled(model: nn.Module) -> bool:
    # Compiled code that replaces a layer does not run hooks that are added later.
    return getattr(model, "_compiler_ctx", None) is not None or any(
        isinstance(each, OptimizedModule) or getattr(each, "_compiled_call_impl", None) is not None
        for each in model.modules()
    )


def _first_tensor(batch: Any) -> torch.Tensor | None:
    """Return the first tensor of a batch, the model's input."""
    if isinstance(batch, torch.Tensor):
        return batch if batch.ndim else None
    parts = batch.values() if isinstance(batch, Mapping) else batch
    if isinstance(parts, (str, bytes)) or not isinstance(parts, Iterable):
        return None
    return next((found for part in parts if (found := _first_tensor(part)) is not None), None)


def _flat(values: Any, rows: torch.Tensor, n: int) -> torch.Tensor | None:
    """Return some rows of the values of a batch of ``n`` samples, ``(rows, features)``.

    Whole numbers are left out, because ids of words are no features; bytes of images are kept.
    """
    if not isinstance(values, torch.Tensor) or not values.ndim or len(values) != n:
        return None
    if not (values.is_floating_point() or values.dtype is torch.uint8):
        return None
    taken = values.detach()[rows.to(values.device)].float()
    return _hashed(taken.reshape(len(taken), -1)).cpu()


def _hashed(features: torch.Tensor) -> torch.Tensor:
    """Hash many features into :data:`WIDEST`, keeping distances to about 4 %.

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
