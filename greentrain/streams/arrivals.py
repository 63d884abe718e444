"""Experiences from newly arrived data in a folder, from a function, or from MLflow."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.naming import check_name
from greentrain.streams.arrival_schema import ArrivalSchema
from greentrain.streams.checks import check_split
from greentrain.streams.files import entries, from_arrays, from_frame, read
from greentrain.streams.samples import length, split
from greentrain.streams.stream import Experience, check_dataset


def from_folder(
    folder: str | Path,
    *,
    load: Callable[[Path], Dataset[Any]] | None = None,
    target: str | None = None,
    val_share: float = 0.1,
    pattern: str = "*",
    seed: int = 0,
) -> Iterator[Experience]:
    """Make an experience of each file or subfolder, in the order of their names.

    The id is the name. The validation split depends on the name and the seed only, so the next
    run makes the same experience. Names that begin with a dot or end in ``.tmp`` or ``.part`` are
    skipped. Give a file such a name while it is written, and rename it when it is complete.

    Later files must have the columns and the kind of samples of the first one. Columns may be in
    another order.

    Args:
        folder: Folder of the arriving data.
        load: Function that reads a path as a map-style dataset. By default ``.npz`` with arrays
            ``x`` and ``y``, ``.pt`` with a tuple of tensors, ``.csv``, and folders of these.
        target: Column of the labels in a ``.csv``; its other columns are the features.
        val_share: Share of each experience's samples to evaluate on instead of training.
        pattern: Pattern of the names to read, as in a shell.
        seed: Seed of the validation split.

    Returns:
        An iterator that reads one experience at a time, when it is requested.

    Raises:
        ConfigurationError: If the folder does not exist. The iterator raises it if a name in the
            folder cannot be stored, or something cannot be read or differs from the first file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.savez(folder / "monday.npz", x=np.zeros((20, 3)), y=np.arange(20) % 2)
        >>> [(monday.id, len(monday.train), len(monday.val)) for monday in from_folder(folder)]
        [('monday.npz', 18, 2)]
    """
    check_split(val_share, seed)
    root = Path(folder)
    if not root.is_dir():
        raise ConfigurationError(f"there is no folder {str(root)!r} to take data from")
    if load is not None and target is not None:
        raise ConfigurationError(
            f"target is {target!r} and load reads the files; pass one or the other"
        )

    def experiences() -> Iterator[Experience]:
        schema = ArrivalSchema(shapes=load is None)
        reader = partial(read, target=target, schema=schema) if load is None else load
        paths = list(entries(root, pattern))
        for path in paths:  # all of them, before the first one is trained on
            check_name(path.name, "the name of a file", "monday.npz")
        for path in paths:
            dataset, brings = _loaded(reader, path), f"what is in {path.name}"
            title = f"{str(path)!r}"
            check_dataset(dataset, title, "training")
            if load is not None:
                schema.check(dataset, title)
            yield _experience(path.name, dataset, title, brings, val_share, seed, path=str(path))

    return experiences()


def from_callable(
    fetch: Callable[[], tuple[str, Dataset[Any]] | None],
    *,
    val_share: float = 0.1,
    seed: int = 0,
) -> Iterator[Experience]:
    """Make experiences of the datasets that a function returns, until it returns ``None``.

    The function names each dataset by a stable property of its source: a date, an offset, a file.
    With names made up at each run, the same data would be trained on again.

    Args:
        fetch: Function that returns ``(id, dataset)``, or ``None`` when nothing is left. It may
            wait, and may never end.
        val_share: Share of each experience's samples to evaluate on instead of training.
        seed: Seed, with the id, of the validation split.

    Returns:
        An iterator that calls ``fetch`` when the next experience is requested.

    Raises:
        ConfigurationError: If ``fetch`` cannot be called. The iterator raises it if ``fetch``
            returns something else, one id twice in a row, or samples of another kind than at first.

    Example:
        >>> arrived = iter([("monday", [1, 2, 3]), ("tuesday", [4, 5]), None])
        >>> [experience.id for experience in from_callable(lambda: next(arrived))]
        ['monday', 'tuesday']
    """
    check_split(val_share, seed)
    if not callable(fetch):
        raise ConfigurationError(
            f"fetch is a {type(fetch).__name__}; it must be a function that returns (id, dataset)"
        )

    def experiences() -> Iterator[Experience]:
        last, schema = None, ArrivalSchema(shapes=False)
        while (given := fetch()) is not None:
            if not isinstance(given, tuple) or len(given) != 2 or not isinstance(given[0], str):
                raise ConfigurationError(
                    f"fetch returned a {type(given).__name__}; it returns (id, dataset), the id a "
                    "text, or None when nothing is left"
                )
            id, dataset = given
            if id == last:
                raise ConfigurationError(
                    f"fetch returned {id!r} twice in a row; it returns each once, and None when "
                    "nothing is left"
                )
            last = id
            title, brings = f"the dataset {id!r}", f"what was fetched as {id}"
            check_dataset(dataset, title, "training")
            schema.check(dataset, title)
            yield _experience(id, dataset, title, brings, val_share, seed)

    return experiences()


def from_mlflow(
    dataset: Any, *, target: str | None = None, val_share: float = 0.1, seed: int = 0
) -> Experience:
    """Make an experience of an MLflow dataset; its id is the dataset's digest.

    MLflow computes the digest of the columns, the shape, and the first 10,000 rows of a table or
    values of an array. If datasets differ only beyond these, give each a different ``digest=``.

    Args:
        dataset: Dataset made by ``mlflow.data.from_pandas`` or ``from_numpy``, or an input of a
            run (``run.inputs.dataset_inputs[0].dataset``). An input is fetched from its source
            and read as :func:`from_folder` reads.
        target: Column of the labels; by default the one that the dataset names.
        val_share: Share of the samples to evaluate on instead of training.
        seed: Seed, with the digest, of the validation split.

    Raises:
        ConfigurationError: If it is of another kind, has no labels, or its source cannot be read.
    """
    check_split(val_share, seed)
    import mlflow.entities  # the import takes seconds
    from mlflow.data.numpy_dataset import NumpyDataset
    from mlflow.data.pandas_dataset import PandasDataset

    name = f"the MLflow dataset {getattr(dataset, 'name', None)!r}"
    if isinstance(dataset, PandasDataset):
        frame = dataset.df
        if dataset.predictions is not None:
            frame = frame.drop(columns=dataset.predictions)
        found: Dataset[Any] = from_frame(frame, target or dataset.targets, name)
    elif isinstance(dataset, NumpyDataset):
        x, y = dataset.features, dataset.targets
        if not isinstance(x, np.ndarray) or not isinstance(y, np.ndarray):
            raise ConfigurationError(f"{name} has to hold one array of features and one of targets")
        found = from_arrays(x, y, name)
    elif isinstance(dataset, mlflow.entities.Dataset):
        found = _from_source(dataset, target, name)
    else:
        raise ConfigurationError(
            f"dataset is a {type(dataset).__name__}; it must be an MLflow dataset of pandas or "
            "NumPy, or one that a run has as input"
        )
    brings = f"MLflow dataset {dataset.name}"
    return _experience(dataset.digest, found, name, brings, val_share, seed, name=dataset.name)


def _from_source(dataset: Any, target: str | None, name: str) -> Dataset[Any]:
    import mlflow.data

    source = mlflow.data.get_source(dataset)
    try:
        path = Path(source.load())
    except NotImplementedError:
        raise ConfigurationError(
            f"{name} was logged without a source that can be read again (its type is "
            f"{dataset.source_type!r}); log it with source="
        ) from None
    except Exception as error:  # the exception depends on the kind of source
        raise ConfigurationError(f"cannot fetch {name}: {_reason(error)}") from error
    return _loaded(partial(read, target=target), path)


def _loaded(load: Callable[[Path], Dataset[Any]], path: Path) -> Dataset[Any]:
    try:
        return load(path)
    except ConfigurationError:
        raise
    except Exception as error:  # the exception depends on the format and the damage
        raise ConfigurationError(f"cannot read {str(path)!r}: {_reason(error)}") from error


def _experience(
    id: str,
    dataset: Dataset[Any],
    title: str,
    brings: str,
    val_share: float,
    seed: int,
    **metadata: str,
) -> Experience:
    id = check_name(id, "an experience's id", "monday")
    check_dataset(dataset, title, "training")
    random = np.random.default_rng((seed, zlib.crc32(id.encode())))
    fit, held_out = split(np.arange(length(dataset)), val_share, random, title)
    metadata = {"brings": brings, **metadata}
    return Experience(id, Subset(dataset, fit), Subset(dataset, held_out), metadata=metadata)


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
