"""Read a file, or a folder of files, as samples."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import ConcatDataset, Dataset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams.arrival_schema import ArrivalSchema

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

# Names of files that are still being written end so, or begin with a dot.
_UNFINISHED = (".part", ".tmp")
_SUFFIXES = (".csv", ".npz", ".pt")
_LARGEST = float(np.finfo(np.float32).max)


def entries(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Yield the files and folders of a folder by name, without hidden and unfinished ones."""
    for path in sorted(folder.iterdir()):
        finished = not path.name.startswith(".") and not path.name.endswith(_UNFINISHED)
        if finished and fnmatchcase(path.name, pattern):
            yield path


def read(
    path: Path, *, target: str | None = None, schema: ArrivalSchema | None = None
) -> Dataset[Any]:
    """Read a file of samples, or all files of a folder one after another.

    Args:
        path: ``.npz`` with arrays ``x`` and ``y``; ``.pt`` with a tuple of tensors; ``.csv`` of
            numbers with a column of labels; or a folder of these.
        target: Column of the labels in a ``.csv``.
        schema: Columns and samples to compare with; the order of columns is changed to theirs. By
            default the files of a folder are compared with each other.

    Raises:
        ConfigurationError: If it is of another kind, damaged, does not hold samples, or differs
            from the schema.
    """
    schema = ArrivalSchema() if schema is None else schema
    if path.is_dir():
        parts = [read(part, target=target, schema=schema) for part in entries(path)]
        if not parts:
            raise ConfigurationError(f"the folder {str(path)!r} holds no files")
        return ConcatDataset(parts)
    if path.suffix == ".npz":
        return _checked(_read_npz(path), schema, path)
    if path.suffix == ".pt":
        return _checked(_read_pt(path), schema, path)
    if path.suffix == ".csv":
        import pandas  # the import takes half a second

        name = f"{str(path)!r}"
        frame = schema.ordered(pandas.read_csv(path), name)
        return _checked(from_frame(frame, target, name), schema, path)
    raise ConfigurationError(
        f"{str(path)!r} is none of {', '.join(_SUFFIXES)}; pass load= to read it, or pattern= to "
        "leave it out"
    )


def from_frame(frame: pandas.DataFrame, target: str | None, name: str) -> TensorDataset:
    """Convert a table to samples: features ``(rows, columns)``, ``float32``, and labels.

    Args:
        frame: The table.
        target: Column of the labels.
        name: Name of the table in errors.

    Raises:
        ConfigurationError: If there is no such column or no row, or values are missing, infinite or
            no numbers.
    """
    columns = ", ".join(map(str, frame.columns))
    if target is None:
        raise ConfigurationError(f"{name} has the columns {columns}; say by target= which is y")
    if target not in frame.columns:
        raise ConfigurationError(f"{name} has no column {target!r}; it has {columns}")
    if not len(frame):
        raise ConfigurationError(f"{name} holds no samples: it has columns and no rows")
    for column in frame.columns:
        if frame[column].isna().any():
            raise ConfigurationError(f"{name} has missing values in column {column!r}")
        if frame[column].dtype.kind not in "biuf":
            raise ConfigurationError(
                f"{name} holds {frame[column].dtype} in column {column!r}; it has to be numbers"
            )
        if frame[column].dtype.kind == "f" and not (frame[column].abs() <= _LARGEST).all():
            raise ConfigurationError(
                f"{name} has an infinite value in column {column!r}, or one beyond float32; "
                "correct it, or leave out the row"
            )
    features = frame.drop(columns=target).to_numpy(dtype=np.float32)
    return from_arrays(features, frame[target].to_numpy(), name)


def from_arrays(features: NDArray[Any], labels: NDArray[Any], name: str) -> TensorDataset:
    """Convert two arrays to samples: floats become ``float32``, integer labels ``int64``.

    Args:
        features: ``(samples, ...)``; whole numbers keep their type.
        labels: ``(samples, ...)``.
        name: Name of the arrays in errors.

    Raises:
        ConfigurationError: If their lengths differ, they are no numbers, or a label is beyond
            ``int64``.
    """
    for what, values in (("x", features), ("y", labels)):
        if values.dtype.kind not in "biuf" or not values.ndim:
            raise ConfigurationError(
                f"{name} has {what} of type {values.dtype} and shape {values.shape}; it has to be "
                "numbers, one row for each sample"
            )
    if len(features) != len(labels):
        raise ConfigurationError(
            f"{name} holds {len(features)} samples and {len(labels)} labels; it needs "
            "as many labels as samples"
        )
    if labels.dtype.kind == "u" and labels.size and labels.max() > np.iinfo(np.int64).max:
        raise ConfigurationError(
            f"{name} holds the label {labels.max()}, which is beyond int64; number the classes "
            "from 0"
        )
    x_type = np.float32 if features.dtype.kind == "f" else features.dtype
    y_type = np.float32 if labels.dtype.kind == "f" else np.int64
    # Always a copy: the array may be read-only, or have another byte order.
    x = torch.from_numpy(features.astype(np.dtype(x_type).newbyteorder("=")))
    return TensorDataset(x, torch.from_numpy(labels.astype(y_type)))


def _checked(dataset: TensorDataset, schema: ArrivalSchema, path: Path) -> TensorDataset:
    if len(dataset):
        schema.check(dataset, f"{str(path)!r}")
    return dataset


def _read_npz(path: Path) -> TensorDataset:
    # Opened here, because numpy leaves a damaged file open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        missing = [name for name in ("x", "y") if name not in arrays.files]
        if missing:
            raise ConfigurationError(
                f"{str(path)!r} holds {', '.join(arrays.files) or 'no arrays'}; x and y are needed"
            )
        return from_arrays(arrays["x"], arrays["y"], f"{str(path)!r}")


def _read_pt(path: Path) -> TensorDataset:
    tensors = torch.load(path, weights_only=True, map_location="cpu")
    are_tensors = isinstance(tensors, (tuple, list)) and all(
        isinstance(tensor, torch.Tensor) and tensor.ndim for tensor in tensors
    )
    if not are_tensors or len({len(tensor) for tensor in tensors}) != 1:
        raise ConfigurationError(
            f"{str(path)!r} has to hold a tuple of tensors with one row for each sample, such as "
            "torch.save((x, y), path) writes"
        )
    return TensorDataset(*tensors)
