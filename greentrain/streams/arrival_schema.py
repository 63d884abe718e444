"""Check that newly arrived data have the columns and the kind of samples of the first arrival."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    import pandas  # type: ignore[import-untyped]


class ArrivalSchema:
    """Columns and samples of the first arrival, with which later arrivals are compared.

    Args:
        shapes: Whether samples must have equal shapes, and not only as many dimensions.

    Example:
        >>> schema = ArrivalSchema()
        >>> schema.check([(torch.zeros(3), torch.tensor(1))], "monday")
        >>> schema.check([(torch.zeros(4), torch.tensor(1))], "tuesday")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        greentrain.errors.ConfigurationError: tuesday has samples (float32 (4), int64 ()) and ...
    """

    def __init__(self, *, shapes: bool = True) -> None:
        self._shapes = shapes
        self._columns: tuple[list[str], str] | None = None
        self._sample: tuple[Any, str, str] | None = None

    def ordered(self, frame: pandas.DataFrame, name: str) -> pandas.DataFrame:
        """Return a table with its columns in the order of the first table.

        Args:
            frame: The table.
            name: Name of the table in errors.

        Raises:
            ConfigurationError: If its columns are not those of the first table.
        """
        columns = [str(column) for column in frame.columns]
        if self._columns is None:
            self._columns = columns, name
        wanted, first = self._columns
        if sorted(columns) != sorted(wanted):
            lacks = ", ".join(repr(column) for column in wanted if column not in columns)
            new = ", ".join(repr(column) for column in columns if column not in wanted)
            parts = [f"lacks {lacks}" if lacks else "", f"has {new} in addition" if new else ""]
            raise ConfigurationError(
                f"{name} {' and '.join(filter(None, parts)) or 'repeats a column'}, compared with "
                f"{first}; arrivals must have the same columns, in any order"
            )
        return frame.set_axis(columns, axis=1)[wanted]

    def check(self, dataset: Dataset[Any], name: str) -> None:
        """Compare the first sample with that of the first arrival.

        Args:
            dataset: Map-style dataset with at least one sample.
            name: Name of the dataset in errors.

        Raises:
            ConfigurationError: If types, shapes or the number of parts differ.
        """
        sample = dataset[0]
        kind, shown = _kind(sample, self._shapes), _shown(sample)
        if self._sample is None:
            self._sample = kind, shown, name
        if kind != self._sample[0]:
            _, first, first_name = self._sample
            raise ConfigurationError(
                f"{name} has samples {shown} and {first_name} {first}; arrivals must have samples "
                "of one kind"
            )


def _kind(sample: Any, shapes: bool) -> Any:
    if isinstance(sample, (tuple, list)):
        return tuple(_kind(part, shapes) for part in sample)
    if isinstance(sample, dict):
        return tuple((key, _kind(part, shapes)) for key, part in sample.items())
    if isinstance(sample, torch.Tensor):
        return sample.dtype, tuple(sample.shape) if shapes else sample.ndim
    return type(sample)


def _shown(sample: Any) -> str:
    if isinstance(sample, (tuple, list)):
        return f"({', '.join(_shown(part) for part in sample)})"
    if isinstance(sample, dict):
        return f"{{{', '.join(f'{key}: {_shown(part)}' for key, part in sample.items())}}}"
    if isinstance(sample, torch.Tensor):
        shape = ", ".join(map(str, sample.shape))
        return f"{str(sample.dtype).removeprefix('torch.')} ({shape})"
    return type(sample).__name__
