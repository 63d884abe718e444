"""Where newly arrived data come from: a folder, a function, or MLflow."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.streams.checks import check_share
from greentrain.streams.experience import Experience, check_dataset
from greentrain.streams.files import entries, from_arrays, from_frame, read
from greentrain.streams.samples import length, shares


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

    Its id is its name, and what is held out depends on the name and the seed only, so that the
    next run makes the same of it. Names that begin with a dot or end in ``.tmp`` or ``.part`` are
    left out: whoever writes a file gives it such a name first, and renames it when it is complete.

    Args:
        folder: Where data arrive.
        load: Reads a path as a map-style dataset. By default ``.npz`` with arrays ``x`` and ``y``,
            ``.pt`` with a tuple of tensors, ``.csv``, and folders of such.
        target: Column of the labels in a ``.csv``; its other columns are the features.
        val_share: Share of each one's samples to measure on in place of training.
        pattern: Which names are meant, as in a shell.
        seed: Decides what is held out.

    Returns:
        An iterator that reads one at a time, when it is asked for.

    Raises:
        ConfigurationError: If there is no such folder; when it comes to that one, if something in
            it cannot be read.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.savez(folder / "monday.npz", x=np.zeros((20, 3)), y=np.arange(20) % 2)
        >>> [(monday.id, len(monday.train), len(monday.val)) for monday in from_folder(folder)]
        [('monday.npz', 18, 2)]
    """
    check_share(val_share, seed)
    root = Path(folder)
    if not root.is_dir():
        raise ConfigurationError(f"there is no folder {str(root)!r} to take data from")
    if load is not None and target is not None:
        raise ConfigurationError(
            f"target is {target!r} and load reads the files; pass one or the other"
        )
    reader = partial(read, target=target) if load is None else load
    return _each_in(root, pattern, reader, val_share, seed)


def from_callable(
    fetch: Callable[[], tuple[str, Dataset[Any]] | None],
    *,
    val_share: float = 0.1,
    seed: int = 0,
) -> Iterator[Experience]:
    """Make an experience of whatever a function gives, until it gives ``None``.

    The function names what it gives, by what its source knows it by: a date, an offset, a file. A
    name made up at each run would have the same data taken up again.

    Args:
        fetch: Returns ``(id, dataset)``, or ``None`` when nothing is left. It may wait, and may
            never end.
        val_share: Share of each one's samples to measure on in place of training.
        seed: Decides, with the id, what is held out.

    Returns:
        An iterator that calls ``fetch`` when it is asked for the next one.

    Raises:
        ConfigurationError: If ``fetch`` cannot be called; when it comes to that, if it returns
            something else, or one id twice in a row.

    Example:
        >>> arrived = iter([("monday", [1, 2, 3]), ("tuesday", [4, 5]), None])
        >>> [experience.id for experience in from_callable(lambda: next(arrived))]
        ['monday', 'tuesday']
    """
    check_share(val_share, seed)
    if not callable(fetch):
        raise ConfigurationError(
            f"fetch is a {type(fetch).__name__}; it is a function that returns (id, dataset)"
        )
    return _each_of(fetch, val_share, seed)


def from_mlflow(
    dataset: Any, *, target: str | None = None, val_share: float = 0.1, seed: int = 0
) -> Experience:
    """Make an experience of an MLflow dataset; its id is the dataset's digest.

    MLflow computes the digest of the columns, the shape, and the first 10,000 rows of a table or
    values of an array. Where data differ only beyond these, give it a ``digest=`` of your own.

    Args:
        dataset: What ``mlflow.data.from_pandas`` or ``from_numpy`` made, or what a run has as input
            (``run.inputs.dataset_inputs[0].dataset``), which is fetched from its source and read
            as :func:`from_folder` reads.
        target: Column of the labels; by default the one that the dataset names.
        val_share: Share of the samples to measure on in place of training.
        seed: Decides, with the digest, what is held out.

    Raises:
        ConfigurationError: If it is of another kind, has no labels, or its source cannot be read.
    """
    check_share(val_share, seed)
    import mlflow.entities  # seconds, for those who need it
    from mlflow.data.numpy_dataset import NumpyDataset
    from mlflow.data.pandas_dataset import PandasDataset

    name = f"the MLflow dataset {getattr(dataset, 'name', None)!r}"
    if isinstance(dataset, PandasDataset):
        frame = dataset.df
        if dataset.predictions is not None:
            frame = frame.drop(columns=dataset.predictions)
        found: Dataset[Any] = from_frame(frame, target or dataset.targets, name)
    elif isinstance(dataset, NumpyDataset):
        if not isinstance(dataset.features, np.ndarray) or not isinstance(
            dataset.targets, np.ndarray
        ):
            raise ConfigurationError(f"{name} has to hold one array of features and one of targets")
        found = from_arrays(dataset.features, dataset.targets, name)
    elif isinstance(dataset, mlflow.entities.Dataset):
        found = _from_source(dataset, target, name)
    else:
        raise ConfigurationError(
            f"dataset is a {type(dataset).__name__}; it is an MLflow dataset of pandas or NumPy, "
            "or one that a run has as input"
        )
    metadata = {"brings": f"MLflow dataset {dataset.name}", "name": dataset.name}
    return _experience(dataset.digest, found, name, metadata, val_share, seed)


def _each_in(
    root: Path,
    pattern: str,
    load: Callable[[Path], Dataset[Any]],
    val_share: float,
    seed: int,
) -> Iterator[Experience]:
    for path in list(entries(root, pattern)):
        try:
            dataset = load(path)
        except ConfigurationError:
            raise
        except Exception as error:  # each format is damaged in ways of its own
            raise ConfigurationError(f"cannot read {str(path)!r}: {_reason(error)}") from error
        metadata = {"brings": f"what is in {path.name}", "path": str(path)}
        yield _experience(path.name, dataset, f"{str(path)!r}", metadata, val_share, seed)


def _each_of(
    fetch: Callable[[], tuple[str, Dataset[Any]] | None], val_share: float, seed: int
) -> Iterator[Experience]:
    last = None
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
        metadata = {"brings": f"what was fetched as {id}"}
        yield _experience(id, dataset, f"the dataset {id!r}", metadata, val_share, seed)


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
    except Exception as error:  # each kind of source fails in ways of its own
        raise ConfigurationError(f"cannot fetch {name}: {_reason(error)}") from error
    try:
        return read(path, target=target)
    except ConfigurationError:
        raise
    except Exception as error:  # as above
        raise ConfigurationError(f"cannot read {str(path)!r}: {_reason(error)}") from error


def _experience(
    id: str,
    dataset: Dataset[Any],
    name: str,
    metadata: Mapping[str, Any],
    val_share: float,
    seed: int,
) -> Experience:
    check_dataset(dataset, name, "training")
    random = np.random.default_rng((seed, zlib.crc32(id.encode())))
    fit, held_out = shares(np.arange(length(dataset)), val_share, random, name)
    return Experience(id, Subset(dataset, fit), Subset(dataset, held_out), metadata=metadata)


def _reason(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
