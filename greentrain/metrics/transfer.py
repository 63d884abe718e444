"""Accuracy over a stream, forgetting and transfer, from the matrix of scores.

All take the matrix `a` that :class:`~greentrain.metrics.AccuracyMatrix` computes: `a[i, j]` is the
score on experience `j` after experience `i`, both counted from 0. Below, `t` is the last experience
after which anything was measured. A score that a definition needs and nobody measured makes the
result NaN, never 0; so does a stream that is too short for the question.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from greentrain.errors import ConfigurationError


def average_accuracy(matrix: Tensor) -> float:
    """Return the mean score on all experiences seen, after the last of them.

    ``ACC = mean of a[t, j] over j <= t`` (Lopez-Paz and Ranzato 2017, section 2). Avalanche's
    stream accuracy is another: over the samples of all experiences evaluated, unseen ones too.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean; NaN if one of the scores was not measured.

    Raises:
        ConfigurationError: If the matrix is not square.

    Example:
        >>> average_accuracy(torch.tensor([[0.75, math.nan], [0.5, 1.0]]))
        0.75
    """
    return float(_seen(matrix)[-1:].mean())


def anytime_accuracy(matrix: Tensor) -> float:
    """Return the mean, over the whole stream, of the average accuracy at each point of it.

    ``mean over i <= t of mean of a[i, j] over j <= i``: the "average incremental accuracy" of
    Rebuffi et al. 2017 (iCaRL), each experience weighing the same.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean; NaN if a score on an experience already seen was not measured.

    Raises:
        ConfigurationError: If the matrix is not square.

    Example:
        >>> anytime_accuracy(torch.tensor([[0.5, math.nan], [0.5, 1.0]]))
        0.625
    """
    seen = _seen(matrix)
    counts = torch.arange(1, len(seen) + 1)
    return float((seen.tril().sum(dim=1) / counts).mean())


def forgetting(matrix: Tensor) -> float:
    """Return by how much old experiences fell below the best score they ever had.

    ``mean over j < t of (max over i < t of a[i, j]) - a[t, j]`` (Chaudhry et al. 2018).
    Negative where later experiences helped. Scores before an experience was learned count too,
    where they were measured.

    Others, by their code: Renate has the same, but 0 for one experience. Avalanche takes the score
    right after learning instead of the best, which is the negative of :func:`backward_transfer`.
    Mammoth takes the best of all rows, the last among them and 0 for what was not measured, so it
    is never negative.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean, positive if something was forgotten. The maximum is taken over the scores that
        were measured; NaN if one of ``a[t, j]`` was not, if an old experience was never measured
        before, or with fewer than two experiences.

    Raises:
        ConfigurationError: If the matrix is not square.

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
    """Return what learning later experiences did to the scores on earlier ones.

    ``BWT = mean over j < t of a[t, j] - a[j, j]`` (Lopez-Paz and Ranzato 2017, section 2), as
    Avalanche, Renate and Mammoth have it. It is at least the negative of :func:`forgetting`, and
    equal to it where each experience had its best score right after it was learned.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``.

    Returns:
        The mean, negative if something was forgotten; NaN if one of the scores was not measured,
        or with fewer than two experiences.

    Raises:
        ConfigurationError: If the matrix is not square.

    Example:
        >>> backward_transfer(torch.tensor([[0.75, math.nan], [0.5, 1.0]]))
        -0.25
    """
    seen = _seen(matrix)
    return float((seen[-1:] - seen.diagonal())[:, :-1].mean())


def forward_transfer(matrix: Tensor, baseline: Tensor) -> float:
    """Return what learning earlier experiences did to the scores on later, unseen ones.

    ``FWT = mean over 0 < j <= t of a[j - 1, j] - b[j]`` (Lopez-Paz and Ranzato 2017, section 2), as
    Avalanche, Renate and Mammoth have it, all with a baseline at random initialisation.

    Args:
        matrix: Scores, shape ``(experiences, experiences)``, each experience measured before it
            is learned too.
        baseline: `b`, what the untrained model scores on each experience, at random
            initialisation; shape ``(experiences,)``.

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
    """Cut the matrix down to the experiences up to the last one that was learned."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ConfigurationError(
            f"the matrix has shape {tuple(matrix.shape)}; it is square, a row and a column for "
            "each experience"
        )
    scores = matrix.detach().cpu().double()
    learned = (~scores.isnan()).any(dim=1).nonzero()
    count = int(learned[-1]) + 1 if len(learned) else 0
    return scores[:count, :count]
