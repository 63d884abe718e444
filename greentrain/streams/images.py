"""MNIST and Fashion-MNIST, from a folder or downloaded once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams.idx import read_idx

DATA_VARIABLE = "GREENTRAIN_DATA"
_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_SIDE = 28
_CLASSES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Four IDX files that somebody publishes, gzipped.

    Args:
        name: Name of the folder that holds them.
        title: What people call them.
        url: Where they are, with a slash at its end.
        md5: Checksums of training images, training labels, test images and test labels.
    """

    name: str
    title: str
    url: str
    md5: tuple[str, str, str, str]


MNIST = Published(
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
FASHION_MNIST = Published(
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

    The four IDX files, gzipped or not, are looked for in ``folder``, else in ``mnist`` of the
    folder that the environment variable ``GREENTRAIN_DATA`` names. Failing both, they are
    downloaded once, with their checksums, into the user's cache.

    Args:
        folder: Where the four files are.

    Returns:
        Training and test data: images ``(n, 1, 28, 28)`` in [0, 1], ``float32``, and labels 0 to
        9, ``int64``.

    Raises:
        ConfigurationError: If a file is missing, damaged or of something else, or cannot be
            downloaded.
    """
    return load(MNIST, folder)


def fashion_mnist(*, folder: str | Path | None = None) -> tuple[TensorDataset, TensorDataset]:
    """Load Fashion-MNIST (Xiao et al. 2017, arXiv 1708.07747): pictures of clothes, as MNIST.

    Args:
        folder: Where the four files are; ``fashion-mnist`` in the folder named by
            ``GREENTRAIN_DATA`` by default, and else downloaded as :func:`mnist` is.

    Returns:
        As :func:`mnist`.

    Raises:
        ConfigurationError: As :func:`mnist`.
    """
    return load(FASHION_MNIST, folder)


def load(
    published: Published, folder: str | Path | None = None
) -> tuple[TensorDataset, TensorDataset]:
    """Load what is published as four IDX files of images and labels.

    Args:
        published: What, and where it is downloaded from.
        folder: Where the files are, if they are there.

    Returns:
        As :func:`mnist`.

    Raises:
        ConfigurationError: As :func:`mnist`.
    """
    place = _folder(published, folder)
    if place is None:
        paths = [_download(published, *each) for each in zip(_FILES, published.md5, strict=True)]
    else:
        paths = [_in_folder(place, file, published.title) for file in _FILES]
    return _pair(paths[0], paths[1]), _pair(paths[2], paths[3])


def _folder(published: Published, folder: str | Path | None) -> Path | None:
    if folder is not None:
        return Path(folder)
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        return None
    usual = Path(named) / published.name
    return usual if usual.is_dir() else None


def _in_folder(folder: Path, file: str, title: str) -> Path:
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    raise ConfigurationError(
        f"{str(folder)!r} holds no {file} or {file}.gz; the four IDX files of {title} are needed "
        "there"
    )


def _download(published: Published, file: str, md5: str) -> Path:
    import pooch  # for those who download

    url = f"{published.url}{file}.gz"
    try:
        path = pooch.retrieve(
            url,
            known_hash=f"md5:{md5}",
            fname=f"{file}.gz",
            path=pooch.os_cache("greentrain") / published.name,
        )
    except (OSError, ValueError) as error:  # no network, no such page, another checksum
        reason = str(error).partition("\n")[0]
        raise ConfigurationError(
            f"cannot download {published.title} from {url} ({reason}); put its four IDX files into "
            f"{published.name!r} of a folder that the environment variable {DATA_VARIABLE} names"
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
            f"{len(labels)} labels; it has to be as many, and some"
        )
    if int(labels.max()) >= _CLASSES:
        raise ConfigurationError(
            f"{str(labels_path)!r} holds the label {int(labels.max())}; labels are 0 to "
            f"{_CLASSES - 1}"
        )
    return TensorDataset(images.unsqueeze(1).float().div_(255.0), labels.long())
