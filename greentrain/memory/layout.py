"""How a sample is built, and samples of one build as columns of bytes.

A column holds one part of each sample, such as all images: a row of bytes for each sample, whatever
the part's dtype, so that columns can be kept, mapped from a file and saved alike. Texts have no
fixed size; their column is a list.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from greentrain.errors import ConfigurationError

Layout = tuple[Any, ...]
"""``(kind, dtype, shape)`` of a leaf, or ``("tuple" | "list" | "dict", children, keys)``."""
Column = torch.Tensor | list[str]

_NUMBERS = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}
_KINDS = {bool: "bool", int: "int", float: "float", str: "str", type(None): "none"}


def layout_of(sample: Any) -> Layout:
    """Tell how a sample is built.

    Raises:
        ConfigurationError: If there is something in it that cannot be kept.

    Example:
        >>> written(layout_of({"image": torch.zeros(3, 8, 8), "label": 3}))
        '{image: float32[3, 8, 8], label: int}'
    """
    kind = type(sample)
    if isinstance(sample, torch.Tensor) and sample.layout is torch.strided:
        return ("tensor", str(sample.dtype).removeprefix("torch."), tuple(sample.shape))
    if isinstance(sample, (np.ndarray, np.generic)) and not sample.dtype.hasobject:
        return ("array", sample.dtype.str, tuple(sample.shape))
    if kind in (tuple, list):
        return (kind.__name__, tuple(layout_of(part) for part in sample), ())
    if kind is dict and all(type(key) in (str, int) for key in sample):
        return ("dict", tuple(layout_of(part) for part in sample.values()), tuple(sample))
    if kind in _KINDS:
        return (_KINDS[kind], "", ())
    raise ConfigurationError(
        f"a sample holds a {kind.__name__}; memory keeps tensors, NumPy arrays, numbers, texts and "
        "None, in tuples, lists and dicts with texts or whole numbers as keys"
    )


def written(layout: Layout) -> str:
    """Write a layout for people."""
    kind, inner, outer = layout
    if kind == "tuple":
        return f"({', '.join(map(written, inner))})"
    if kind == "list":
        return f"[{', '.join(map(written, inner))}]"
    if kind == "dict":
        parts = zip(outer, inner, strict=True)
        return f"{{{', '.join(f'{key}: {written(part)}' for key, part in parts)}}}"
    if kind in ("tensor", "array"):
        name = inner if kind == "tensor" else f"array {np.dtype(inner)}"
        return f"{name}{list(outer)}"
    return str(kind)


def to_text(layout: Layout) -> str:
    """Write a layout so that :func:`from_text` reads it."""
    return json.dumps(layout)


def from_text(text: str) -> Layout:
    """Read what :func:`to_text` wrote."""
    return _as_tuples(json.loads(text))  # type: ignore[no-any-return]


def encode(layout: Layout, samples: Sequence[Any]) -> list[Column]:
    """Take samples of one layout apart into columns."""
    kind, inner, outer = layout
    if kind in ("tuple", "list", "dict"):
        keys = outer if kind == "dict" else range(len(inner))
        parts = ([sample[key] for sample in samples] for key in keys)
        return [
            column
            for child, part in zip(inner, parts, strict=True)
            for column in encode(child, part)
        ]
    if kind == "none":
        return []
    if kind == "str":
        return [list(samples)]
    if kind == "array":
        stacked = np.stack([np.asarray(sample) for sample in samples])
        return [torch.from_numpy(stacked.reshape(len(samples), -1).view(np.uint8))]
    if kind == "tensor":
        return [as_bytes(torch.stack([sample.detach().cpu() for sample in samples]))]
    try:
        return [as_bytes(torch.tensor(samples, dtype=_NUMBERS[kind]))]
    except (OverflowError, RuntimeError, ValueError):  # torch's versions differ in which it is
        raise ConfigurationError(
            "a sample holds a whole number beyond 64 bits, which memory cannot keep; write it as "
            "a text"
        ) from None


def decode(layout: Layout, columns: Sequence[Column], n: int) -> list[Any]:
    """Put ``n`` samples together again from their columns."""
    return _assemble(layout, iter(columns), n)


def as_bytes(values: torch.Tensor) -> torch.Tensor:
    """View a tensor ``(n, ...)`` as ``(n, bytes)``."""
    n = values.shape[0]
    return values.contiguous().reshape(n, math.prod(values.shape[1:])).view(torch.uint8)


def widths(layout: Layout) -> list[int | None]:
    """Bytes of a row of each column; ``None`` for texts."""
    kind, inner, outer = layout
    if kind in ("tuple", "list", "dict"):
        return [width for child in inner for width in widths(child)]
    if kind in ("none", "str"):
        return [] if kind == "none" else [None]
    return [_itemsize(kind, inner) * math.prod(outer)]


def sample_bytes(layout: Layout) -> int:
    """Bytes of the tensors and arrays of a sample."""
    kind, inner, outer = layout
    if kind in ("tuple", "list", "dict"):
        return sum(map(sample_bytes, inner))
    return _itemsize(kind, inner) * math.prod(outer) if kind in ("tensor", "array") else 0


def _assemble(layout: Layout, columns: Iterator[Column], n: int) -> list[Any]:
    kind, inner, outer = layout
    if kind in ("tuple", "list", "dict"):
        parts = [_assemble(child, columns, n) for child in inner]
        rows = list(zip(*parts, strict=True)) if parts else [()] * n
        if kind == "dict":
            return [dict(zip(outer, row, strict=True)) for row in rows]
        return [list(row) for row in rows] if kind == "list" else rows
    if kind == "none":
        return [None] * n
    column = next(columns)
    if not isinstance(column, torch.Tensor):
        return list(column)
    if kind == "array":
        dtype = np.dtype(inner)
        return list(column.contiguous().numpy().reshape(-1).view(dtype).reshape(n, *outer))
    if kind == "tensor":
        return list(_as_dtype(column, getattr(torch, inner)).reshape(n, *outer).unbind(0))
    return _as_dtype(column, _NUMBERS[kind]).tolist()


def _as_dtype(column: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # Flat, because an empty row cannot be viewed as another dtype, and an empty tensor can.
    return column.contiguous().reshape(-1).view(dtype)


def _itemsize(kind: str, dtype: str) -> int:
    if kind == "array":
        return np.dtype(dtype).itemsize
    return (getattr(torch, dtype) if kind == "tensor" else _NUMBERS[kind]).itemsize


def _as_tuples(part: Any) -> Any:
    return tuple(map(_as_tuples, part)) if isinstance(part, list) else part
