"""Accuracy over a stream, forgetting and transfer, from the matrix of scores.

All functions take the matrix `a` that :class:`~greentrain.metrics.AccuracyMatrix` computes:
`a[i, j]` is the score on experience `j` after experience `i`, both counted from 0. A matrix that
is not square raises a ``ConfigurationError``. Below, `t` is the last experience after which a
score was measured. If a required score was not measured, or the stream is too short, the result is
NaN, never 0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from greentrain.errors import ConfigurationError


def average_accuracy(matrix: Tensor) -> float:
    """Return the mean score on all experiences seen so far, after the last of them.

    ``ACC = mean of a[t, j] over j <= t`` (Lopez-Paz and Ranzato 2017, section 2). Avalanche's
    stream accuracy differs: it is over the samples of all experiences, unseen ones too.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean; NaN if one of the scores was not measured.

    Example:
        >>> average_accuracy(torch.tensor([[0.75, math.nan], [0.5, 1.0]]))
        0.75
    """
    return float(_seen(matrix)[-1:].mean())


def anytime_accuracy(matrix: Tensor) -> float:
    """Return the mean, over the whole stream, of the average accuracy after each experience.

    ``mean over i <= t of mean of a[i, j] over j <= i``: the "average incremental accuracy" of
    Rebuffi et al. 2017 (iCaRL), with equal weights of the experiences.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean; NaN if a score on an experience already seen was not measured.

    Example:
        >>> anytime_accuracy(torch.tensor([[0.5, math.nan], [0.5, 1.0]]))
        0.625
    """
    seen = _seen(matrix)
    counts = torch.arange(1, len(seen) + 1)
    return float((seen.tril().sum(dim=1) / counts).mean())


def forgetting(matrix: Tensor) -> float:
    """Return the mean fall of old experiences below their best earlier score.

    ``mean over j < t of (max over i < t of a[i, j]) - a[t, j]`` (Chaudhry et al. 2018).
    It is negative if later experiences helped. Scores before an experience was learned count too,
    if they were measured.

    Other libraries, by their code: Renate has the same, but 0 for one experience. Avalanche takes
    the score right after learning instead of the best, which is the negative of
    :func:`backward_transfer`. Mammoth takes the best of all rows, including the last one, with 0
    for missing scores, so its result is never negative.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean, positive if something was forgotten. The maximum is over the measured scores.
        NaN if one of ``a[t, j]`` was not measured, if an old experience was never measured before,
        or with fewer than two experiences.

    Example:
        >>> forgetting(torch.tensor([[0.75, math.nan], [0.5, 1.0]]))
        0.25
    """
    seen = _seen(matrix)
    if len(seen) < 2:
        return math.nan
    best = seen[:-1, :-1].nan_to_num(nan=-math.inf).amax(dim=0)
    best[best == -math.inf] = math.nan
    return float((best - seen[-1, :-1]).mean())


def backward_transfer(matrix: Tensor) -> float:
    """Return the mean effect of later experiences on the scores of earlier ones.

    ``BWT = mean over j < t of a[t, j] - a[j, j]`` (Lopez-Paz and Ranzato 2017, section 2), as in
    Avalanche, Renate and Mammoth. It is at least the negative of :func:`forgetting`, and equal to
    it if each experience had its best score right after it was learned.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean, negative if something was forgotten; NaN if one of the scores was not measured,
        or with fewer than two experiences.

    Example:
        >>> backward_transfer(torch.tensor([[0.75, math.nan], [0.5, 1.0]]))
        -0.25
    """
    seen = _seen(matrix)
    return float((seen[-1:] - seen.diagonal())[:, :-1].mean())


def forward_transfer(matrix: Tensor, baseline: Tensor) -> float:
    """Return the mean effect of earlier experiences on the scores of later, unseen ones.

    ``FWT = mean over 0 < j <= t of a[j - 1, j] - b[j]`` (Lopez-Paz and Ranzato 2017, section 2), as
    in Avalanche, Renate and Mammoth, which all use a baseline at random initialisation.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``; each experience has to be measured
            before it is learned, too.
        baseline: `b`, the scores of the randomly initialised model on each experience; shape
            ``(experiences,)``.

    Returns:
        The mean; NaN if one of the scores was not measured, or with fewer than two experiences.

    Raises:
        ConfigurationError: If the matrix is not square or the baseline of another length.

    Example:
        >>> forward_transfer(torch.tensor([[0.75, 0.5], [0.5, 1.0]]), torch.tensor([0.25, 0.25]))
        0.25
    """
    if baseline.shape != matrix.shape[1:]:
        raise ConfigurationError(
            f"the baseline has shape {tuple(baseline.shape)} and the matrix "
            f"{tuple(matrix.shape)}; the baseline has one score for each column of the matrix"
        )
    seen = _seen(matrix)
    untrained = baseline.detach().cpu().double()[: len(seen)]
    return float((seen.diagonal(offset=1) - untrained[1:]).mean())


def _seen(matrix: Tensor) -> Tensor:
    """Return the part of the matrix up to the last experience that was learned."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ConfigurationError(
            f"the matrix has shape {tuple(matrix.shape)}; it must be square, a row and a column "
            "for each experience"
        )
    scores = matrix.detach().cpu().double()
    learned = (~scores.isnan()).any(dim=1).nonzero()
    count = int(learned[-1]) + 1 if len(learned) else 0
    return scores[:count, :count]
