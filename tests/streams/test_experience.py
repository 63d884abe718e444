from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams import Experience

DATA = TensorDataset(torch.zeros(3, 2))
EMPTY = TensorDataset(torch.zeros(0, 2))


class Endless(IterableDataset[int]):
    """A dataset without a length or an index."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()


class Unsized(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return index


def test_an_experience_is_named_data_to_train_and_to_measure_on() -> None:
    experience = Experience("0-first", DATA, DATA, metadata={"brings": "digits"})
    assert (experience.id, experience.train, experience.val) == ("0-first", DATA, DATA)
    assert experience.metadata == {"brings": "digits"}
    assert experience.test is None
    plain = Experience("0-first", [1, 2], [3], test=[4])  # type: ignore[arg-type]
    assert (plain.metadata, plain.test) == ({}, [4])


@pytest.mark.parametrize("id", ["", None, 3])
def test_a_name_is_a_text(id: Any) -> None:
    with pytest.raises(ConfigurationError, match="experience's id is"):
        Experience(id, DATA, DATA)


@pytest.mark.parametrize(
    ("dataset", "complaint"),
    [
        (EMPTY, "holds no samples; {} data is needed"),
        (Endless(), "is a Endless; it has to be a map-style dataset"),
        (Unsized(), "is a Unsized; it has to be a map-style dataset"),
        (7, "is a int; it has to be a map-style dataset"),
    ],
)
@pytest.mark.parametrize("name", ["train", "val", "test"])
def test_what_is_wrong_with_a_dataset_is_said_by_name(
    name: str, dataset: Any, complaint: str
) -> None:
    given = {"train": DATA, "val": DATA, name: dataset}
    with pytest.raises(ConfigurationError) as caught:
        Experience("0-first", **given)
    purpose = {"train": "training", "val": "validation", "test": "test"}[name]
    assert str(caught.value).startswith(f"{name} of experience '0-first' ")
    assert complaint.format(purpose) in str(caught.value)


@pytest.mark.parametrize(("name", "purpose"), [("train", "training"), ("val", "validation")])
def test_data_to_train_and_to_measure_on_are_needed(name: str, purpose: str) -> None:
    given: dict[str, Any] = {"train": DATA, "val": DATA, name: None}
    with pytest.raises(ConfigurationError) as caught:
        Experience("0-first", **given)
    assert str(caught.value) == (
        f"{name} of experience '0-first' is None; a map-style dataset of {purpose} data is needed"
    )


def test_an_experience_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Experience("0-first", DATA, DATA).id = "1"  # type: ignore[misc]
