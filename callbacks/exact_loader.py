"""A loader whose order and augmentation are a function of seed, epoch and index.

``torchdata`` 0.11 has ``StatefulDataLoader``, and was tried first. It resumes the order of a
shuffled loader, but not the random numbers of workers: augmented samples differ after a
resume with ``num_workers=2``. It also copies torch's private classes, and its last release was in
February 2025. So this module has its own small loader.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from typing import Any

import torch
from torch import distributed
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    default_collate,
)
from torch.utils.data.distributed import DistributedSampler

from greentrain.callbacks.random_states import (
    derived_seed,
    kept_states,
    own_generator,
    seed_generators,
)
from greentrain.errors import ConfigurationError
from greentrain.units import is_whole

_REFUSED = {
    "batch_sampler": "give sampler or shuffle, and batch_size",
    "generator": "give seed",
}


def resumable_loader(
    dataset: Dataset[Any],
    batch_size: int = 1,
    *,
    shuffle: bool = True,
    seed: int | None = None,
    sampler: Sampler[int] | None = None,
    check_generators: bool = True,
    **options: Any,
) -> ResumableLoader:
    """Return a training loader that continues within an epoch, for any Trainer of Lightning.

    The order of samples is a function of seed and epoch. Each sample is loaded with Python's,
    NumPy's and torch's global generators seeded by seed, epoch and index; each batch is collated
    likewise. So augmented samples are the same after a resume, with any number of workers. Loading
    leaves the generators of the training process unchanged.

    Lightning saves and loads the position of the loader. Among several processes, each has its
    share, as with Lightning's own ``DistributedSampler``. Outside of a Trainer, call
    :meth:`ResumableLoader.set_epoch` before each epoch.

    Args:
        dataset: A dataset with ``__len__`` and ``__getitem__``.
        batch_size: Samples in a batch.
        shuffle: Whether each epoch has another random order.
        seed: Seed of the order and the augmentation; by default that of Lightning's
            ``seed_everything``, or 0.
        sampler: One of torch's samplers with an attribute ``generator``, such as
            ``WeightedRandomSampler``, instead of ``shuffle``.
        check_generators: Whether to refuse a dataset or ``collate_fn`` that holds a random
            generator. Turn it off for one that is seeded again for each sample, for instance from
            ``torch.initial_seed()``.
        options: Further arguments of ``torch.utils.data.DataLoader``, such as ``num_workers``,
            ``drop_last``, ``collate_fn`` or ``pin_memory``.

    Raises:
        ConfigurationError: If the order or the samples could not be repeated, with the reason.

    Example:
        >>> loader = resumable_loader(list(range(8)), batch_size=2, seed=1)
        >>> first = [batch.tolist() for batch in loader]
        >>> loader.load_state_dict({**loader.state_dict(), "position": 2})
        >>> [batch.tolist() for batch in loader] == first[2:]
        True
    """
    _check_dataset(dataset)
    if not is_whole(batch_size, 1):
        raise ConfigurationError(
            f"resumable_loader(batch_size={batch_size!r}) is not allowed; give 1 or more samples"
        )
    if seed is None:
        seed = int(os.environ.get("PL_GLOBAL_SEED", "0"))
    if not is_whole(seed, 0):
        raise ConfigurationError(
            f"resumable_loader(seed={seed!r}) is not allowed; give a whole number, 0 or more"
        )
    for name in _REFUSED.keys() & options.keys():
        raise ConfigurationError(
            f"resumable_loader({name}=...) is not allowed, because its state is in no checkpoint; "
            f"{_REFUSED[name]}"
        )
    if not options.get("in_order", True):
        raise ConfigurationError(
            "resumable_loader(in_order=False) would yield batches in an order that depends on the "
            "workers' speed; omit in_order"
        )
    for what in (dataset, options.get("collate_fn")) if check_generators else ():
        path = own_generator(what)
        if path is not None:
            raise ConfigurationError(
                f"{type(what).__name__} holds a random generator in {path!r}, whose state is in no "
                "checkpoint. Use the global generators of random, numpy or torch. If it is "
                "seeded again for each sample, add check_generators=False"
            )
    return ResumableLoader(dataset, batch_size, _base_of(dataset, sampler, shuffle), seed, options)


class EpochSampler(DistributedSampler[Any]):
    """Yield the keys of one process in an epoch; a key has the epoch and the index of a sample.

    It derives from ``DistributedSampler``, so that Lightning does not wrap it in another one.

    Args:
        base: The sampler of all processes.
        seed: Its seed.
        drop_last: Whether to drop samples that do not divide evenly among the processes, instead
            of repeating some.

    Attributes:
        start: Samples of this process to leave out at the start of the next pass.
        position: Batches handed out in this epoch.
    """

    def __init__(self, base: Sampler[int], seed: int, drop_last: bool) -> None:
        # The number of processes and the rank are known later, once they have been started.
        super().__init__(base, 1, 0, shuffle=False, seed=seed, drop_last=drop_last)  # type: ignore[arg-type]
        self.base = base
        self.start = 0
        self.position = 0
        self.resumes = False

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch; Lightning calls this before each."""
        if epoch != self.epoch:
            self.epoch, self.position, self.resumes = epoch, 0, False

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = getattr(self.base, "generator", None)
        if generator is not None:
            generator.manual_seed(derived_seed(self.seed, self.epoch))
        indices = list(self.base)
        ranks, rank = world()
        total = len(self) * ranks
        if total > len(indices):
            indices += (indices * (total // len(indices)))[: total - len(indices)]
        own = indices[rank:total:ranks]
        return iter([(self.epoch, index) for index in own[self.start :]])

    def __len__(self) -> int:
        """Return the samples of this process in an epoch."""
        ranks, count = world()[0], len(self.base)  # type: ignore[arg-type]
        return count // ranks if self.drop_last else -(-count // ranks)


class ResumableLoader(DataLoader[Any]):
    """The loader that :func:`resumable_loader` returns; ``loader.dataset.dataset`` is the dataset.

    Its state is saved by Lightning, and by ``state_dict`` elsewhere.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int,
        base: Sampler[int],
        seed: int,
        options: Mapping[str, Any],
    ) -> None:
        given = dict(options)
        given["collate_fn"] = SeededCollate(given.get("collate_fn") or default_collate)
        order = EpochSampler(base, seed, bool(given.get("drop_last")))
        samples: Dataset[Any] = SeededDataset(dataset, seed)
        # A separate generator, so that the seeds of workers leave the global one unchanged.
        own = torch.Generator().manual_seed(derived_seed(seed, "workers"))
        super().__init__(samples, batch_size, sampler=order, generator=own, **given)
        self.order = order

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator, so nothing happens before the first batch: Lightning creates the iterator
        # before it sets the epoch.
        order = self.order
        order.position = order.position if order.resumes else 0
        order.resumes = False
        order.start = order.position * int(self.batch_size or 1)
        for batch in super().__iter__():
            order.position += 1
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Select the order of an epoch."""
        self.order.set_epoch(epoch)

    def state_dict(self) -> dict[str, int]:
        """Return epoch and position, and what the order depends on."""
        return {"epoch": self.order.epoch, "position": self.order.position, **self._terms()}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Continue from a position in an epoch.

        Raises:
            ConfigurationError: If the loader has another order than the one that was saved.
        """
        for name, value in self._terms().items():
            saved = state_dict.get(name)
            if saved != value:
                raise ConfigurationError(
                    f"the checkpoint is from within an epoch of a loader with {name}={saved}, and "
                    f"this loader has {name}={value}. Continue with the same loader, or from a "
                    "checkpoint at the end of an epoch"
                )
        self.order.epoch, self.order.position = state_dict["epoch"], state_dict["position"]
        self.order.resumes = True

    def _terms(self) -> dict[str, int]:
        return {
            "seed": self.order.seed,
            "samples": len(self.order.base),  # type: ignore[arg-type]
            "batch_size": int(self.batch_size or 1),
            "processes": world()[0],
            "shuffled": int(getattr(self.order.base, "generator", None) is not None),
        }


class SeededSamples(list[Any]):
    """Samples of a batch, and the seed with which to collate them."""

    def __init__(self, samples: Sequence[Any], seed: int) -> None:
        super().__init__(samples)
        self.seed = seed


class SeededDataset(Dataset[Any]):
    """Load samples with generators that are seeded by seed, epoch and index.

    Args:
        dataset: The dataset.
        seed: The seed of the loader.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset = dataset
        self._seed = seed

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        """Return one sample by its epoch and index."""
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> SeededSamples:
        """Return the samples of a batch."""
        many = getattr(self.dataset, "__getitems__", None)
        with kept_states():
            if callable(many):
                seed_generators(derived_seed(self._seed, *keys[0]))
                samples = many([index for _, index in keys])
            else:
                samples = [self._sample(*key) for key in keys]
        return SeededSamples(samples, derived_seed(self._seed, *keys[0], "collate"))

    def _sample(self, epoch: int, index: int) -> Any:
        seed_generators(derived_seed(self._seed, epoch, index))
        return self.dataset[index]


class SeededCollate:
    """Collate a batch with generators that are seeded by its first sample.

    Args:
        collate: The function that makes a batch of samples.
    """

    def __init__(self, collate: Callable[[list[Any]], Any]) -> None:
        self.collate = collate

    def __call__(self, samples: SeededSamples) -> Any:
        """Return the batch."""
        with kept_states():
            seed_generators(samples.seed)
            return self.collate(list(samples))


def world() -> tuple[int, int]:
    """Return the number of processes that train together, and the rank of this one."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def _check_dataset(dataset: object) -> None:
    if isinstance(dataset, IterableDataset):
        raise ConfigurationError(
            f"{type(dataset).__name__} is an IterableDataset, which has no index to continue from; "
            "give a dataset with __getitem__, or save checkpoints at the ends of epochs only"
        )
    if not (isinstance(dataset, Sized) and hasattr(dataset, "__getitem__")):
        raise ConfigurationError(
            f"resumable_loader got {type(dataset).__name__}; give a dataset with __len__ and "
            "__getitem__"
        )
    if not len(dataset):
        raise ConfigurationError("resumable_loader got an empty dataset; give one with samples")


def _base_of(dataset: Dataset[Any], sampler: Sampler[int] | None, shuffle: bool) -> Sampler[int]:
    if sampler is None:
        if not shuffle:
            return SequentialSampler(dataset)  # type: ignore[arg-type]
        return RandomSampler(dataset, generator=torch.Generator())  # type: ignore[arg-type]
    if isinstance(sampler, SequentialSampler):
        return sampler
    if not hasattr(sampler, "generator") or not isinstance(sampler, Sized):
        raise ConfigurationError(
            f"the order of {type(sampler).__name__} cannot be repeated, because it has no "
            "attribute 'generator' and length; give one of torch's samplers, or shuffle=True"
        )
    sampler.generator = torch.Generator()
    return sampler
