"""The matrix of scores from which forgetting and transfer are computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from greentrain.errors import ConfigurationError
from greentrain.units import is_whole


class AccuracyMatrix(Metric):
    """Scores of a model on each experience, after each experience.

    Row `i` is the model after experience `i`, and column `j` its score on the held-out data of
    experience `j`, both counted from 0 (Lopez-Paz and Ranzato 2017, section 2). The score is
    accuracy or any other metric for which higher is better; negate a loss. The matrix grows with
    each experience and is saved in the ``state_dict``. It is averaged over the ranks of a
    distributed run, all of which have to measure the same cells.

    Example:
        >>> matrix = AccuracyMatrix()
        >>> matrix.update(after=0, on=0, value=0.75)
        >>> matrix.update(after=1, on=0, value=0.5)
        >>> matrix.update(after=1, on=1, value=1.0)
        >>> matrix.compute()
        tensor([[0.7500,    nan],
                [0.5000, 1.0000]])
    """

    is_differentiable = False
    higher_is_better = True
    # Otherwise `forward` would add a matrix of one cell to a larger one.
    full_state_update = True

    matrix: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("matrix", torch.empty(0, 0), dist_reduce_fx=_mean_of_ranks, persistent=True)

    def update(self, after: int, on: int, value: float | Tensor) -> None:
        """Enter one score; a later score of the same cell replaces it.

        Args:
            after: Position of the experience that was learned last.
            on: Position of the experience that the score was measured on.
            value: The score.

        Raises:
            ConfigurationError: If an experience is not a whole number of 0 or more, or the score
                is not finite.
        """
        for name, index in (("after", after), ("on", on)):
            if not is_whole(index):
                raise ConfigurationError(
                    f"{name} is {index!r}; it must be the position of an experience, 0 or more"
                )
        score = float(value)
        if not math.isfinite(score):
            raise ConfigurationError(
                f"value is {score}; it must be a finite number: leave out what was not measured"
            )
        self.matrix = _grown(self.matrix, 1 + max(after, on))
        self.matrix[after, on] = score

    def compute(self) -> Tensor:
        """Return the scores.

        Returns:
            Shape ``(experiences, experiences)``, NaN where nothing was measured.
        """
        return self.matrix

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        # torchmetrics converts a matrix of one cell to a scalar.
        wrapped = super()._wrap_compute(compute)
        return lambda: wrapped().reshape(len(self.matrix), len(self.matrix))

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        # Otherwise torchmetrics treats a loaded matrix as empty, and returns what it computed
        # before.
        self._update_count = int((~self.matrix.isnan()).sum())
        self._computed = None


def _grown(matrix: Tensor, size: int) -> Tensor:
    # Always a copy, so results of compute() and state_dict() do not change afterwards.
    grown = matrix.new_full((max(size, len(matrix)),) * 2, math.nan)
    grown[: len(matrix), : len(matrix)] = matrix
    return grown


def _mean_of_ranks(stacked: Tensor) -> Tensor:
    return stacked.nanmean(dim=0)
