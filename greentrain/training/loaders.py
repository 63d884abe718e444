"""Build the one loader of an update, with the batches of its update mode."""

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

from greentrain.callbacks.ranks import gather
from greentrain.control import Action, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.evaluation.fast_eval import ordered_loader
from greentrain.memory import SampleList, concat, size
from greentrain.training.data import UpdateData
from greentrain.units import is_whole

RESERVED = ("dataset", "shuffle", "batch_sampler", "generator")
"""Loader options that greentrain sets, because they define an update mode."""
_TRAINING_ONLY = ("sampler", "drop_last")
_DEFAULT_BATCH_SIZE = 32
_APART = 10**9
"""Between the seeds of two ranks: far more than an update has passes."""


def check_loader(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check the user's loader options, and return them with a batch size.

    Args:
        options: Options of each ``DataLoader``. ``sampler`` is a callable that receives the dataset
            of an update and returns a ``Sampler`` of it.

    Raises:
        ConfigurationError: If greentrain sets one of them itself, or one cannot be used.
    """
    taken = sorted(set(RESERVED) & set(options))
    if taken:
        raise ConfigurationError(
            f"loader has {', '.join(taken)}, which the update mode decides; for another order "
            "give sampler=, a callable that receives the dataset and returns a Sampler"
        )
    sampler = options.get("sampler")
    if sampler is not None and (isinstance(sampler, Sampler) or not callable(sampler)):
        raise ConfigurationError(
            f"loader has a {type(sampler).__name__} as sampler, which fits one dataset only, and "
            "each update has another; give a callable that takes the dataset and returns a Sampler"
        )
    checked = {"batch_size": _DEFAULT_BATCH_SIZE, **options}
    batch_size = checked["batch_size"]
    if not is_whole(batch_size, 1):
        raise ConfigurationError(
            f"batch_size is {batch_size!r}; it must be a whole number, 1 or more"
        )
    checked["batch_size"] = int(batch_size)
    try:
        ordered_loader(SampleList([0]), checked)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"a DataLoader refuses the options of loader: {error}") from error
    return checked


def train_loader(
    action: Action, data: UpdateData, *, loader: Mapping[str, Any], seed: int
) -> DataLoader[Any]:
    """Build the one loader of an update; a pass over it is an epoch.

    A full retraining passes over all held samples, a warm start over new and stored samples alike,
    and fine-tuning over the new ones alone.
    A replay passes over the new ones, and each batch has as many stored ones. If a bounded buffer
    holds only some of the past, a warm start mixes each batch, too. The stored samples then
    represent all past ones, and new ones get no more than their share of all samples.

    If each rank holds a part of the past data, it passes over its part, and over its share of the
    new ones.

    Args:
        action: The action.
        data: New and stored samples.
        loader: Options of each ``DataLoader``, as :func:`check_loader` returned them.
        seed: Seed of the order of the samples.

    Raises:
        ConfigurationError: If there is nothing to train on, or the user's sampler cannot be used.
    """
    share = 0.5 if action.mode is UpdateMode.REPLAY else data.share_new
    represents_more = action.mode is UpdateMode.WARM_START and data.n_past > data.n_stored
    mixes = data.n_stored > 0 and (action.mode is UpdateMode.REPLAY or represents_more)
    data = data.of_rank()
    if action.mode is UpdateMode.FULL_RETRAIN:
        dataset = data.held
    elif action.mode is UpdateMode.FINE_TUNE:
        dataset = data.new
    else:
        dataset = concat([data.new, data.stored])
    first = data.new if mixes else dataset
    if not size(first):
        raise ConfigurationError(
            f"there is no sample for {action} to train on; an update needs 1 or more"
        )
    batches = MixedBatches(
        _sampler(first, loader.get("sampler")),
        n_first=size(first),
        n_stored=size(data.stored) if mixes else 0,
        share=share,
        batch_size=loader["batch_size"],
        drop_last=bool(loader.get("drop_last", False)),
        seed=seed,
        of_rank=data.parts is not None,
    )
    rest = {key: value for key, value in loader.items() if key not in _BATCHING}
    return DataLoader(dataset, batch_sampler=batches, **rest)


class MixedBatches(Sampler[list[int]]):
    """Batches in an order; some samples of each batch are stored ones, if there are any.

    A sampler gives the order, one pass at a time. With several ranks, each takes every n-th sample
    of it, and has its own stored samples. If the samples cannot be shared evenly, the first ones
    come a second time, so that all ranks have as many batches. The seed and the number of earlier
    passes determine everything, alike on all ranks.

    If the dataset is that of one rank, the rank takes the whole order. Then the first samples of a
    rank that has fewer than others come again.

    A last batch of a single sample joins the batch before it: batch normalisation, for example,
    cannot train on one sample.

    Args:
        sampler: Gives the order of the first samples of the joined dataset.
        n_first: Their number.
        n_stored: Stored samples that follow them in the joined dataset, sampled uniformly with
            replacement; 0 for none.
        share: Share of the first samples in a batch with stored ones; at least one of each.
        batch_size: Samples in a batch of one rank.
        drop_last: Whether a last batch that is not full is left out.
        seed: Seed of the order and of the stored samples.
        of_rank: Whether the dataset is that of this rank; other ranks have other samples.

    Attributes:
        ranks: Processes that share the samples; the length is :meth:`batches` of it. Set it by
            :meth:`share_out`.

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
        of_rank: bool = False,
    ) -> None:
        self.sampler = sampler  # Lightning looks for `set_epoch` under this name
        self.ranks = 1
        self._n_first, self._n_stored = n_first, n_stored
        self._taken = max(1, int(share * batch_size)) if n_stored else batch_size
        self._filled_up = max(1, batch_size - self._taken) / self._taken
        self._drop_last = drop_last
        self._seed = seed
        self._of_rank = of_rank
        self._most = 0  # samples of the rank with most of them
        self._passes = 0

    def share_out(self, ranks: int) -> None:
        """Set the number of ranks; with samples of one rank, every rank has to call this."""
        self.ranks = ranks
        if self._of_rank:
            self._most = max(gather(len(self.sampler)))  # type: ignore[arg-type]

    def batches(self, ranks: int) -> int:
        """Return the batches of a pass, on each of a number of ranks."""
        each = self._each(ranks)
        if self._drop_last:
            return each // self._taken
        joins = not self._n_stored and each % self._taken == 1 < min(each, self._taken)
        return math.ceil(each / self._taken) - joins

    def __len__(self) -> int:
        return self.batches(self.ranks)

    def __iter__(self) -> Iterator[list[int]]:
        rank = torch.distributed.get_rank() if self.ranks > 1 else 0
        seed = self._seed + self._passes
        self._passes += 1
        mine = self._order(seed, rank)
        generator = torch.Generator().manual_seed(seed)
        last = len(self) - 1
        for number in range(last + 1):
            start = number * self._taken
            whole = number < last or self._drop_last
            taken = mine[start : start + self._taken if whole else None]
            yield taken + self._stored(len(taken), rank, generator)

    def _order(self, seed: int, rank: int) -> list[int]:
        """Return this rank's order of a pass, extended so that each rank gets as many samples."""
        # A sampler without a generator uses the global one, whose state may differ on each rank.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed + rank * _APART if self._of_rank else seed)
            order = list(itertools.islice(self.sampler, len(self.sampler)))  # type: ignore[arg-type]
        first, step = (0, 1) if self._of_rank else (rank, self.ranks)
        filled = self._each(self.ranks) * step
        return list(itertools.islice(itertools.cycle(order), first, filled, step))

    def _each(self, ranks: int) -> int:
        """Return the samples of a pass that each of a number of ranks takes in order."""
        return self._most if self._of_rank else math.ceil(len(self.sampler) / ranks)  # type: ignore[arg-type]

    def _stored(self, taken: int, rank: int, generator: torch.Generator) -> list[int]:
        if not self._n_stored:
            return []
        # Every rank samples for all of them and keeps its part: one seed, and no two parts alike.
        shape = (self.ranks, math.ceil(self._filled_up * taken))
        chosen = torch.randint(self._n_stored, shape, generator=generator)[rank]
        return (chosen + self._n_first).tolist()


_BATCHING = ("batch_size", *_TRAINING_ONLY)


def _sampler(dataset: Dataset[Any], make: Any) -> Sampler[int]:
    if make is None:
        return RandomSampler(dataset)  # type: ignore[arg-type]
    sampler = make(dataset)
    if isinstance(sampler, DistributedSampler):
        raise ConfigurationError(
            "the sampler of loader returned a DistributedSampler; return one of all samples: "
            "greentrain shares them among the ranks"
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
        raise ConfigurationError(
            "the sampler of loader returned one of length 0; it must be 1 or more"
        )
    return sampler  # type: ignore[no-any-return]
