"""Read new data and held-out data that are given as datasets, loaders or a data module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.core.hooks import DataHooks
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch.utils.data import (
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from greentrain.callbacks.messages import warn
from greentrain.errors import ConfigurationError
from greentrain.streams.stream import check_dataset
from greentrain.training.fit import plain_trainer

_KEPT = (
    "batch_size",
    "collate_fn",
    "drop_last",
    "multiprocessing_context",
    "num_workers",
    "persistent_workers",
    "pin_memory",
    "prefetch_factor",
    "timeout",
    "worker_init_fn",
)
"""Options of a given loader that loaders of an update have, too."""
_TRANSFER = ("on_after_batch_transfer", "on_before_batch_transfer", "transfer_batch_to_device")


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenData:
    """The data of one update.

    Args:
        train: New samples.
        val: Held-out samples.
        train_options: Options of the loaders of new samples, as for a ``DataLoader``.
        val_options: Options of the loaders of held-out samples.
    """

    train: Dataset[Any]
    val: Dataset[Any]
    train_options: Mapping[str, Any]
    val_options: Mapping[str, Any]


def read_data(
    new_data: object, val: object, options: Mapping[str, Any]
) -> tuple[GivenData, Callable[[], None]]:
    """Return the datasets of an update, with the options of their loaders.

    A dataset has the options of the other one's ``DataLoader``, if that is one.

    Args:
        new_data: A map-style dataset, a ``DataLoader`` of one, or a ``LightningDataModule``, which
            is prepared and set up here.
        val: A map-style dataset or a ``DataLoader`` of one; ``None`` for that of a data module.
        options: Options of the Trainer that a data module has while its data are read.

    Returns:
        The data, and a function that tears the data module down.

    Raises:
        ConfigurationError: If one of them is missing, empty or of another kind.
    """
    if not isinstance(new_data, LightningDataModule):
        if val is None:
            raise ConfigurationError(
                "val is missing: only held-out data show whether the updated model is better. Give "
                "a dataset or a DataLoader as val, or a LightningDataModule as new_data"
            )
        return _read_both(new_data, val), _nothing
    module = new_data
    _check_hooks(module)
    close = _teardown(module, module.trainer)
    module.trainer = module.trainer or plain_trainer(options)
    try:
        module.prepare_data()
        module.setup("fit")
        train = _loaders_of(module, "train_dataloader", "new_data")
        if val is None:
            val = _loaders_of(module, "val_dataloader", "val")
        return _read_both(train, val), close
    except BaseException:
        close()
        raise


def _loaders_of(module: LightningDataModule, hook: str, name: str) -> Any:
    loaders = getattr(module, hook)() if is_overridden(hook, module) else None
    if loaders is None or loaders == []:
        raise ConfigurationError(
            f"{type(module).__name__} has no {hook}, or it gives no loader; define it to return a "
            f"DataLoader, or give the data themselves as {name}"
        )
    return loaders


def _read_both(new_data: object, val: object) -> GivenData:
    train, train_options = _read(new_data, "new_data", "training")
    held_out, val_options = _read(val, "val", "validation")
    if "sampler" in val_options:
        raise ConfigurationError(
            "val has a sampler that chooses its samples; give all held-out samples in one dataset, "
            "as each is evaluated once"
        )
    shared = {name: each for name, each in train_options.items() if name != "sampler"}
    return GivenData(
        train=train,
        val=held_out,
        train_options=train_options or val_options,
        val_options=val_options or shared,
    )


def _read(given: Any, name: str, purpose: str) -> tuple[Dataset[Any], dict[str, Any]]:
    if isinstance(given, DataLoader):
        return _read_loader(given, name, purpose)
    if _is_several(given):
        if len(given) == 1:
            (only,) = given.values() if isinstance(given, Mapping) else given
            return _read(only, name, purpose)
        raise ConfigurationError(
            f"{name} has {len(given)} loaders; give one dataset or one DataLoader, for example of "
            "a ConcatDataset"
        )
    _check_samples(given, name)
    _check_map_style(given, name, purpose)
    return given, {}


def _read_loader(
    loader: DataLoader[Any], name: str, purpose: str
) -> tuple[Dataset[Any], dict[str, Any]]:
    _check_map_style(loader.dataset, name, purpose)
    if loader.batch_size is None:
        raise ConfigurationError(
            f"{name} is a DataLoader with its own batches (batch_sampler, or batch_size=None); an "
            "update makes its own batches, so give batch_size, or the dataset alone"
        )
    dataset = loader.dataset
    sampler: Any = loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        dataset, sampler = Subset(dataset, list(sampler.indices)), None
        check_dataset(dataset, name, purpose)
    options = {each: getattr(loader, each) for each in _KEPT}
    if not loader.num_workers:
        del options["multiprocessing_context"]
    if sampler is not None and not _is_usual(sampler, len(loader.dataset)):  # type: ignore[arg-type]
        options["sampler"] = lambda dataset: sampler
    return dataset, options


def _is_usual(sampler: Any, count: int) -> bool:
    """Return whether a sampler passes over all samples once."""
    if isinstance(sampler, RandomSampler):
        return not sampler.replacement and sampler.num_samples == count
    return isinstance(sampler, (SequentialSampler, DistributedSampler)) or not isinstance(
        sampler, Sampler
    )


def _check_map_style(dataset: Any, name: str, purpose: str) -> None:
    if isinstance(dataset, IterableDataset):
        raise ConfigurationError(
            f"{name} holds an IterableDataset, whose samples have no index; give a map-style "
            "dataset: an update samples from it, and may pass over it several times"
        )
    check_dataset(dataset, name, purpose)


def _check_samples(given: Any, name: str) -> None:
    """Refuse data that have a length and an index, but are no samples with their labels."""
    tensors = isinstance(given, tuple) and all(isinstance(each, torch.Tensor) for each in given)
    others = (str, bytes, Mapping, torch.Tensor, np.ndarray)
    if isinstance(given, others) or (tensors and given):
        kind = "tuple of tensors" if tensors else type(given).__name__
        raise ConfigurationError(
            f"{name} is a {kind}, which is no dataset; give a map-style dataset of the samples, "
            "such as TensorDataset(inputs, labels) of torch.utils.data"
        )


def _is_several(given: Any) -> bool:
    values = list(given.values()) if isinstance(given, Mapping) else given
    return (
        isinstance(values, (list, tuple))
        and bool(values)
        and all(isinstance(each, DataLoader) for each in values)
    )


def _check_hooks(module: LightningDataModule) -> None:
    for name in _TRANSFER:
        if getattr(type(module), name) is not getattr(DataHooks, name):
            raise ConfigurationError(
                f"{type(module).__name__} overrides {name}, and an update uses the loaders of a "
                "data module without its hooks; move the hook to the LightningModule"
            )


def _teardown(module: LightningDataModule, trainer: Trainer | None) -> Callable[[], None]:
    def close() -> None:
        try:
            module.teardown("fit")
        except Exception as error:  # the update is paid, and its result must not be lost
            warn(f"{type(module).__name__}.teardown failed, so its data may stay open: {error!r}")
        module.trainer = trainer

    return close


def _nothing() -> None:
    pass
