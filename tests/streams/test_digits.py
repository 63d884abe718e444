from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
import sklearn.datasets
import torch
from torch.utils.data import Dataset

from greentrain.streams import Experience, Stream, digits_stream

IDS = [
    "0-first",
    "1-more",
    "2-again",
    "3-new-classes",
    "4-inverted",
    "5-new-classes",
    "6-more",
    "7-dim",
]
# Which digits come, and how many of each.
BRINGS = [(range(6), 40), (range(6), 25), (range(6), 25), ((6, 7), 70), (range(8), 25)]
BRINGS += [((8, 9), 70), (range(10), 20), (range(10), 20)]


def tensors(dataset: Dataset[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return dataset.tensors  # type: ignore[attr-defined,no-any-return]


def images(experience: Experience) -> torch.Tensor:
    return torch.cat([tensors(experience.train)[0], tensors(experience.val)[0]])


def labels(experience: Experience) -> torch.Tensor:
    return torch.cat([tensors(experience.train)[1], tensors(experience.val)[1]])


@pytest.fixture(scope="module")
def stream() -> Stream:
    return digits_stream()


@pytest.fixture(params=[0, 1])
def codes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Samples of each split, for images that can be distinguished under any shift.

    Each digit is replaced by 64 random black and white pixels. A sample that was inverted, dimmed
    or made noisy is still nearest to its own.
    """
    real, real_labels = sklearn.datasets.load_digits(return_X_y=True)
    pixels = np.random.default_rng(0).integers(0, 2, real.shape) * 16.0
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda return_X_y: (pixels, real_labels))
    known = torch.from_numpy(pixels / 16.0).float()
    splits = {}
    for experience in digits_stream(seed=request.param):
        for name in ("train", "val"):
            seen = tensors(getattr(experience, name))[0]
            if experience.id == "4-inverted":
                seen = 1.0 - seen
            if experience.id == "7-dim":
                seen = 2.0 * seen
            splits[f"{experience.id} {name}"] = torch.cdist(seen, known).argmin(dim=1).tolist()
    return splits


def test_eight_experiences_come_as_described(stream: Stream) -> None:
    assert [experience.id for experience in stream] == IDS
    for experience, (digits, count) in zip(stream, BRINGS, strict=True):
        found = torch.bincount(labels(experience), minlength=10).tolist()
        assert found == [count if digit in digits else 0 for digit in range(10)]
        assert experience.metadata["brings"]


def test_a_quarter_is_held_out(stream: Stream) -> None:
    for experience in stream:
        whole = len(labels(experience))
        assert len(tensors(experience.val)[1]) == whole // 4


def test_a_sample_is_64_pixels_between_0_and_1_and_a_label(stream: Stream) -> None:
    for experience in stream:
        pixels = images(experience)
        assert (pixels.shape[1:], pixels.dtype) == ((64,), torch.float32)
        assert 0.0 <= pixels.min() <= pixels.max() <= 1.0
        assert labels(experience).dtype == torch.int64


def test_no_sample_is_in_two_experiences_but_the_repeat(codes: dict[str, list[int]]) -> None:
    held = {id: {*codes[f"{id} train"], *codes[f"{id} val"]} for id in IDS}
    assert held["2-again"] == held["1-more"]
    for one, two in combinations([id for id in IDS if id != "2-again"], 2):
        assert not held[one] & held[two]


def test_no_sample_is_both_trained_and_measured_on(codes: dict[str, list[int]]) -> None:
    trained = [code for name, found in codes.items() if name.endswith("train") for code in found]
    measured = [code for name, found in codes.items() if name.endswith("val") for code in found]
    assert not set(trained) & set(measured)
    # Nor is any there twice, but for the repeat's.
    assert len(trained) - len(codes["2-again train"]) == len(set(trained))
    assert len(measured) - len(codes["2-again val"]) == len(set(measured))


def test_the_repeat_is_what_was_there_before(stream: Stream) -> None:
    assert (stream[2].train, stream[2].val) == (stream[1].train, stream[1].val)


def test_the_first_shift_is_dark_on_light(stream: Stream) -> None:
    # Most of an image is paper: 0 in the dataset, 1 when inverted.
    assert float(images(stream[6]).median()) < 0.5 < float(images(stream[4]).median())
    real = sklearn.datasets.load_digits(return_X_y=True)[0] / 16.0
    inverted = {(1.0 - image).astype(np.float32).tobytes() for image in real}
    assert {image.numpy().tobytes() for image in images(stream[4])} <= inverted


def test_the_second_shift_is_dim_and_noisy(stream: Stream) -> None:
    bright, dim = images(stream[6]), images(stream[7])
    assert float(dim.quantile(0.95)) < 0.75 * float(bright.quantile(0.95))
    # Noise is where the paper is blank in every image of the dataset: the first column.
    blank = torch.arange(0, 64, 8)
    assert float(bright[:, blank].mean()) < 0.01 < float(dim[:, blank].mean())


def test_the_seed_decides_which_samples_come(stream: Stream) -> None:
    again, other = digits_stream(seed=0), digits_stream(seed=1)
    for one, two in zip(stream, again, strict=True):
        assert torch.equal(images(one), images(two))
        assert torch.equal(labels(one), labels(two))
    assert not torch.equal(images(stream[0]), images(other[0]))
