"""Compare two models by a metric that was measured on the same blocks of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torchmetrics import Metric

from greentrain.evaluation.metric_states import bootstrap_error, value_of

_CLOSE = 1e-4  # the metric of a validation has single precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A metric on a dataset.

    Args:
        value: The metric, as the model logs it.
        blocks: For consecutive parts of the dataset, the number of samples and the metric on them.
        loss: A loss that the model logs next to it; ``None`` if no loss is logged for each batch.
        features: Features of the samples by their kind, if they were captured.
        states: The torchmetrics object on each block, if the model logs one.
    """

    value: float
    blocks: tuple[tuple[int, float], ...] = ()
    loss: float | None = None
    features: Mapping[str, torch.Tensor] = field(default_factory=dict, compare=False)
    states: tuple[Metric, ...] = field(default=(), compare=False, repr=False)

    @property
    def sizes(self) -> list[int]:
        """Samples of each block."""
        return [size for size, _ in self.blocks]

    @property
    def samples(self) -> int:
        """Samples in the blocks."""
        return sum(self.sizes)

    @property
    def is_mean(self) -> bool:
        """True if the value is the mean of its blocks, as accuracy and loss are."""
        return not self.blocks or _close(self.value, mean(self.blocks))

    @property
    def standard_error(self) -> float:
        """The standard error of the value, from its blocks.

        By the bootstrap, if the value is no mean of its blocks and their states are known.
        """
        if self.states and not self.is_mean:
            return bootstrap_error(self.states)
        return standard_error(self.sizes, [each for _, each in self.blocks])


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The gain of a successor, on samples that both models were measured on.

    Args:
        gain: Improvement of the metric.
        sd: Its standard error.
        worse: Whether the metric got worse by more than one standard error.
    """

    gain: float
    sd: float
    worse: bool


class MetricHistory:
    """Keep the metrics that updates reached, oriented so that higher is better.

    Args:
        more_is_better: Whether a larger metric is a better one.

    Attributes:
        last: The metric after the last kept update, oriented; ``None`` before the first.
        best: The best metric after any kept update, oriented; ``None`` before the first.

    Example:
        >>> loss = MetricHistory(more_is_better=False)
        >>> loss.add(0.5), loss.add(0.75)
        (None, None)
        >>> loss.last, loss.best
        (-0.75, -0.5)
    """

    def __init__(self, *, more_is_better: bool) -> None:
        self._sign = 1.0 if more_is_better else -1.0
        self.last: float | None = None
        self.best: float | None = None

    def oriented(self, metric: float | None) -> float | None:
        """Return a metric oriented so that higher is better; ``None`` if unknown or not finite."""
        return self._sign * metric if metric is not None and math.isfinite(metric) else None

    def ceiling(self) -> float | None:
        """Return the best possible value: 1 for nearly every metric, 0 for every loss.

        A larger metric that is negative, such as a log-likelihood, is a loss with another sign.
        ``None`` if an even better value was reached, or none was reached yet.
        """
        if self.best is None:
            return None
        ceiling = 1.0 if self._sign > 0 and self.best >= 0 else 0.0
        return None if self.best > ceiling else ceiling

    def compare(self, before: Measured, after: Measured) -> Comparison:
        """Compare two models that were measured on the same blocks.

        The standard error is that of the paired blocks plus the change by one sample: two models
        that agree on 32 samples may still differ on others.

        Raises:
            ValueError: If the blocks are not of the same samples.
        """
        gain, error = difference(before, after, sign=self._sign)
        return Comparison(
            gain=gain,
            sd=math.hypot(error, _resolution(before, self._sign)),
            worse=_is_worse(before, after, gain, error),
        )

    def before(self, metric: float, gain: float | None) -> float | None:
        """Return the metric before a gain; ``None`` if the gain is unknown."""
        return None if gain is None else metric - self._sign * gain

    def add(self, metric: float) -> None:
        """Record the metric after an update that was kept."""
        self.last = self._sign * metric
        self.best = self.last if self.best is None else max(self.best, self.last)

    def state_dict(self) -> dict[str, Any]:
        """Return the last and the best metric as plain values."""
        return {"last": self.last, "best": self.best}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self.last, self.best = state["last"], state["best"]


def combine(parts: Sequence[Measured], *, whole: Callable[[], float] | None = None) -> Measured:
    """Return the metric on several datasets as on one.

    It is the mean over all blocks if the metric is a mean over samples. Otherwise it is measured
    on all datasets at once.

    Args:
        parts: The metric on each dataset.
        whole: Measures the metric on all datasets at once. Called only if it is no mean over
            samples. Without it, the metric of the joined states of all blocks is returned then,
            or the mean if the states are unknown.

    Example:
        >>> past = Measured(value=0.5, blocks=((10, 0.5),))
        >>> combine([past, Measured(value=0.8, blocks=((20, 0.8),))]).value
        0.7
    """
    blocks = tuple(block for part in parts for block in part.blocks)
    states = tuple(state for part in parts for state in part.states)
    if len(states) < len(blocks):
        states = ()
    average = value = mean(blocks)
    if len(parts) == 1:
        value = parts[0].value
    elif states:
        value = value_of(states)
    is_mean = _close(value, average) and all(part.is_mean for part in parts)
    if len(parts) > 1 and whole is not None and not is_mean:
        value = whole()
    if _close(value, average):
        value = round(average, 12)
    return Measured(value=value, blocks=blocks, states=states)


def mean(blocks: Sequence[tuple[int, float]]) -> float:
    """Return the mean of blocks, weighted by their samples; NaN without a sample."""
    total = sum(size for size, _ in blocks)
    return math.fsum(size * value for size, value in blocks) / total if total else math.nan


def worse(before: Measured, after: Measured, *, sign: float) -> bool:
    """Return whether a metric got worse by more than one standard error.

    Both models are measured on the same samples in the same blocks, and the blocks are compared in
    pairs. So the difficulty of single samples cancels out.

    Args:
        before: The metric of the earlier model.
        after: The metric of the later model.
        sign: 1 if more of the metric is better, -1 if less is.

    Returns:
        Whether ``sign * (after - before) < -se``. ``se`` is the standard error of the
        :func:`difference`, and 0 for fewer than two pairs. A metric that is not finite is worse.

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
    return _is_worse(before, after, *difference(before, after, sign=sign))


def difference(before: Measured, after: Measured, *, sign: float) -> tuple[float, float]:
    """Return the improvement of a metric, and its standard error.

    The standard error is that of the paired blocks. If the metric is no mean over samples, it is
    from a bootstrap of the same blocks.

    Args:
        before: The metric of the earlier model.
        after: The metric of the later model, on the same blocks.
        sign: 1 if more of the metric is better, -1 if less is.

    Raises:
        ValueError: If the blocks are not of the same samples.

    Example:
        >>> before = Measured(value=0.8, blocks=((10, 0.7), (10, 0.9)))
        >>> after = Measured(value=0.9, blocks=((10, 0.9), (10, 0.9)))
        >>> gain, error = difference(before, after, sign=1)
        >>> round(gain, 9), round(error, 9)
        (0.1, 0.1)
    """
    if before.sizes != after.sizes:
        raise ValueError("before and after were not measured in the same blocks")
    gain = sign * (after.value - before.value)
    if before.states and after.states and not (before.is_mean and after.is_mean):
        return gain, bootstrap_error(before.states, after.states)
    values = zip(before.blocks, after.blocks, strict=True)
    differences = [new - old for (_, old), (_, new) in values]
    return gain, standard_error(before.sizes, differences)


def standard_error(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Return the standard error of a mean of blocks that is weighted by their sizes.

    ``sqrt(k / (k - 1) * sum((w_i * (x_i - mean)) ** 2))`` with ``w_i`` the share of the samples in
    block ``i`` of ``k``: the ratio estimator of Cochran 1977, "Sampling Techniques", section 6.4.
    Gatz & Smith 1995 found it nearest to the bootstrap. For blocks of one size it is the usual
    ``s / sqrt(k)``.

    Args:
        sizes: Samples of each block.
        values: The value of each block; values that are not finite are left out.

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


def _is_worse(before: Measured, after: Measured, gain: float, error: float) -> bool:
    if not math.isfinite(after.value):
        return True
    if not math.isfinite(before.value):
        return False
    return -gain > error + 1e-9 * abs(before.value)  # rounding must not separate equal numbers


def _resolution(measured: Measured, sign: float) -> float:
    """Return the change of a metric by one sample: its distance to 0, or to 1, per sample."""
    if not measured.samples:
        return 0.0
    within = sign > 0 and 0.0 <= measured.value <= 1.0
    distance = max(abs(measured.value), 1.0 - measured.value) if within else abs(measured.value)
    return distance / measured.samples


def _close(value: float, average: float) -> bool:
    if math.isnan(value) and math.isnan(average):
        return True
    return math.isclose(value, average, rel_tol=_CLOSE, abs_tol=1e-9)
