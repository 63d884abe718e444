"""MNIST and Fashion-MNIST, from IDX files in a folder or downloaded once."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError

DATA_VARIABLE = "GREENTRAIN_DATA"
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SIDE = 28
_CLASSES = 10
_UNSIGNED_BYTES = 0x08


@dataclass(frozen=True, slots=True, kw_only=True)
class IdxFiles:
    """A published dataset of four gzipped IDX files.

    Args:
        name: Name of the folder of the files.
        title: Name of the dataset for people.
        url: Address of the files, with a slash at its end.
        md5: Checksums of training images, training labels, test images and test labels.
    """

    name: str
    title: str
    url: str
    md5: tuple[str, str, str, str]


MNIST = IdxFiles(
    name="mnist",
    title="MNIST",
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    md5=(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
FASHION_MNIST = IdxFiles(
    name="fashion-mnist",
    title="Fashion-MNIST",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    md5=(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    ),
)


def mnist(*, folder: str | Path | None = None) -> tuple[TensorDataset, TensorDataset]:
    """Load MNIST (LeCun et al. 1998): 60,000 handwritten digits to train on, 10,000 to test.

    The four IDX files, gzipped or not, are read from ``folder``, or else from the subfolder
    ``mnist`` of the folder in the environment variable ``GREENTRAIN_DATA``. Otherwise they are
    downloaded once to the user's cache, and their checksums are verified.

    Args:
        folder: Folder of the four files.

    Returns:
        Training and test data: images ``(n, 1, 28, 28)`` in [0, 1], ``float32``, and labels 0 to
        9, ``int64``.

    Raises:
        ConfigurationError: If a file is missing, damaged or of something else, or cannot be
            downloaded.
    """
    return load(MNIST, folder)


def fashion_mnist(*, folder: str | Path | None = None) -> tuple[TensorDataset, TensorDataset]:
    """Load Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): pictures of clothes.

    Everything is as for :func:`mnist`, but the default subfolder is ``fashion-mnist``.
    """
    return load(FASHION_MNIST, folder)


def load(source: IdxFiles, folder: str | Path | None = None) -> tuple[TensorDataset, TensorDataset]:
    """Load a dataset of four IDX files of images and labels, as :func:`mnist` does.

    Args:
        source: The published files.
        folder: Folder of the files.
    """
    if folder is None and (root := os.environ.get(DATA_VARIABLE)):
        usual = Path(root) / source.name
        folder = usual if usual.is_dir() else None
    if folder is None:
        paths = [_download(source, *each) for each in zip(_FILES, source.md5, strict=True)]
    else:
        paths = [_in_folder(Path(folder), file, source.title) for file in _FILES]
    return _pair(paths[0], paths[1]), _pair(paths[2], paths[3])


def read_idx(path: Path, *, dimensions: int) -> torch.Tensor:
    """Read an IDX file of unsigned bytes, gzipped or not.

    The format is LeCun's: two zero bytes, the type, the number of dimensions, their sizes as
    big-endian 32-bit numbers, the values (https://yann.lecun.com/exdb/mnist/).

    Args:
        path: The file.
        dimensions: Number of dimensions that it must have: 1 for labels, 3 for images.

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
    return torch.tensor(np.frombuffer(data[begin:], np.uint8).reshape(shape))


def _in_folder(folder: Path, file: str, title: str) -> Path:
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise ConfigurationError(
        f"{str(folder)!r} holds no {file} or {file}.gz; the four IDX files of {title} are needed "
        "there"
    )


def _download(source: IdxFiles, file: str, md5: str) -> Path:
    import pooch  # needed for downloads only

    url = f"{source.url}{file}.gz"
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"md5:{md5}",
            fname=f"{file}.gz",
            path=pooch.os_cache("greentrain") / source.name,
        )
    # No network, no such page, another checksum, or no home for the cache.
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"cannot download {source.title} from {url} ({reason}); put its four IDX files into "
            f"{source.name!r} of a folder, and set the environment variable {DATA_VARIABLE} to it"
        ) from None
    return Path(path)


def _pair(images_path: Path, labels_path: Path) -> TensorDataset:
    images = read_idx(images_path, dimensions=3)
    labels = read_idx(labels_path, dimensions=1)
    if images.shape[1:] != (_SIDE, _SIDE):
        height, width = images.shape[1:]
        raise ConfigurationError(
            f"{str(images_path)!r} holds images of {height} x {width} pixels; they are "
            f"{_SIDE} x {_SIDE}"
        )
    if len(images) != len(labels) or not len(images):
        raise ConfigurationError(
            f"{str(images_path)!r} holds {len(images)} images and {str(labels_path)!r} "
            f"{len(labels)} labels; the numbers have to be equal and not 0"
        )
    if int(labels.max()) >= _CLASSES:
        raise ConfigurationError(
            f"{str(labels_path)!r} holds the label {int(labels.max())}; labels are 0 to "
            f"{_CLASSES - 1}"
        )
    return TensorDataset(images.unsqueeze(1).float().div_(255.0), labels.long())
