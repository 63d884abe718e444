"""Which samples the batches of an update are made of: one loader, however many experiences."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    RandomSampler,
    Sampler,
)

from greentrain.control import Action, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.memory import SampleList, concat, size
from greentrain.training.data import UpdateData

OURS = ("dataset", "shuffle", "batch_sampler", "generator")
"""Loader options that greentrain sets, because they are what an update mode is."""
_TRAINING_ONLY = ("sampler", "drop_last")
_DEFAULT_BATCH_SIZE = 32


def check_loader(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the user's loader options, and return them with a batch size.

    Args:
        options: Options of each ``DataLoader``. ``sampler`` is a callable that gets the dataset of
            an update and returns a ``Sampler`` of it.

    Raises:
        ConfigurationError: If one of them is greentrain's to set, or cannot be used.
    """
    taken = sorted(set(OURS) & set(options))
    if taken:
        raise ConfigurationError(
            f"loader has {', '.join(taken)}, which the update mode decides; an order of your own "
            "is sampler=, a callable that gets the dataset and returns a Sampler"
        )
    sampler = options.get("sampler")
    if sampler is not None and (isinstance(sampler, Sampler) or not callable(sampler)):
        raise ConfigurationError(
            f"loader has a {type(sampler).__name__} as sampler, which cannot fit datasets that "
            "change; give a callable that gets the dataset and returns a Sampler"
        )
    checked = {"batch_size": _DEFAULT_BATCH_SIZE, **options}
    batch_size = checked["batch_size"]
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ConfigurationError(f"batch_size is {batch_size!r}; it is a whole number, 1 or more")
    try:
        look_loader(SampleList([0]), checked)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"a DataLoader refuses the options of loader: {error}") from error
    return checked


def train_loader(
    action: Action, batch: UpdateData, *, loader: Mapping[str, Any], seed: int
) -> DataLoader[Any]:
    """Build the one loader of an update; a pass over it is an epoch.

    A full retraining passes over all that is held, a warm start over new and stored samples alike,
    a replay over the new ones, each batch filled up to the same number of stored ones. Where a
    buffer holds only some of the past, a warm start fills each batch up, too: the stored samples
    stand for all that there have been, and the new ones get no more than their share of all.

    Args:
        action: The action.
        batch: What there is to train on.
        loader: Options of each ``DataLoader``, as :func:`check_loader` returned them.
        seed: Seed of the order of the samples.

    Raises:
        ConfigurationError: If there is nothing to train on, or the user's sampler cannot be used.
    """
    share = 0.5 if action.mode is UpdateMode.REPLAY else batch.share_new
    stands_for_more = action.mode is UpdateMode.WARM_START and batch.n_past > batch.n_stored
    mixes = batch.n_stored > 0 and (action.mode is UpdateMode.REPLAY or stands_for_more)
    whole = action.mode is UpdateMode.FULL_RETRAIN
    dataset = batch.held if whole else concat([batch.new, batch.stored])
    first = batch.new if mixes else dataset
    if not size(first):
        raise ConfigurationError(f"there is no sample for {action} to train on; it needs 1 or more")
    batches = MixedBatches(
        _sampler(first, loader.get("sampler")),
        n_first=size(first),
        n_stored=batch.n_stored if mixes else 0,
        share=share,
        batch_size=loader["batch_size"],
        drop_last=bool(loader.get("drop_last", False)),
        seed=seed,
    )
    rest = {key: value for key, value in loader.items() if key not in _BATCHING}
    return DataLoader(dataset, batch_sampler=batches, **rest)


def look_loader(dataset: Dataset[Any], loader: Mapping[str, Any]) -> DataLoader[Any]:
    """Build the loader of a look: every sample once, in the order of the dataset."""
    rest = {key: value for key, value in loader.items() if key not in _TRAINING_ONLY}
    return DataLoader(dataset, **rest)


class MixedBatches(Sampler[list[int]]):
    """Batches in an order, some of each drawn from stored samples where there are any.

    The order is a sampler's, one pass at a time. Among several ranks each takes every so-many-th
    sample of it and draws stored samples of its own; where the samples cannot be shared out evenly,
    the first ones come a second time, so that all ranks have as many batches. Everything follows
    from the seed and the number of passes before, alike on all ranks.

    Args:
        sampler: Gives the order of the first samples of the joined dataset.
        n_first: How many these are.
        n_stored: Stored samples that follow them in the joined dataset, drawn uniformly with
            replacement; 0 for none to mix in.
        share: Share of a batch that the first samples have where stored ones are mixed in; one of
            either at least.
        batch_size: Samples in a batch of one rank.
        drop_last: Whether a last batch that is not full is left out.
        seed: Seed of order and draws.

    Attributes:
        ranks: Processes that share the samples; :meth:`batches` of it is the length.

    Example:
        >>> from torch.utils.data import SequentialSampler
        >>> order = SequentialSampler(range(3))
        >>> mixed = MixedBatches(order, n_first=3, n_stored=100, batch_size=4, seed=0)
        >>> [[index if index < 3 else "stored" for index in batch] for batch in mixed]
        [[0, 1, 'stored', 'stored'], [2, 'stored']]
    """

    def __init__(
        self,
        sampler: Sampler[int],
        *,
        n_first: int,
        n_stored: int = 0,
        share: float = 0.5,
        batch_size: int,
        drop_last: bool = False,
        seed: int,
    ) -> None:
        self.sampler = sampler  # by this name Lightning finds and calls a `set_epoch`
        self.ranks = 1
        self._n_first, self._n_stored = n_first, n_stored
        self._taken = max(1, int(share * batch_size)) if n_stored else batch_size
        self._filled_up = max(1, batch_size - self._taken) / self._taken
        self._drop_last = drop_last
        self._seed = seed
        self._passes = 0

    def batches(self, ranks: int) -> int:
        """Return the batches of a pass, on each of a number of ranks."""
        each = math.ceil(len(self.sampler) / ranks)  # type: ignore[arg-type]
        return each // self._taken if self._drop_last else math.ceil(each / self._taken)

    def __len__(self) -> int:
        return self.batches(self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        rank = torch.distributed.get_rank() if self.ranks > 1 else 0
        seed = self._seed + self._passes
        self._passes += 1
        mine = self._order(seed)[rank :: self.ranks]
        generator = torch.Generator().manual_seed(seed)
        for start in range(0, len(self) * self._taken, self._taken):
            taken = mine[start : start + self._taken]
            yield taken + self._draw(len(taken), rank, generator)

    def _order(self, seed: int) -> list[int]:
        """Return the order of a pass, filled up so that each rank gets as many samples."""
        # A sampler without a generator of its own draws from the global one, which may stand
        # elsewhere on each rank.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            order = list(itertools.islice(self.sampler, len(self.sampler)))  # type: ignore[arg-type]
        return list(itertools.islice(itertools.cycle(order), self._filled(len(order))))

    def _filled(self, samples: int) -> int:
        return math.ceil(samples / self.ranks) * self.ranks

    def _draw(self, taken: int, rank: int, generator: torch.Generator) -> list[int]:
        if not self._n_stored:
            return []
        # Every rank draws for all of them and keeps its part: one seed, and no two parts alike.
        shape = (self.ranks, math.ceil(self._filled_up * taken))
        drawn = torch.randint(self._n_stored, shape, generator=generator)[rank]
        return (drawn + self._n_first).tolist()


_BATCHING = ("batch_size", *_TRAINING_ONLY)


def _sampler(dataset: Dataset[Any], make: Any) -> Sampler[int]:
    if make is None:
        return RandomSampler(dataset)  # type: ignore[arg-type]
    sampler = make(dataset)
    if isinstance(sampler, DistributedSampler):
        raise ConfigurationError(
            "the sampler of loader returned a DistributedSampler; return one of all samples, which "
            "greentrain shares out among the ranks"
        )
    try:
        iter(sampler)
        length = len(sampler)
    except TypeError as error:
        raise ConfigurationError(
            f"the sampler of loader returned a {type(sampler).__name__}; it has to return a "
            "Sampler with a length"
        ) from error
    if not length:
        raise ConfigurationError("the sampler of loader returned one of length 0; it is 1 or more")
    return sampler  # type: ignore[no-any-return]
