from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams import Experience, Stream, digits_stream
from greentrain.streams.stream import experience_id

DATA = TensorDataset(torch.zeros(3, 2))


def week(*days: str) -> Stream:
    return Stream([Experience(day, DATA, DATA) for day in days], name="week", scenario="mixed")


def test_a_stream_is_a_sequence() -> None:
    stream = week("mon", "tue", "wed")
    assert len(stream) == 3
    assert [experience.id for experience in stream] == ["mon", "tue", "wed"]
    assert (stream[0].id, stream[-1].id) == ("mon", "wed")
    assert stream[1] in stream
    with pytest.raises(IndexError):
        stream[3]


def test_a_slice_is_a_stream_of_the_same_name() -> None:
    part = week("mon", "tue", "wed")[1:]
    assert isinstance(part, Stream)
    assert [experience.id for experience in part] == ["tue", "wed"]
    assert (part.name, part.scenario) == ("week", "mixed")
    assert len(week("mon")[:0]) == 0


def test_ids_are_unique() -> None:
    with pytest.raises(ConfigurationError, match="stream 'week' has two experiences named 'mon'"):
        week("mon", "tue", "mon")


def test_only_experiences_make_a_stream() -> None:
    with pytest.raises(
        ConfigurationError, match="holds a TensorDataset; it must be made of Experience"
    ):
        Stream([DATA], name="data")  # type: ignore[list-item]


def test_a_stream_takes_any_iterable_and_does_not_change() -> None:
    experiences = [Experience("mon", DATA, DATA)]
    stream = Stream(iter(experiences))  # type: ignore[arg-type]
    assert len(stream) == 1
    with pytest.raises(AttributeError):
        stream.name = "other"  # type: ignore[misc]


def test_a_long_stream_has_a_short_text() -> None:
    assert repr(week("mon")) == "Stream('week', 1 experiences: mon)"
    long = week(*(f"day-{number}" for number in range(20)))
    assert repr(long) == ("Stream('week', 20 experiences: day-0, day-1, day-2, day-3, ..., day-19)")


def test_the_stream_of_digits_is_one() -> None:
    stream = digits_stream(seed=3)
    assert isinstance(stream[:2], Stream)
    assert (stream.name, stream.scenario) == ("digits-seed-3", "mixed")


def test_a_stream_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(week("mon", "tue")))
    assert [experience.id for experience in again] == ["mon", "tue"]


@pytest.mark.parametrize(
    ("of", "expected"), [(1, ["0-x"]), (11, ["00-x", "01-x", "02-x"]), (10, ["0-x", "1-x"])]
)
def test_names_sort_in_the_order_of_the_stream(of: int, expected: list[Any]) -> None:
    names = [experience_id(position, of, "x") for position in range(of)]
    assert names[: len(expected)] == expected
    assert names == sorted(names)
