"""A buffer that keeps samples of each class whose mean is close to the mean of the class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from greentrain.errors import ConfigurationError
from greentrain.memory.balanced import warn_if_crowded
from greentrain.memory.bounded import BoundedBuffer, Rank
from greentrain.memory.datasets import check_layout, fetch
from greentrain.memory.labels import CHUNK, read_labels
from greentrain.memory.layout import layout_of
from greentrain.memory.protocol import Sample
from greentrain.memory.retention import RetentionInput, equal_shares, members, ones_at
from greentrain.memory.sample_table import Indices, Key, RetentionPlan

Features = Callable[[Any], torch.Tensor]


class HerdingBuffer(BoundedBuffer):
    """Keep samples of each class whose mean feature is close to the mean of the whole class.

    Rebuffi et al. 2017, "iCaRL", Algorithms 4 and 5. As in the paper, features are scaled to
    length 1, and means are not scaled again. When places are freed for new classes, the samples
    chosen last go first. A class that arrives again shares its places among its arrivals, each of
    which is herded separately. With fewer places than classes, as many classes as fit keep one
    sample each, chosen at random.

    Args:
        max_size: As for :class:`ReservoirBuffer`, and so are ``seed``, ``folder``, ``rank`` and
            ``world_size``. With several ranks the features have to be the same on each.
        features: Function from a batch of inputs to its features, ``(batch, features)``; by
            default the inputs themselves, flattened. It may be assigned later, for instance after
            the model is trained. It is called without gradients; the caller sets mode and device
            of a model.
        label: As for :class:`ClassBalancedBuffer`.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> from torch.utils.data import TensorDataset
        >>> angles = torch.tensor([0.0, 0.4, 1.0, 0.6])  # their mean is about 0.5
        >>> points = torch.stack([angles.cos(), angles.sin()], dim=1)
        >>> buffer = HerdingBuffer(2)
        >>> buffer.add(TensorDataset(points, torch.zeros(4, dtype=torch.int64)), origin="first")
        >>> [round(float(torch.atan2(x[1], x[0])), 1) for x, _ in buffer.select(lambda _: True)]
        [0.4, 0.6]
    """

    def __init__(
        self,
        max_size: int | str,
        *,
        features: Features | None = None,
        label: Callable[[Sample], Any] | None = None,
        seed: int = 0,
        folder: str | Path | None = None,
        rank: Rank = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(max_size, seed=seed, folder=folder, rank=rank, world_size=world_size)
        self.features = features
        self._label = label
        self._warned = False

    def groups(self, dataset: Dataset[Sample], origin: str) -> tuple[list[Key], Indices]:
        """Return the classes of the samples, separately for each experience."""
        labels, places = read_labels(dataset, self._label)
        return [(label, origin) for label in labels], places

    def plan(self, given: RetentionInput) -> RetentionPlan:
        """Share the places equally among the classes, then among the arrivals of a class."""
        labels = [label for label, _ in given.table.keys]
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        self._warned = warn_if_crowded(len(numbers), given.capacity, self._warned)
        classes = np.array([numbers[label] for label in labels], dtype=np.int64)
        n_stored, n_new = given.counts()
        available = n_stored + n_new
        limits = np.bincount(classes, weights=available).astype(np.int64)
        if np.count_nonzero(limits) > given.capacity:
            chosen = given.random.choice(np.flatnonzero(limits), given.capacity, replace=False)
            limits = ones_at(chosen, len(limits))
        targets = np.zeros(len(labels), dtype=np.int64)
        shares = equal_shares(limits, given.capacity).tolist()
        for share, arrivals in zip(shares, members(classes, len(limits)), strict=True):
            # Shuffled, because with more arrivals than places any arrival may get none.
            mixed = given.random.permutation(arrivals)
            targets[mixed] = equal_shares(available[mixed], share)
        keeps, inserts = [np.arange(0)], [np.arange(0)]
        groups = zip(targets.tolist(), given.positions_by_group(), strict=True)
        for target, (stored, new) in groups:
            # Any beginning of the ordered exemplars of an arrival is a good choice.
            keeps.append(stored[:target])
            if len(new) and target:
                features = self._features_of(given.dataset, new)
                inserts.append(new[herd(features, min(target, len(new)))])
        return RetentionPlan(keep=np.sort(np.concatenate(keeps)), insert=np.concatenate(inserts))

    def _features_of(self, dataset: Dataset[Sample], indices: Indices) -> torch.Tensor:
        features = self.features or _flattened
        layout = layout_of(fetch(dataset, [0])[0])
        parts = []
        with torch.no_grad():
            for start in range(0, len(indices), CHUNK):
                samples = fetch(dataset, indices[start : start + CHUNK].tolist())
                for sample in samples:
                    check_layout(layout_of(sample), layout)
                part = features(default_collate([_input_of(sample) for sample in samples]))
                if not isinstance(part, torch.Tensor) or part.shape[:-1] != (len(samples),):
                    shape = list(part.shape) if isinstance(part, torch.Tensor) else type(part)
                    raise ConfigurationError(
                        f"features gave {shape} for {len(samples)} inputs; they are a tensor "
                        f"[{len(samples)}, features]"
                    )
                parts.append(part.cpu())
        return torch.cat(parts)


def herd(features: torch.Tensor, n: int) -> Indices:
    """Choose, one after another, the samples that bring the mean closest to the mean of all.

    Rebuffi et al. 2017, Algorithm 4: with features of length 1 and their mean mu, the k-th choice
    minimises ``|mu - (phi(x) + sum of those chosen) / k|`` over the samples not chosen yet.

    Args:
        features: Features ``(samples, features)``.
        n: Number of samples to choose.

    Returns:
        The chosen samples in order, ``(n,)``; the first of equally good ones.

    Example:
        >>> herd(torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), 3).tolist()
        [1, 0, 2]
    """
    # Squared, times k, without what is the same for all x: 2 phi . (S - k mu) + |phi|^2.
    phi = torch.nn.functional.normalize(
        features if features.is_floating_point() else features.float(), dim=1
    )
    phi = phi.to(torch.promote_types(phi.dtype, torch.float32))
    mean, squares = phi.mean(dim=0), phi.square().sum(dim=1)
    off = torch.zeros_like(mean)  # sum of those chosen, less as many means
    chosen = []
    for _ in range(n):
        off -= mean
        costs = torch.addmv(squares, phi, off, alpha=2.0)
        best = int(costs.argmin())
        chosen.append(best)
        squares[best] = torch.inf
        off += phi[best]
    return np.array(chosen, dtype=np.int64)


def _input_of(sample: Sample) -> Any:
    """Return the input of a model: a sample's first item, or a dict without its label."""
    if isinstance(sample, dict):
        inputs = {key: part for key, part in sample.items() if key != "label"}
        return next(iter(inputs.values())) if len(inputs) == 1 else inputs
    return sample[0] if isinstance(sample, (tuple, list)) else sample


def _flattened(inputs: Any) -> torch.Tensor:
    if not isinstance(inputs, torch.Tensor):
        raise ConfigurationError(
            f"inputs are a {type(inputs).__name__}, and herding needs one tensor; say with "
            "features=... how to compute it"
        )
    return inputs.reshape(len(inputs), -1)
