"""The structure of a sample, and samples of one structure as columns of bytes.

A column has one part of each sample, such as all images. It has a row of bytes for each sample,
for any dtype, so all columns can be stored, mapped from a file and saved in the same way. Texts
and bytes have no fixed size; their column is a list. Those of NumPy are returned as plain ones. A
named tuple is returned as one with the same name and fields, and an ``OrderedDict`` as a ``dict``.
"""

from __future__ import annotations

import ast
import functools
import json
import math
from collections import OrderedDict, namedtuple
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch

from greentrain.errors import ConfigurationError

Layout = tuple[Any, ...]
"""``(kind, dtype, shape)`` of a leaf, or ``("tuple" | "list" | "dict", children, keys)``.

The keys of a ``"namedtuple"`` are its name and its fields.
"""
Column = torch.Tensor | list[str]

_CONTAINERS = ("tuple", "list", "dict", "namedtuple")
_TEXTS = ("str", "bytes", "texts")
_NUMBERS = {"bool": torch.bool, "int": torch.int64, "float": torch.float64}
_KINDS = {bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", type(None): "none"}


def layout_of(sample: Any) -> Layout:
    """Return the structure of a sample.

    Raises:
        ConfigurationError: If it contains a value that cannot be stored.

    Example:
        >>> format_layout(layout_of({"image": torch.zeros(3, 8, 8), "label": 3}))
        '{image: float32[3, 8, 8], label: int}'
    """
    kind = type(sample)
    if isinstance(sample, torch.Tensor) and sample.layout is torch.strided:
        return ("tensor", str(sample.dtype).removeprefix("torch."), tuple(sample.shape))
    if isinstance(sample, (np.ndarray, np.generic)) and not sample.dtype.hasobject:
        if sample.dtype.kind in "US":  # texts of NumPy differ in dtype with their length
            alone = "str" if sample.dtype.kind == "U" else "bytes"
            shape = tuple(sample.shape)
            return ("texts", sample.dtype.kind, shape) if shape else (alone, "", ())
        return ("array", _dtype_text(sample.dtype), tuple(sample.shape))
    if kind in (tuple, list):
        return (kind.__name__, tuple(layout_of(part) for part in sample), ())
    if isinstance(sample, tuple) and hasattr(sample, "_fields"):
        return ("namedtuple", tuple(map(layout_of, sample)), (kind.__name__, *sample._fields))
    if kind in (dict, OrderedDict) and all(type(key) in (str, int) for key in sample):
        return ("dict", tuple(layout_of(part) for part in sample.values()), tuple(sample))
    if kind in _KINDS:
        return (_KINDS[kind], "", ())
    raise ConfigurationError(
        f"a sample holds a {kind.__name__}, which a buffer cannot store. Use tensors, NumPy "
        "arrays, numbers, texts, bytes and None, in tuples, lists, and dicts with texts or whole "
        "numbers as keys"
    )


def format_layout(layout: Layout) -> str:
    """Return a layout as text for error messages."""
    kind, inner, outer = layout
    if kind == "tuple":
        return f"({', '.join(map(format_layout, inner))})"
    if kind == "list":
        return f"[{', '.join(map(format_layout, inner))}]"
    if kind == "dict":
        parts = zip(outer, inner, strict=True)
        return f"{{{', '.join(f'{key}: {format_layout(part)}' for key, part in parts)}}}"
    if kind == "namedtuple":
        fields = zip(outer[1:], inner, strict=True)
        return f"{outer[0]}({', '.join(f'{key}={format_layout(part)}' for key, part in fields)})"
    if kind == "texts":
        return f"array of {'texts' if inner == 'U' else 'bytes'}{list(outer)}"
    if kind in ("tensor", "array"):
        name = inner if kind == "tensor" else f"array {_dtype(inner)}"
        return f"{name}{list(outer)}"
    return str(kind)


def to_text(layout: Layout) -> str:
    """Return a layout as text that :func:`from_text` reads."""
    return json.dumps(layout)


def from_text(text: str) -> Layout:
    """Return the layout that :func:`to_text` wrote."""
    return _as_tuples(json.loads(text))  # type: ignore[no-any-return]


def encode(layout: Layout, samples: Sequence[Any]) -> list[Column]:
    """Split one or more samples of one layout into columns."""
    columns = zip(*map(_leaf_values, samples), strict=True)
    return [
        _encoded(kind, values)
        for (kind, _, _), values in zip(_leaves(layout), columns, strict=True)
        if kind != "none"
    ]


def _encoded(kind: str, values: Sequence[Any]) -> Column:
    if kind == "str":
        return [str(value) for value in values]
    if kind == "bytes":
        return [_plain_bytes(value).decode("latin-1") for value in values]
    if kind == "texts":
        return [_texts_of(value) for value in values]
    if kind == "array":
        stacked = np.stack([np.asarray(value) for value in values])
        return torch.from_numpy(stacked.reshape(len(values), -1).view(np.uint8))
    if kind == "tensor":
        return as_bytes(torch.stack([value.detach().cpu() for value in values]))
    try:
        return as_bytes(torch.tensor(values, dtype=_NUMBERS[kind]))
    except (OverflowError, RuntimeError, ValueError):  # which one depends on torch's version
        raise ConfigurationError(
            "a sample holds a whole number beyond 64 bits, which a buffer cannot store; write it "
            "as a text"
        ) from None


def decode(layout: Layout, columns: Sequence[Column], n: int) -> list[Any]:
    """Assemble ``n`` samples from their columns."""
    return _assemble(layout, iter(columns), n)


def as_bytes(values: torch.Tensor) -> torch.Tensor:
    """View a tensor ``(n, ...)`` as ``(n, bytes)``."""
    n = values.shape[0]
    return values.contiguous().reshape(n, math.prod(values.shape[1:])).view(torch.uint8)


def widths(layout: Layout) -> list[int | None]:
    """Return the bytes of a row of each column; ``None`` for texts."""
    return [
        None if kind in _TEXTS else _itemsize(kind, dtype) * math.prod(shape)
        for kind, dtype, shape in _leaves(layout)
        if kind != "none"
    ]


def sample_bytes(layout: Layout) -> int:
    """Return the bytes of the tensors and arrays of a sample."""
    return sum(
        _itemsize(kind, dtype) * math.prod(shape)
        for kind, dtype, shape in _leaves(layout)
        if kind in ("tensor", "array")
    )


def _leaves(layout: Layout) -> list[Layout]:
    kind, inner, _ = layout
    return [leaf for part in inner for leaf in _leaves(part)] if kind in _CONTAINERS else [layout]


def _leaf_values(sample: Any) -> list[Any]:
    if isinstance(sample, (tuple, list, dict)):
        parts = sample.values() if isinstance(sample, dict) else sample
        return [value for part in parts for value in _leaf_values(part)]
    return [sample]


def _assemble(layout: Layout, columns: Iterator[Column], n: int) -> list[Any]:
    kind, inner, outer = layout
    if kind in _CONTAINERS:
        parts = [_assemble(child, columns, n) for child in inner]
        rows = list(zip(*parts, strict=True)) if parts else [()] * n
        if kind == "dict":
            return [dict(zip(outer, row, strict=True)) for row in rows]
        if kind == "namedtuple":
            return list(map(_named(*outer)._make, rows))
        return [list(row) for row in rows] if kind == "list" else rows
    if kind == "none":
        return [None] * n
    column = next(columns)
    if not isinstance(column, torch.Tensor):
        return [_text_value(kind, inner, outer, value) for value in column]
    if kind == "array":
        dtype = _dtype(inner)
        return list(column.contiguous().numpy().reshape(-1).view(dtype).reshape(n, *outer))
    if kind == "tensor":
        return list(_as_dtype(column, getattr(torch, inner)).reshape(n, *outer).unbind(0))
    return _as_dtype(column, _NUMBERS[kind]).tolist()


def _as_dtype(column: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    # Flat, because an empty row cannot be viewed as another dtype, and an empty tensor can.
    return column.contiguous().reshape(-1).view(dtype)


def _itemsize(kind: str, dtype: str) -> int:
    if kind == "array":
        return _dtype(dtype).itemsize
    return (getattr(torch, dtype) if kind == "tensor" else _NUMBERS[kind]).itemsize


def _as_tuples(part: Any) -> Any:
    return tuple(map(_as_tuples, part)) if isinstance(part, list) else part


def _dtype_text(dtype: np.dtype[Any]) -> str:
    """Return a dtype as text; that of a structured array with its fields."""
    return dtype.str if dtype.names is None else repr(np.lib.format.dtype_to_descr(dtype))


def _dtype(text: str) -> np.dtype[Any]:
    return (
        np.lib.format.descr_to_dtype(ast.literal_eval(text)) if text[0] == "[" else np.dtype(text)
    )


def _plain_bytes(value: Any) -> bytes:
    return bytes(value.item() if isinstance(value, np.ndarray) else value)


def _texts_of(values: Any) -> str:
    flat = values.reshape(-1).tolist()
    return json.dumps([each if isinstance(each, str) else each.decode("latin-1") for each in flat])


def _text_value(kind: str, inner: str, shape: tuple[int, ...], text: str) -> Any:
    if kind == "texts":
        found = json.loads(text)
        flat = [each.encode("latin-1") for each in found] if inner == "S" else found
        return np.array(flat, dtype=inner).reshape(shape)
    return text.encode("latin-1") if kind == "bytes" else text


@functools.cache
def _named(name: str, *fields: str) -> Any:
    """Return a class of named tuples whose instances can be sent to another process."""
    made = cast(Any, namedtuple(name, fields))
    made.__reduce__ = lambda self: (_named_tuple, (name, fields, tuple(self)))
    return made


def _named_tuple(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> Any:
    return _named(name, *fields)._make(values)
