"""A metric with what it is made of, and whether one model does worse than another on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import wraps
from numbers import Real
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from torchmetrics import Metric

from greentrain.callbacks.base import Callback


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A metric on a dataset.

    Args:
        value: The metric, as the model logs it.
        blocks: For consecutive parts of the dataset, the number of samples and the metric on them.
    """

    value: float
    blocks: tuple[tuple[int, float], ...] = ()


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
    sizes = [size for size, _ in before.blocks]
    if sizes != [size for size, _ in after.blocks]:
        raise ValueError("before and after were not measured in the same blocks")
    if not math.isfinite(after.value):
        return True
    if not math.isfinite(before.value):
        return False
    values = zip(before.blocks, after.blocks, strict=True)
    differences = [new - old for (_, old), (_, new) in values]
    # Rounding must not tell two equal numbers apart.
    lost = sign * (before.value - after.value)
    return lost > standard_error(sizes, differences) + 1e-9 * abs(before.value)


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


class Listener(Callback):
    """Note what a module logs under a name for each batch of a validation.

    While the validation lasts, the module's ``log`` is wrapped on the instance. The class stays as
    it is, and everything is logged as ever.

    Args:
        monitor: The name.
        sizes: Samples of each batch.
    """

    def __init__(self, monitor: str, sizes: Sequence[int]) -> None:
        self._monitor = monitor
        self._sizes = sizes
        self._values: list[float | None] = []
        self._in_batch = False
        self._module: LightningModule | None = None

    @property
    def blocks(self) -> tuple[tuple[int, float], ...]:
        """Samples and value of each batch; empty unless all of them logged a value."""
        values = [value for value in self._values if value is not None]
        if len(values) < len(self._values):
            return ()
        return tuple(zip(self._sizes, values, strict=False))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen."""
        log = pl_module.log

        @torch.compiler.disable  # type: ignore[untyped-decorator]
        @wraps(log)
        def heard(name: str, value: Any, *args: Any, **kwargs: Any) -> None:
            log(name, value, *args, **kwargs)
            # What is logged for steps and epochs goes by two names.
            if self._in_batch and self._monitor in (name, f"{name}_epoch"):
                self._values[-1] = _number(value)

        pl_module.log = heard  # type: ignore[method-assign]
        self._module = pl_module

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
