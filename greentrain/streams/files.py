"""Reading a file, or a folder of them, as samples."""

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

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]

# What is still being written bears such a name, or begins with a dot.
UNFINISHED = (".part", ".tmp")
_SUFFIXES = (".csv", ".npz", ".pt")


def entries(folder: Path, pattern: str = "*") -> Iterator[Path]:
    """Files and folders in a folder by name, without hidden and half-written ones."""
    for path in sorted(folder.iterdir()):
        finished = not path.name.startswith(".") and not path.name.endswith(UNFINISHED)
        if finished and fnmatchcase(path.name, pattern):
            yield path


def read(path: Path, *, target: str | None = None) -> Dataset[Any]:
    """Read a file of samples, or all files of a folder one after another.

    Args:
        path: ``.npz`` with arrays ``x`` and ``y``; ``.pt`` with a tuple of tensors; ``.csv`` with a
            column of labels and else numbers; or a folder of such.
        target: Column of the labels in a ``.csv``.

    Raises:
        ConfigurationError: If it is of another kind, damaged, or does not hold samples.
    """
    if path.is_dir():
        parts = [read(part, target=target) for part in entries(path)]
        if not parts:
            raise ConfigurationError(f"the folder {str(path)!r} holds no files")
        return ConcatDataset(parts)
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".pt":
        return _read_pt(path)
    if path.suffix == ".csv":
        import pandas  # half a second, for those who need it

        return from_frame(pandas.read_csv(path), target, f"{str(path)!r}")
    raise ConfigurationError(
        f"{str(path)!r} is none of {', '.join(_SUFFIXES)}; pass load= to read it, or pattern= to "
        "leave it out"
    )


def from_frame(frame: pandas.DataFrame, target: str | None, name: str) -> TensorDataset:
    """Make samples of a table: features ``(rows, columns)``, ``float32``, and labels.

    Args:
        frame: The table.
        target: Column of the labels.
        name: What the table is called in errors.

    Raises:
        ConfigurationError: If there is no such column, values are missing, or are no numbers.
    """
    columns = ", ".join(map(str, frame.columns))
    if target is None:
        raise ConfigurationError(f"{name} has the columns {columns}; say by target= which is y")
    if target not in frame.columns:
        raise ConfigurationError(f"{name} has no column {target!r}; it has {columns}")
    for column in frame.columns:
        if frame[column].isna().any():
            raise ConfigurationError(f"{name} has missing values in column {column!r}")
        if frame[column].dtype.kind not in "biuf":
            raise ConfigurationError(
                f"{name} holds {frame[column].dtype} in column {column!r}; it has to be numbers"
            )
    features = frame.drop(columns=target).to_numpy(dtype=np.float32)
    return from_arrays(features, frame[target].to_numpy(), name)


def from_arrays(features: NDArray[Any], labels: NDArray[Any], name: str) -> TensorDataset:
    """Make samples of two arrays: fractions become ``float32``, whole labels ``int64``.

    Args:
        features: ``(samples, ...)``; whole numbers stay as they are.
        labels: ``(samples, ...)``.
        name: What they are called in errors.

    Raises:
        ConfigurationError: If they are not as many, or hold no numbers.
    """
    for what, values in (("x", features), ("y", labels)):
        if values.dtype.kind not in "biuf" or not values.ndim:
            raise ConfigurationError(
                f"{name} has {what} of type {values.dtype} and shape {values.shape}; it has to be "
                "numbers, one row for each sample"
            )
    if len(features) != len(labels):
        raise ConfigurationError(
            f"{name} holds {len(features)} samples and {len(labels)} labels; it has to be as many"
        )
    x_type = np.float32 if features.dtype.kind == "f" else features.dtype
    y_type = np.float32 if labels.dtype.kind == "f" else np.int64
    # A copy in either case: what is given may be read-only, and of another byte order.
    x = torch.from_numpy(features.astype(np.dtype(x_type).newbyteorder("=")))
    return TensorDataset(x, torch.from_numpy(labels.astype(y_type)))


def _read_npz(path: Path) -> TensorDataset:
    # Opened here: of a damaged file numpy leaves its own open.
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
