"""Measure the distance between two samples of features."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

import torch
from torch.nn.functional import pdist

MOST_ROWS = 256
"""Largest number of rows compared of each sample; with 400 features, they take 10 to 20 ms."""
FEWEST_ROWS = 8
"""Smallest number of rows of each sample; with fewer, chance alone would resemble drift."""
_DIRECTIONS = 64
_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The distance of new data from old.

    Args:
        value: The distance; about 0 for samples of one distribution.
        measure: Name of the distance (``"MMD2"`` or ``"KS"``), and of the features if known. Only
            values with the same name can be compared.
    """

    value: float
    measure: str


def drift_score(old: torch.Tensor, new: torch.Tensor) -> Drift | None:
    """Return the distance of a sample of new features from a sample of old features.

    The default is the unbiased squared maximum mean discrepancy, :func:`mmd2`. If most rows are
    equal, the median distance that it needs is 0. Then it is the largest Kolmogorov-Smirnov
    statistic, :func:`largest_ks`. Neither changes if all features are scaled or moved alike, so
    models can be compared.

    Args:
        old: Features ``(samples, ...)``; all dimensions but the first are flattened. Rows that are
            not finite are left out, and at most :data:`MOST_ROWS` are used, at even distances.
        new: The same for the new samples, with as many features.

    Returns:
        The drift. ``None`` if fewer than :data:`FEWEST_ROWS` rows of a sample remain, or the
        samples differ in their number of features.

    Example:
        >>> there = torch.linspace(0, 1, 50).reshape(50, 1)
        >>> drift = drift_score(there, there + 10)
        >>> drift.measure, round(drift.value, 1)
        ('MMD2', 1.1)
        >>> drift_score(there, there[:5]) is None
        True
    """
    samples = [_rows(each) for each in (old, new)]
    if len({each.shape[1] for each in samples}) > 1 or min(map(len, samples)) < FEWEST_ROWS:
        return None
    both = torch.cat(samples)
    # Neither measure changes by it, and squares of huge values stay finite.
    largest = both.abs().max()
    if float(largest) > 0:
        both = both / largest
    both = both - both.mean(0)
    first, second = both[: len(samples[0])], both[len(samples[0]) :]
    value = mmd2(first, second)
    if value is not None:
        return Drift(value=value, measure="MMD2")
    return Drift(value=largest_ks(first, second), measure="KS")


def mmd2(old: torch.Tensor, new: torch.Tensor) -> float | None:
    """Return the unbiased squared maximum mean discrepancy of two samples.

    Gretton et al. 2012, "A Kernel Two-Sample Test", equation 3. It is the mean of the kernel
    ``k(x, y) = exp(-|x - y|^2 / (2 * s^2))`` over pairs within the old sample, plus the mean within
    the new one, less twice the mean across. The kernel is at most 1, so the result is
    at most 2. Two distant clouds give 1.1 or 1.2. The result can be slightly below 0.

    ``s`` is the median distance of the pairs within a sample, of equally many rows of each. The
    usual heuristic (section 8 there) includes the pairs across. Then the drift itself widens the
    kernel, and the result first grows and then falls with the distance (0.98 and 0.79 for clouds of
    five normal features).

    Args:
        old: Features ``(old samples, features)``, two samples or more.
        new: Features ``(new samples, features)``, likewise.

    Returns:
        The squared discrepancy; ``None`` if the median distance is 0.
    """
    old, new = old.double(), new.double()
    within = pdist(old), pdist(new)
    n = min(len(old), len(new))
    alike = [
        distances if len(each) == n else pdist(each[:n])
        for each, distances in zip((old, new), within, strict=True)
    ]
    middle = torch.cat(alike).median()
    if not float(middle) > 0:
        return None
    old_kernel, new_kernel, across = (
        float(torch.exp(-0.5 * (distances / middle) ** 2).mean())
        for distances in (*within, torch.cdist(old, new))
    )
    return old_kernel + new_kernel - 2 * across


def largest_ks(old: torch.Tensor, new: torch.Tensor) -> float:
    """Return the largest two-sample Kolmogorov-Smirnov statistic over the features.

    More than 64 features are projected on 64 random directions, the same ones each time. The
    largest of many statistics is above 0 by chance alone: about 0.14 for 256 samples of each, 0.3
    for 64, and 0.8 for 8.

    Args:
        old: Features ``(old samples, features)``.
        new: Features ``(new samples, features)``.

    Returns:
        The largest distance between two distribution functions, in [0, 1].
    """
    # Importing it takes half a second, and it is rarely needed.
    stats = importlib.import_module("scipy.stats")
    if old.shape[1] > _DIRECTIONS:
        generator = torch.Generator().manual_seed(_SEED)
        directions = torch.randn(old.shape[1], _DIRECTIONS, generator=generator).to(old)
        old, new = old @ directions, new @ directions
    columns = zip(old.T.numpy(), new.T.numpy(), strict=True)
    found = (stats.ks_2samp(ours, theirs, method="asymp") for ours, theirs in columns)
    return max((float(each.statistic) for each in found), default=0.0)


def _rows(features: torch.Tensor) -> torch.Tensor:
    """Return at most :data:`MOST_ROWS` finite rows ``(samples, features)``, at even distances."""
    if features.ndim == 0 or features.numel() == 0:
        return torch.zeros(0, 0, dtype=torch.float64)
    rows = features.detach().reshape(len(features), -1).cpu().double()
    rows = rows[torch.isfinite(rows).all(1)]
    if len(rows) > MOST_ROWS:
        rows = rows[spread(len(rows), MOST_ROWS)]
    return rows


def spread(total: int, n: int) -> torch.Tensor:
    """Return ``n`` of the indices ``0 ... total - 1`` at even distances; all if there are fewer.

    Example:
        >>> spread(10, 4).tolist()
        [1, 3, 6, 8]
    """
    if total <= n:
        return torch.arange(total)
    return (2 * torch.arange(n) + 1) * total // (2 * n)
