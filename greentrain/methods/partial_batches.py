"""Batches with a fixed number of samples with labels, and more without."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from greentrain.errors import ConfigurationError
from greentrain.methods.pseudo_labels import has_label
from greentrain.units import is_whole


class PartialBatches(Sampler[list[int]]):
    """The batches of FixMatch: some samples with labels, and ``ratio`` times as many without.

    Give it to a ``DataLoader`` as its ``batch_sampler``. In usual batches few samples have labels
    where few of all have. Here each batch has ``labelled`` of them. Both kinds are chosen in random
    order, and again once all were chosen (Sohn et al. 2020, arXiv 2001.07685, section 2.2, where
    ``labelled`` is 64 and ``ratio`` is 7).

    Args:
        targets: The target of each sample of the dataset, ``(samples,)``; see
            :func:`~greentrain.methods.has_label`.
        labelled: Samples with labels in each batch.
        ratio: Samples without labels for each one with a label.
        steps: Batches of an epoch; by default as many as use each sample without a label once.
        seed: Seed of the order.

    Raises:
        ConfigurationError: If an argument cannot be used, or all samples have labels, or none has.

    Example:
        >>> targets = torch.tensor([0, -1, -1, 1, -1, -1])
        >>> batches = list(PartialBatches(targets, labelled=1, ratio=2))
        >>> len(batches), [len(each) for each in batches]
        (2, [3, 3])
        >>> sorted(batches[0][1:] + batches[1][1:])  # each without a label once
        [1, 2, 4, 5]
    """

    def __init__(
        self,
        targets: Tensor,
        *,
        labelled: int = 64,
        ratio: int = 7,
        steps: int | None = None,
        seed: int = 0,
    ) -> None:
        numbers = {"labelled": labelled, "ratio": ratio, "steps": 1 if steps is None else steps}
        for name, value in numbers.items():
            if not is_whole(value, 1):
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a whole number, 1 or more"
                )
        if not isinstance(targets, Tensor) or targets.ndim != 1:
            raise ConfigurationError(
                "targets must be a tensor with one target for each sample, such as those of a "
                "TensorDataset"
            )
        known = has_label(targets)
        self._known, self._others = (each.nonzero().flatten() for each in (known, ~known))
        if not len(self._known) or not len(self._others):
            what = "none" if not len(self._known) else "each"
            raise ConfigurationError(
                f"{what} of the {len(targets)} samples has a label, and a batch needs both kinds; "
                "label some samples first, or give a usual loader if all have labels"
            )
        self._labelled, self._unlabelled = labelled, labelled * ratio
        self._steps = -(-len(self._others) // self._unlabelled) if steps is None else steps
        self._generator = torch.Generator().manual_seed(seed)
        self._left = [torch.empty(0, dtype=torch.int64) for _ in range(2)]

    def __len__(self) -> int:
        """Return the number of batches of an epoch."""
        return self._steps

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the indices of each batch, those with labels first."""
        for _ in range(self._steps):
            with_labels = self._next(0, self._known, self._labelled)
            yield with_labels + self._next(1, self._others, self._unlabelled)

    def _next(self, kind: int, of: Tensor, count: int) -> list[int]:
        """Return the next samples of a kind, in an order that is shuffled after each pass."""
        while len(self._left[kind]) < count:
            order = of[torch.randperm(len(of), generator=self._generator)]
            self._left[kind] = torch.cat([self._left[kind], order])
        chosen, self._left[kind] = self._left[kind][:count], self._left[kind][count:]
        found: list[int] = chosen.tolist()
        return found
