from __future__ import annotations

import gc
import gzip
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sklearn.datasets
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams import digits, fashion_mnist, mnist
from greentrain.streams.images import FASHION_MNIST, MNIST, IdxFiles, load, read_idx

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
NAMES = (TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS)


def idx(values: bytes, *shape: int) -> bytes:
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape) + values


def pictures(n: int) -> bytes:
    """``n`` images; each pixel of image ``i`` is ``5 * i``."""
    return idx(b"".join(bytes([5 * i]) * 784 for i in range(n)), n, 28, 28)


# Three images to train on and two to test.
FILES = dict(
    zip(
        NAMES,
        (pictures(3), idx(bytes([7, 0, 9]), 3), pictures(2), idx(bytes([1, 2]), 2)),
        strict=True,
    )
)


def fill(folder: Path, **changed: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **changed}.items():
        (folder / name).write_bytes(content)
    return folder


def check_small(loaded: tuple[TensorDataset, TensorDataset]) -> None:
    (images, labels), (test_images, test_labels) = (dataset.tensors for dataset in loaded)
    assert (images.shape, images.dtype) == ((3, 1, 28, 28), torch.float32)
    assert images[:, 0, 3, 4].tolist() == pytest.approx([0.0, 5 / 255, 10 / 255])
    assert (labels.tolist(), labels.dtype) == ([7, 0, 9], torch.int64)
    assert (test_images.shape, test_labels.tolist()) == ((2, 1, 28, 28), [1, 2])


@pytest.mark.parametrize("load_them", [mnist, fashion_mnist])
@pytest.mark.parametrize("zipped", [False, True])
def test_files_are_read_from_a_folder(
    load_them: Callable[..., tuple[TensorDataset, TensorDataset]], zipped: bool, tmp_path: Path
) -> None:
    folder = fill(tmp_path)
    if zipped:
        for name in NAMES:
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
            (tmp_path / name).unlink()
    check_small(load_them(folder=folder))
    check_small(load_them(folder=str(folder)))


@pytest.mark.parametrize(
    ("load_them", "name"), [(mnist, "mnist"), (fashion_mnist, "fashion-mnist")]
)
def test_the_environment_names_the_folder_of_folders(
    load_them: Callable[..., tuple[TensorDataset, TensorDataset]],
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill(tmp_path / name)
    monkeypatch.setenv("GREENTRAIN_DATA", str(tmp_path))
    check_small(load_them())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / TEST_IMAGES).unlink()
    with pytest.raises(ConfigurationError, match=f"holds no {TEST_IMAGES} or {TEST_IMAGES}.gz"):
        mnist(folder=tmp_path)
    with pytest.raises(ConfigurationError, match="four IDX files of Fashion-MNIST are needed"):
        fashion_mnist(folder=tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        (
            TRAIN_IMAGES,
            b"",
            "begins with nothing; an IDX file of bytes in 3 dimensions begins with",
        ),
        (TRAIN_IMAGES, b"\x89PNG and more" * 9, "begins with 89504e47; an IDX file"),
        (TRAIN_IMAGES, FILES[TRAIN_LABELS], "begins with 00000801; an IDX file of bytes in 3"),
        (
            TRAIN_LABELS,
            b"\0\0\x0d\x01" + bytes(8),
            "begins with 00000d01; an IDX file of bytes in 1",
        ),
        (
            TRAIN_IMAGES,
            FILES[TRAIN_IMAGES][:-1],
            "holds 2351 values and says that it has 3 x 28 x 28",
        ),
        (TRAIN_LABELS, FILES[TRAIN_LABELS] + b"\0", "holds 4 values and says that it has 3; it is"),
        (TRAIN_LABELS, FILES[TRAIN_LABELS][:6], "begins with 00000801; an IDX file"),
        (TRAIN_LABELS, idx(bytes([1, 2]), 2), "holds 3 images and"),
        (TRAIN_LABELS, idx(bytes([1, 2, 10]), 3), "holds the label 10; labels are 0 to 9"),
        (
            TRAIN_IMAGES,
            idx(bytes(3 * 64), 3, 8, 8),
            "holds images of 8 x 8 pixels; they are 28 x 28",
        ),
        (TRAIN_IMAGES, gzip.compress(FILES[TRAIN_IMAGES], mtime=0)[:-20], "cannot read"),
        (TRAIN_IMAGES, b"\x1f\x8b\x08rubbish", "cannot read"),
    ],
)
def test_a_damaged_or_foreign_file_is_named(
    name: str, content: bytes, complaint: str, tmp_path: Path
) -> None:
    folder = fill(tmp_path, **{name: content})
    with pytest.raises(ConfigurationError) as caught:
        mnist(folder=folder)
    assert complaint in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_images_at_all_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, **{TRAIN_IMAGES: idx(b"", 0, 28, 28), TRAIN_LABELS: idx(b"", 0)})
    with pytest.raises(ConfigurationError, match="holds 0 images"):
        mnist(folder=tmp_path)


def test_an_idx_file_is_read_by_rows(tmp_path: Path) -> None:
    path = tmp_path / "values"
    path.write_bytes(idx(bytes(range(12)), 2, 2, 3))
    assert read_idx(path, dimensions=3)[1].tolist() == [[6, 7, 8], [9, 10, 11]]
    with pytest.raises(ConfigurationError, match=r"cannot read .*Is a directory"):
        read_idx(tmp_path, dimensions=1)


class Quiet(SimpleHTTPRequestHandler):
    def __init__(self, *args: object, asked: list[str], **options: object) -> None:
        self.asked = asked
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


class Site:
    """Files published by a server on this machine, and the requests it received."""

    def __init__(self, folder: Path, server: ThreadingHTTPServer, asked: list[str]) -> None:
        self.asked = asked
        zipped = [gzip.compress(content, mtime=0) for content in FILES.values()]
        for name, content in zip(NAMES, zipped, strict=True):
            (folder / f"{name}.gz").write_bytes(content)
        sums = tuple(hashlib.md5(content).hexdigest() for content in zipped)
        self.published = IdxFiles(
            name="small",
            title="Small MNIST",
            url=f"http://127.0.0.1:{server.server_port}/",
            md5=sums,  # type: ignore[arg-type]
        )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GREENTRAIN_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder, asked = tmp_path / "site", []
    folder.mkdir()
    handler = partial(Quiet, directory=str(folder), asked=asked)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Site(folder, server, asked)
        server.shutdown()
        thread.join()


def test_files_are_downloaded_once(site: Site, tmp_path: Path) -> None:
    check_small(load(site.published))
    assert site.asked == [f"/{name}.gz" for name in NAMES]
    check_small(load(site.published))
    assert len(site.asked) == 4
    cached = list((tmp_path / "cache" / "greentrain" / "small").iterdir())
    assert sorted(path.name for path in cached) == sorted(f"{name}.gz" for name in NAMES)


def test_a_file_of_another_checksum_is_refused(site: Site, tmp_path: Path) -> None:
    sums = (*site.published.md5[:3], "0" * 32)
    with pytest.raises(ConfigurationError) as caught:
        load(replace(site.published, md5=sums))
    message = str(caught.value)
    assert message.startswith("cannot download Small MNIST from http://127.0.0.1:")
    assert "hash" in message
    assert "\n" not in message
    assert not (tmp_path / "cache" / "greentrain" / "small" / f"{TEST_LABELS}.gz").exists()


# requests leaves the connection of a page that is not there to be collected.
@pytest.mark.filterwarnings("ignore:unclosed <socket")
@pytest.mark.parametrize("path", ["nowhere/", None])
def test_without_the_server_it_is_said_where_to_put_the_files(site: Site, path: str | None) -> None:
    # A missing page, and a port without a server.
    url = "http://127.0.0.1:9/" if path is None else site.published.url + path
    with pytest.raises(ConfigurationError) as caught:
        load(replace(site.published, url=url))
    message = str(caught.value)
    assert "put its four IDX files into 'small' of a folder, and set the environment" in message
    assert "GREENTRAIN_DATA" in message
    assert "\n" not in message
    del caught
    gc.collect()


def test_a_folder_of_data_without_these_does_not_stop_the_download(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREENTRAIN_DATA", str(tmp_path / "site"))
    check_small(load(site.published))


@pytest.mark.parametrize("published", [MNIST, FASHION_MNIST])
def test_what_is_published_is_whole(published: IdxFiles) -> None:
    assert published.url.endswith("/")
    assert len(set(published.md5)) == 4
    assert all(len(bytes.fromhex(each)) == 16 for each in published.md5)


@pytest.mark.slow
@pytest.mark.skipif("GREENTRAIN_DATA" not in os.environ, reason="GREENTRAIN_DATA is not set")
@pytest.mark.parametrize(
    ("load_them", "mean", "deviation", "first_class"),
    # As published; MNIST's classes are not of one size.
    [(mnist, 0.1307, 0.3081, (5923, 980)), (fashion_mnist, 0.2860, 0.3530, (6000, 1000))],
)
def test_the_real_data_are_those_published(
    load_them: Callable[..., tuple[TensorDataset, TensorDataset]],
    mean: float,
    deviation: float,
    first_class: tuple[int, int],
) -> None:
    train, test = load_them()
    assert (len(train), len(test)) == (60_000, 10_000)
    pixels = train.tensors[0]
    assert float(pixels.mean()) == pytest.approx(mean, abs=1e-4)
    assert float(pixels.std()) == pytest.approx(deviation, abs=1e-4)
    assert (float(pixels.min()), float(pixels.max())) == (0.0, 1.0)
    zeros = tuple(int((data.tensors[1] == 0).sum()) for data in (train, test))
    assert zeros == first_class
    assert all(len(data.tensors[1].unique()) == 10 for data in (train, test))


def test_digits_are_scikit_learns() -> None:
    train, test = digits()
    real, labels = sklearn.datasets.load_digits(return_X_y=True)
    images = torch.cat([train.tensors[0], test.tensors[0]])
    assert (images.shape, images.dtype) == ((1797, 1, 8, 8), torch.float32)
    assert torch.equal(images.flatten(1), torch.from_numpy(real / 16.0).float())
    assert torch.cat([train.tensors[1], test.tensors[1]]).tolist() == labels.tolist()
    assert len(test) == 360
    # Each class is there in both.
    assert torch.bincount(test.tensors[1]).min() >= 33
