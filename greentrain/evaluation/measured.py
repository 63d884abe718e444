"""A metric with what it is made of, and whether one model does worse than another on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from numbers import Real
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torchmetrics import Metric

from greentrain.callbacks.base import Callback
from greentrain.evaluation.probe_size import loss_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A metric on a dataset.

    Args:
        value: The metric, as the model logs it.
        blocks: For consecutive parts of the dataset, the number of samples and the metric on them.
        loss: A loss that the model logs beside it; ``None`` where it logs none for each batch.
        features: What the model made of the samples, by its kind, where that was noted.
    """

    value: float
    blocks: tuple[tuple[int, float], ...] = ()
    loss: float | None = None
    features: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False)

    @property
    def samples(self) -> int:
        """Samples in the blocks."""
        return sum(size for size, _ in self.blocks)

    @property
    def standard_error(self) -> float:
        """The standard error of the value, from what its blocks scatter."""
        return standard_error([size for size, _ in self.blocks], [each for _, each in self.blocks])

    @property
    def resolution(self) -> float:
        """By how much one sample may change the value: as far as 0 or 1 is, over the samples."""
        if not self.samples:
            return 0.0
        return max(abs(self.value), abs(1.0 - self.value)) / self.samples


def together(parts: Sequence[Measured]) -> Measured:
    """Return the metric on several sets of samples as on one: the mean of their blocks.

    Example:
        >>> past = Measured(value=0.5, blocks=((10, 0.5),))
        >>> together([past, Measured(value=0.8, blocks=((20, 0.8),))]).value
        0.7
    """
    blocks = tuple(block for part in parts for block in part.blocks)
    total = sum(size for size, _ in blocks)
    value = math.fsum(size * value for size, value in blocks) / total if total else math.nan
    return Measured(value=round(value, 12), blocks=blocks)


def worse(before: Measured, after: Measured, *, sign: float) -> bool:
    """Tell whether a metric went down by more than one standard error.

    Both are measured on the same samples in the same blocks, so the blocks are compared in pairs:
    what makes some samples harder than others cancels out.

    Args:
        before: The metric of the earlier model.
        after: That of the later one.
        sign: 1 where more of the metric is better, -1 where less is.

    Returns:
        Whether ``sign * (after - before) < -se``, with ``se`` from :func:`standard_error` of the
        differences; 0 where there are fewer than two pairs. What is not finite is worse.

    Raises:
        ValueError: If the blocks are not of the same samples.

    Example:
        >>> before = Measured(value=0.8, blocks=((10, 0.7), (10, 0.9)))
        >>> after = Measured(value=0.75, blocks=((10, 0.6), (10, 0.9)))
        >>> worse(before, after, sign=1)  # lower by 0.05, and one standard error is 0.05
        False
        >>> worse(before, Measured(value=0.7, blocks=((10, 0.6), (10, 0.8))), sign=1)
        True
    """
    if not math.isfinite(after.value):
        return True
    if not math.isfinite(before.value):
        return False
    gain, error = difference(before, after, sign=sign)
    return -gain > error + 1e-9 * abs(before.value)  # rounding must not tell equal numbers apart


def difference(before: Measured, after: Measured, *, sign: float) -> tuple[float, float]:
    """Return by how much a metric got better, and the standard error of that.

    Args:
        before: The metric of the earlier model.
        after: That of the later one, on the same blocks.
        sign: 1 where more of the metric is better, -1 where less is.

    Raises:
        ValueError: If the blocks are not of the same samples.

    Example:
        >>> before = Measured(value=0.8, blocks=((10, 0.7), (10, 0.9)))
        >>> after = Measured(value=0.9, blocks=((10, 0.9), (10, 0.9)))
        >>> gain, error = difference(before, after, sign=1)
        >>> round(gain, 9), round(error, 9)
        (0.1, 0.1)
    """
    sizes = [size for size, _ in before.blocks]
    if sizes != [size for size, _ in after.blocks]:
        raise ValueError("before and after were not measured in the same blocks")
    values = zip(before.blocks, after.blocks, strict=True)
    differences = [new - old for (_, old), (_, new) in values]
    return sign * (after.value - before.value), standard_error(sizes, differences)


def standard_error(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the standard error of a mean of blocks that is weighted by their sizes.

    ``sqrt(k / (k - 1) * sum((w_i * (x_i - mean)) ** 2))`` with ``w_i`` the share of the samples in
    block ``i`` of ``k``: the ratio estimator of Cochran 1977, "Sampling Techniques", section 6.4,
    which Gatz & Smith 1995 found nearest to the bootstrap. For blocks of one size it is the usual
    ``s / sqrt(k)``.

    Args:
        sizes: Samples of each block.
        values: The value of each; blocks whose value is not finite are left out.

    Returns:
        The standard error; 0 for fewer than two blocks.

    Example:
        >>> round(standard_error([5, 5, 5], [1.0, 2.0, 3.0]), 4)  # 1 / sqrt(3)
        0.5774
    """
    pairs = [pair for pair in zip(sizes, values, strict=True) if math.isfinite(pair[1])]
    blocks, total = len(pairs), sum(size for size, _ in pairs)
    if blocks < 2 or not total:
        return 0.0
    mean = sum(size * value for size, value in pairs) / total
    scatter = math.fsum((size / total * (value - mean)) ** 2 for size, value in pairs)
    return math.sqrt(blocks / (blocks - 1) * scatter)


class MetricListener(Callback):
    """Note what a module logs under a name for each batch of a validation, and a loss beside it.

    While the validation lasts, the module's ``log`` is wrapped on the instance. The class stays as
    it is, and everything is logged as ever.

    Args:
        monitor: The name.
        sizes: Samples of each batch.
        passes_on: Whether what is logged goes on to Lightning; not where there is no Trainer.
    """

    def __init__(self, monitor: str, sizes: Sequence[int], *, passes_on: bool = True) -> None:
        self._monitor = monitor
        self._sizes = sizes
        self._passes_on = passes_on
        self._values: list[float | None] = []
        self._losses: dict[str, list[float]] = {}
        self._in_batch = False
        self._module: LightningModule | None = None

    @property
    def blocks(self) -> tuple[tuple[int, float], ...]:
        """Samples and value of each batch; empty unless all of them logged a value."""
        values = [value for value in self._values if value is not None]
        if len(values) < len(self._values):
            return ()
        return tuple(zip(self._sizes, values, strict=False))

    @property
    def loss(self) -> float | None:
        """The mean of a loss that each batch logged, by its samples; ``None`` where none did."""
        name = loss_name(self._losses, self._monitor)
        if name is None or len(self._losses[name]) != len(self._values):
            return None
        pairs = zip(self._sizes, self._losses[name], strict=False)
        total = sum(size for size, _ in zip(self._sizes, self._values, strict=False))
        return math.fsum(size * value for size, value in pairs) / total if total else None

    def listen(self, pl_module: LightningModule) -> None:
        """Wrap a module's ``log``."""
        log = pl_module.log

        @torch.compiler.disable  # type: ignore[untyped-decorator]
        @wraps(log)
        def heard(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
            if self._passes_on:
                log(name, value, *args, **kwargs)
            if not self._in_batch:
                return
            # What is logged for steps and epochs goes by two names.
            if self._monitor in (name, f"{name}_epoch"):
                self._values[-1] = _number(value)
            elif "loss" in name.lower() and (number := _number(value)) is not None:
                self._losses.setdefault(name, []).append(number)

        pl_module.log = heard  # type: ignore[method-assign]
        self._module = pl_module

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        self.listen(pl_module)

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        """Expect a value."""
        self._values.append(None)
        self._in_batch = True

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Take what is logged from here on as of no batch."""
        self._in_batch = False

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """Listen no more."""
        self._close()

    def teardown(self, *args: Any, **kwargs: Any) -> None:
        """Listen no more."""
        self._close()

    def _close(self) -> None:
        if self._module is not None:
            del self._module.log
            self._module = None


def _number(value: Any) -> float | None:
    """Return what a batch contributed; ``None`` for a metric that has no value of the batch."""
    if isinstance(value, Metric):
        # The value that `forward` returned, which is what Lightning logs of a step; a metric that
        # was only updated has none.
        value = value._forward_cache
    if isinstance(value, torch.Tensor):
        return float(value) if value.numel() == 1 else None
    return float(value) if isinstance(value, Real) else None
