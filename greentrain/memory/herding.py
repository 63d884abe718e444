"""A buffer that keeps, of each class, samples whose mean is that of the class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, default_collate

from greentrain.errors import ConfigurationError
from greentrain.memory.balanced import warn_if_crowded
from greentrain.memory.bounded import BoundedBuffer
from greentrain.memory.datasets import check_layout, fetch
from greentrain.memory.labels import CHUNK, read_labels
from greentrain.memory.layout import layout_of
from greentrain.memory.plans import Indices, Key, Offer, Plan, herded
from greentrain.memory.protocol import Sample

Features = Callable[[Any], torch.Tensor]


class HerdingBuffer(BoundedBuffer):
    """Keep, of each class, samples whose mean feature is close to that of all of the class.

    Rebuffi et al. 2017, "iCaRL", Algorithms 4 and 5. Features are scaled to length 1, as there;
    means are not scaled again. When places are freed for new classes, the samples chosen last go
    first. A class that comes again shares its places among its arrivals, each herded by itself.
    With fewer places than classes, as many as fit keep one sample each, chosen at random.

    Args:
        max_size: As of :class:`ReservoirBuffer`, and so are ``seed``, ``folder``, ``rank`` and
            ``world_size``. With several ranks the features have to be the same on each.
        features: Gives the features of a batch of inputs, ``(batch, features)``; by default the
            inputs themselves, flattened. May be assigned later, such as when the model is trained.
            It is called without gradients; mode and device of a model are the caller's to set.
        label: As of :class:`ClassBalancedBuffer`.

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
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(max_size, seed=seed, folder=folder, rank=rank, world_size=world_size)
        self.features = features
        self._label = label
        self._warned = False

    def groups(self, dataset: Dataset[Sample], origin: str) -> tuple[list[Key], Indices]:
        """Return the classes of the samples, those of each experience apart."""
        labels, places = read_labels(dataset, self._label)
        return [(label, origin) for label in labels], places

    def plan(self, offer: Offer, dataset: Dataset[Sample], random: np.random.Generator) -> Plan:
        """See :func:`~greentrain.memory.plans.herded`."""
        labels = [label for label, _ in offer.keys]
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
        self._warned = warn_if_crowded(len(numbers), offer.room, self._warned)
        classes = np.array([numbers[label] for label in labels], dtype=np.int64)

        def order(offered: Indices, n: int) -> Indices:
            return offered[herd(self._features_of(dataset, offered), n)]

        return herded(offer, classes, random, order)

    def _features_of(self, dataset: Dataset[Sample], indices: Indices) -> torch.Tensor:
        features = self.features or flattened
        usual = layout_of(fetch(dataset, [0])[0])
        parts = []
        with torch.no_grad():
            for start in range(0, len(indices), CHUNK):
                samples = fetch(dataset, indices[start : start + CHUNK].tolist())
                for sample in samples:
                    check_layout(layout_of(sample), usual)
                part = features(default_collate([input_of(sample) for sample in samples]))
                if not isinstance(part, torch.Tensor) or part.shape[:-1] != (len(samples),):
                    shape = list(part.shape) if isinstance(part, torch.Tensor) else type(part)
                    raise ConfigurationError(
                        f"features gave {shape} for {len(samples)} inputs; they are a tensor "
                        f"[{len(samples)}, features]"
                    )
                parts.append(part.cpu())
        return torch.cat(parts)


def herd(features: torch.Tensor, n: int) -> Indices:
    """Choose, one after another, the samples that bring the mean closest to that of all.

    Rebuffi et al. 2017, Algorithm 4: with features of length 1 and their mean mu, the k-th choice
    minimises ``|mu - (phi(x) + sum of those chosen) / k|`` over the samples not chosen yet.

    Args:
        features: Features ``(samples, features)``.
        n: How many to choose.

    Returns:
        The chosen samples in order, ``(n,)``; of equally good ones the first.

    Example:
        >>> herd(torch.tensor([[0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]), 3).tolist()
        [1, 0, 2]
    """
    # Squared, without what is the same for all x, and times k: 2 phi . (S - k mu) + |phi|^2.
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


def input_of(sample: Sample) -> Any:
    """Return what a model gets of a sample: the first item, or a dict without its label."""
    if isinstance(sample, dict):
        inputs = {key: part for key, part in sample.items() if key != "label"}
        return next(iter(inputs.values())) if len(inputs) == 1 else inputs
    return sample[0] if isinstance(sample, (tuple, list)) else sample


def flattened(inputs: Any) -> torch.Tensor:
    """Return inputs as features, ``(batch, features)``.

    Raises:
        ConfigurationError: If they are not one tensor.
    """
    if not isinstance(inputs, torch.Tensor):
        raise ConfigurationError(
            f"inputs are a {type(inputs).__name__} in place of a tensor; say with features=... "
            "what to herd by"
        )
    return inputs.reshape(len(inputs), -1)
