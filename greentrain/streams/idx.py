"""Reading IDX files, in which MNIST and Fashion-MNIST are published."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import torch

from greentrain.errors import ConfigurationError

_UNSIGNED_BYTES = 0x08


def read_idx(path: Path, *, dimensions: int) -> torch.Tensor:
    """Read an IDX file of unsigned bytes, gzipped or not.

    The format is LeCun's: two zero bytes, the type, the number of dimensions, their sizes as
    big-endian 32-bit numbers, the values (https://yann.lecun.com/exdb/mnist/).

    Args:
        path: The file.
        dimensions: How many it has to have: 1 for labels, 3 for images.

    Returns:
        The values, ``torch.uint8``.

    Raises:
        ConfigurationError: If it cannot be read or is not such a file.
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigurationError(f"cannot read {str(path)!r}: {error}") from None
    begin = 4 + 4 * dimensions
    if len(data) < begin or data[:4] != bytes((0, 0, _UNSIGNED_BYTES, dimensions)):
        raise ConfigurationError(
            f"{str(path)!r} begins with {data[:4].hex() or 'nothing'}; an IDX file of bytes in "
            f"{dimensions} dimensions begins with 000008{dimensions:02x}"
        )
    shape = struct.unpack(f">{dimensions}I", data[4:begin])
    if len(data) - begin != math.prod(shape):
        raise ConfigurationError(
            f"{str(path)!r} holds {len(data) - begin} values and says that it has "
            f"{' x '.join(map(str, shape))}; it is cut short or damaged"
        )
    values = torch.frombuffer(bytearray(data[begin:]), dtype=torch.uint8) if shape[0] else None
    return torch.zeros(shape, dtype=torch.uint8) if values is None else values.reshape(shape)
