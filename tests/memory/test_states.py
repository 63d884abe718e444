"""Saved states: nothing is lost, and a killed process leaves its last state readable."""

from __future__ import annotations

import io
import os
import pickle
import stat
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory import (
    ClassBalancedBuffer,
    FullBuffer,
    HerdingBuffer,
    ReservoirBuffer,
    SampleList,
)
from greentrain.memory.datasets import concat, fetch
from greentrain.memory.full import owned, pack, unpack
from tests import prepared
from tests.memory.samples import BOUNDED, arrivals, everything, held, labelled, numbers

ROOT = Path(__file__).parents[2]


def through_a_file(state: dict[str, Any]) -> dict[str, Any]:
    """Save a state and load it as checkpoints are loaded."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def unlimited(max_size: int, **rest: Any) -> FullBuffer:
    return FullBuffer(**rest)


def first_items(samples: list[Any]) -> list[int]:
    return [int(sample[0]) for sample in samples]


@pytest.mark.parametrize("kind", [*BOUNDED, unlimited])
@pytest.mark.parametrize("on_disk", [False, True])
@given(sizes=st.lists(st.integers(0, 20), min_size=2, max_size=5), cut=st.integers(0, 5))
@settings(max_examples=10)
def test_going_on_from_a_state_is_as_if_nothing_had_happened(
    tmp_path_factory: Any, kind: Any, on_disk: bool, sizes: list[int], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("buffer") if on_disk else None
    buffer = kind(7, seed=3, folder=folder)
    straight = kind(7, seed=3)
    for place, (origin, dataset) in enumerate(arrivals(sizes)):
        if place == cut:
            state = through_a_file(buffer.state_dict())
            buffer = kind(7, folder=folder)
            buffer.load_state_dict(state)
        for each in (buffer, straight):
            each.add(dataset, origin=origin)
        assert everything(buffer) == everything(straight)
        assert first_items(buffer.sample(3)) == first_items(straight.sample(3))
        assert (len(buffer), buffer.nbytes) == (len(straight), straight.nbytes)
        last = held(buffer.select(lambda name, origin=origin: name == origin))
        assert last == held(straight.select(lambda name, origin=origin: name == origin))


@pytest.mark.parametrize("kind", BOUNDED)
def test_a_saved_state_stays_readable_until_the_next_one(kind: Any, tmp_path: Path) -> None:
    buffer, (origin, first), *others = kind(6, folder=tmp_path), *arrivals([20] * 9)
    buffer.add(first, origin=origin)
    for place, (origin, dataset) in enumerate(others):
        state, was = through_a_file(buffer.state_dict()), everything(buffer)
        # Twice, so that places which the first add has freed would be used again.
        for name in (origin, f"{origin}, once more"):
            buffer.add(Subset(dataset, range(place % 3, 20)), origin=name)
        earlier = kind(6, folder=tmp_path)
        earlier.load_state_dict(state)
        assert everything(earlier) == was


def test_files_grow_to_twice_the_size_at_most(tmp_path: Path) -> None:
    buffer = ReservoirBuffer(100, folder=tmp_path)
    sizes = []
    for number in range(40):
        buffer.add(numbers(10 * number, 10 * number + 10), origin=str(number))
        buffer.state_dict()
        sizes.append(sum(file.stat().st_size for file in tmp_path.rglob("*.bin")))
    assert sizes[0] == 10 * 8
    assert max(sizes) <= 2 * 100 * 8
    assert sizes[-1] == sizes[-20]


def test_two_buffers_may_share_a_folder(tmp_path: Path) -> None:
    one, two = ReservoirBuffer(5, folder=tmp_path), ReservoirBuffer(5, folder=tmp_path)
    one.add(numbers(0, 5), origin="first")
    two.add(numbers(5, 10), origin="first")
    assert (everything(one), everything(two)) == (list(range(5)), list(range(5, 10)))


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("buffer_type", BOUNDED)
def test_texts_of_numpy_are_stored_whatever_their_length(
    tmp_path: Path, buffer_type: type, folder: bool
) -> None:
    arguments = {"folder": tmp_path if folder else None}
    buffer = buffer_type(20, **arguments)
    texts = np.array(["a", "bcde", "fg", ""])
    lone = [np.array("hij"), "klmnop"]
    samples = [(torch.tensor(float(n)), text, n % 2) for n, text in enumerate([*texts, *lone])]
    buffer.add(SampleList(samples), origin="first")
    buffer.add(SampleList([(torch.tensor(6.0), np.str_("a longer text"), 0)]), origin="second")
    again = buffer_type(20, **arguments)
    path = tmp_path / "state.pt"
    torch.save(buffer.state_dict(), path)
    again.load_state_dict(torch.load(path, weights_only=True))
    for each in (buffer, again):
        found = fetch(each.select(lambda origin: True), range(7))
        by_number = {int(number): text for number, text, _ in found}
        expected = ["a", "bcde", "fg", "", "hij", "klmnop", "a longer text"]
        assert [by_number[number] for number in range(7)] == expected
        assert {type(text) for text in by_number.values()} == {str}


class Point(NamedTuple):
    x: NDArray[Any]
    label: int


KINDS = [
    lambda n: (n, np.array((n, 0.5), dtype=[("a", "<i4"), ("b", "<f8")])),
    lambda n: (n, np.array([(n, [1, 2])] * 3, dtype=[("a", "<i4"), ("b", "<i2", (2,))])),
    lambda n: (n, np.bytes_(b"ab\xff" * n)),
    lambda n: (n, b"trailing zeros\0" * n),
    lambda n: (n, np.array(["a" * n, "b"])),
    lambda n: (n, np.array([[b"a" * n], [b"\xff"]])),
    lambda n: Point(np.full(2, n), n),
    lambda n: OrderedDict(number=n, text="a" * n),
    lambda n: {"number": n, "inner": Point(np.full(2, n), n)},
]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize("buffer_type", [ReservoirBuffer, FullBuffer])
@pytest.mark.parametrize("make", KINDS)
def test_a_sample_comes_back_as_it_was(
    tmp_path: Path, make: Callable[[int], Any], buffer_type: Any, folder: bool
) -> None:
    arguments = {"folder": tmp_path} if folder else {}
    sizes = () if buffer_type is FullBuffer else (9,)
    buffer, again = (buffer_type(*sizes, **arguments) for _ in range(2))
    samples = [make(n) for n in range(4)]
    buffer.add(SampleList(samples[:3]), origin="first")
    buffer.add(SampleList(samples[3:]), origin="second")
    again.load_state_dict(through_a_file(buffer.state_dict()))
    for each in (buffer, again):
        found = pickle.loads(pickle.dumps(fetch(each.select(lambda origin: True), range(4))))
        for sample, expected in zip(found, samples, strict=True):
            np.testing.assert_equal(sample, expected)
            assert getattr(sample, "_fields", None) == getattr(expected, "_fields", None)


def test_a_batch_of_named_tuples_is_one_named_tuple() -> None:
    buffer = ReservoirBuffer(4)
    buffer.add(SampleList([Point(np.full(2, n), n) for n in range(4)]), origin="first")
    loader = DataLoader(buffer.select(lambda origin: True), batch_size=4, num_workers=1)
    (batch,) = loader
    assert batch.x[:, 0].tolist() == batch.label.tolist()


def test_texts_are_kept_on_disk_buffers_too(tmp_path: Path) -> None:
    buffer = ReservoirBuffer(4, folder=tmp_path)
    buffer.add(SampleList([(torch.tensor(n), f"text {n}") for n in range(9)]), origin="first")
    again = ReservoirBuffer(4, folder=tmp_path)
    again.load_state_dict(through_a_file(buffer.state_dict()))
    shown = again.select(lambda origin: True)
    assert [shown[place][1] for place in range(4)] == [f"text {n}" for n in held(shown)]
    assert held(shown) == everything(buffer)


def test_what_is_in_ram_can_be_moved_to_disk(tmp_path: Path) -> None:
    in_ram, on_disk = ReservoirBuffer(4), ReservoirBuffer(4, folder=tmp_path)
    in_ram.add(numbers(0, 9), origin="first")
    on_disk.load_state_dict(through_a_file(in_ram.state_dict()))
    assert everything(on_disk) == everything(in_ram)
    with pytest.raises(ConfigurationError, match="give the buffer its folder"):
        in_ram.load_state_dict(on_disk.state_dict())


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        (ReservoirBuffer(5), "samples 4, and this one has 5"),
        (ReservoirBuffer("4 KiB"), "samples 4, and this one has None"),
        (ClassBalancedBuffer(4), "kind 'ReservoirBuffer', and this one has 'ClassBalancedBuffer'"),
        (ReservoirBuffer(4, rank=1, world_size=2), "rank 0, and this one has 1; reshard makes"),
        (FullBuffer(), "the state is of a 'ReservoirBuffer'"),
    ],
    ids=["size", "bytes", "kind", "rank", "full"],
)
def test_a_state_of_another_buffer_is_refused(other: Any, complaint: str) -> None:
    buffer = ReservoirBuffer(4)
    buffer.add(labelled(0, 9), origin="first")
    other.add(labelled(50, 9), origin="first")
    before = everything(other)
    with pytest.raises(ConfigurationError, match=complaint):
        other.load_state_dict(buffer.state_dict())
    assert everything(other) == before


@pytest.mark.parametrize("kind", [ReservoirBuffer, unlimited])
def test_missing_files_are_named_before_anything_changes(kind: Any, tmp_path: Path) -> None:
    buffer = kind(4, folder=tmp_path / "old")
    buffer.add(numbers(0, 9), origin="first")
    other = kind(4, folder=tmp_path / "new")
    other.add(numbers(20, 29), origin="first")
    before = everything(other)
    with pytest.raises(ConfigurationError, match=r"missing|not in the folder"):
        other.load_state_dict(buffer.state_dict())
    assert everything(other) == before


def test_a_full_buffer_writes_each_experience_once_to_one_file(tmp_path: Path) -> None:
    buffer = FullBuffer(folder=tmp_path)
    buffer.add(labelled(0, 10), origin="first")
    (file,) = tmp_path.iterdir()
    first, one = file.read_bytes(), buffer.state_dict()
    buffer.add(labelled(10, 10), origin="second")
    state, whole = buffer.state_dict(), file.read_bytes()
    assert whole.startswith(first)
    assert len(whole) < 3 * len(first)
    # After a kill it is written again: to the same place.
    buffer.load_state_dict(one)
    assert everything(buffer) == list(range(10))
    buffer.add(labelled(10, 10), origin="second")
    assert buffer.state_dict() == state
    # Other data are appended, so that both states stay readable.
    buffer.load_state_dict(one)
    buffer.add(labelled(50, 10), origin="second")
    assert file.read_bytes().startswith(whole)
    for each, numbers_ in ((state, range(20)), (buffer.state_dict(), [*range(10), *range(50, 60)])):
        again = FullBuffer(folder=tmp_path)
        again.load_state_dict(through_a_file(each))
        assert everything(again) == list(numbers_)
    assert list(tmp_path.iterdir()) == [file]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_state_of_a_full_buffer_on_disk_does_not_grow(tmp_path: Path) -> None:
    buffer, in_ram = FullBuffer(folder=tmp_path), FullBuffer()
    sizes = set()
    for number in range(150):  # more than twice a block
        for each in (buffer, in_ram):
            each.add(labelled(3 * number, 3), origin=f"{number:03d}")
        sizes.add(len(repr(buffer.state_dict())))
    assert max(sizes) - min(sizes) < 10
    again = FullBuffer(folder=tmp_path)
    again.load_state_dict(buffer.state_dict())
    for each in (buffer, in_ram, again):
        assert everything(each) == list(range(450))
        assert held(each.select(lambda origin: origin == "007")) == [21, 22, 23]
        assert len(held(each.select(lambda origin: origin != "007"))) == 447
    through = FullBuffer()
    through.load_state_dict(through_a_file(in_ram.state_dict()))
    assert everything(through) == list(range(450))


def flipped(content: bytes, place: int) -> bytes:
    """Return bytes of which one has another bit."""
    return content[:place] + bytes([content[place] ^ (1 << place % 8)]) + content[place + 1 :]


TEXTS = [(torch.tensor(n), f"text {n}") for n in range(6)]


@pytest.mark.parametrize("kind", [ReservoirBuffer, unlimited])
def test_a_changed_byte_of_the_samples_is_refused(kind: Any, tmp_path: Path) -> None:
    buffer = kind(20, folder=tmp_path)
    for origin in ("first", "second", "third"):
        buffer.add(SampleList(TEXTS), origin=origin)
    state = buffer.state_dict()
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    whole, before = file.read_bytes(), everything(buffer)
    del buffer
    again = kind(20, folder=tmp_path)
    used = 8 * 18 if kind is ReservoirBuffer else len(whole)
    for place in range(0, used, max(1, used // 60)):
        file.write_bytes(flipped(whole, place))
        with pytest.raises(ConfigurationError, match=r"changed.*restore"):
            again.load_state_dict(state)
    file.write_bytes(whole[:-1] if kind is unlimited else whole[:100])
    with pytest.raises(ConfigurationError, match=r"cut short"):
        again.load_state_dict(state)
    file.write_bytes(whole)
    again.load_state_dict(state)
    assert everything(again) == before


@pytest.mark.parametrize("kind", [ReservoirBuffer, unlimited])
def test_samples_are_not_read_or_written_through_a_link(kind: Any, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "buffer", tmp_path / "elsewhere"
    buffer = kind(9, folder=folder)
    buffer.add(numbers(0, 9), origin="first")
    state = buffer.state_dict()
    (file,) = [path for path in folder.rglob("*") if path.is_file()]
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    again = kind(9, folder=folder)
    with pytest.raises(ConfigurationError, match="missing"):
        again.load_state_dict(state)
    if kind is unlimited:
        with pytest.raises(OSError, match="symbolic links"):
            again.add(numbers(9, 18), origin="second")
    assert len(again) == 0


@pytest.mark.parametrize("name", ["../x", "/tmp", "..", "", "0123456789ab/..", 5])
def test_the_name_of_a_folder_of_samples_leads_nowhere_else(name: Any, tmp_path: Path) -> None:
    buffer = ReservoirBuffer(9, folder=tmp_path)
    buffer.add(numbers(0, 9), origin="first")
    state = buffer.state_dict()
    with pytest.raises(ConfigurationError, match="none of a buffer"):
        buffer.load_state_dict({**state, "held": {**state["held"], "name": name}})


@pytest.mark.parametrize("kind", BOUNDED)
def test_the_last_two_states_stay_readable_also_after_a_restart(kind: Any, tmp_path: Path) -> None:
    buffer = kind(6, folder=tmp_path)
    states: list[tuple[dict[str, Any], list[int]]] = []
    for place, (origin, dataset) in enumerate(arrivals([20] * 9)):
        buffer.add(dataset, origin=origin)
        for state, was in states[-2:]:
            earlier = kind(6, folder=tmp_path)
            earlier.load_state_dict(state)
            assert everything(earlier) == was
        states.append((through_a_file(buffer.state_dict()), everything(buffer)))
        if place % 2:
            buffer = kind(6, folder=tmp_path)
            buffer.load_state_dict(states[-1][0])


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_full_buffer_keeps_samples_of_any_shape(on_disk: bool, tmp_path: Path) -> None:
    folder = tmp_path if on_disk else None
    samples = [(torch.arange(n % 3), f"text {n}") for n in range(7)]
    buffer, again = FullBuffer(folder=folder), FullBuffer(folder=folder)
    buffer.add(SampleList(samples), origin="first")
    again.load_state_dict(through_a_file(buffer.state_dict()))
    shown = again.select(lambda origin: True)
    assert [repr(shown[place]) for place in range(7)] == list(map(repr, samples))


def test_what_cannot_be_saved_is_refused_when_it_has_to_be(tmp_path: Path) -> None:
    strange = SampleList([(object(), 1)])
    in_ram, on_disk = FullBuffer(), FullBuffer(folder=tmp_path)
    in_ram.add(strange, origin="first")
    assert in_ram.sample(1)[0][1] == 1
    with pytest.raises(ConfigurationError, match="a sample holds a object"):
        in_ram.state_dict()
    with pytest.raises(ConfigurationError, match="a sample holds a object"):
        on_disk.add(strange, origin="first")
    assert len(on_disk) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_write_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: Any) -> None:
    def fail(*arguments: Any) -> None:
        raise OSError("No space left on device")

    buffer = FullBuffer(folder=tmp_path)
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        buffer.add(numbers(0, 9), origin="first")
    assert [file.stat().st_size for file in tmp_path.iterdir()] == [0]
    assert len(buffer) == 0


SCRIPT = """
import os, sys, torch
from pathlib import Path
from torch.utils.data import TensorDataset
from greentrain.memory import *
kind, folder = sys.argv[1:]
arguments = {} if kind == "FullBuffer" else {"max_size": 50}
buffer = globals()[kind](**arguments, folder=folder)
for turn in range(1000):
    number = torch.arange(100 * turn, 100 * turn + 100)
    # Each sample says twice who it is: a row that was half overwritten would not agree.
    dataset = TensorDataset(number, number % 3, number[:, None].expand(-1, 500).contiguous())
    buffer.add(dataset, origin=str(turn))
    print("added", turn, flush=True)
    if turn % 4 == 1:
        shown = buffer.select(lambda origin: True)
        held = [int(shown[place][0]) for place in range(len(shown))]
        torch.save((buffer.state_dict(), held), f"{folder}/state.tmp")
        os.replace(f"{folder}/state.tmp", f"{folder}/state.pt")
"""


@pytest.mark.parametrize(
    ("kind", "after"),
    [("ReservoirBuffer", 5), ("ClassBalancedBuffer", 8), ("HerdingBuffer", 11), ("FullBuffer", 7)],
)
def test_kill_9_leaves_the_last_state_readable(kind: str, after: int, tmp_path: Path) -> None:
    with prepared.running("-c", SCRIPT, kind, tmp_path, cwd=tmp_path) as (process, lines):
        for line in lines:
            if line == f"added {after}\n":
                break
        process.kill()
        process.join()
    state, was = torch.load(tmp_path / "state.pt", weights_only=True)
    buffers: dict[str, Any] = {
        "FullBuffer": FullBuffer,
        "ReservoirBuffer": ReservoirBuffer,
        "ClassBalancedBuffer": ClassBalancedBuffer,
        "HerdingBuffer": HerdingBuffer,
    }
    arguments = {} if kind == "FullBuffer" else {"max_size": 50}
    buffer = buffers[kind](**arguments, folder=tmp_path)
    buffer.load_state_dict(state)
    assert everything(buffer) == was
    shown = buffer.select(lambda origin: True)
    for number, label, copies in (shown[place] for place in range(len(was))):
        assert int(label) == int(number) % 3
        assert bool((copies == number).all())
    buffer.add(
        TensorDataset(torch.arange(9), torch.arange(9) % 3, torch.zeros(9, 500, dtype=torch.int64)),
        origin="after it",
    )


@pytest.mark.parametrize("order", [range(11), [10, 0, 5, 4, 9, 1, 1], [7]])
def test_a_join_of_columns_is_packed_as_its_samples_are(order: Any) -> None:
    tensors = TensorDataset(torch.arange(4.0).reshape(4, 1), torch.arange(4))
    texts = SampleList([("a", 1), ("b", 2), ("c", None)])
    joined = concat([owned(tensors), owned(texts), tensors])
    packed = pack(Subset(joined, order))
    expected = pack(SampleList([joined[place] for place in order]))
    assert [run["layout"] for run in packed] == [run["layout"] for run in expected]
    assert [run["size"] for run in packed] == [run["size"] for run in expected]
    for one, other in zip(packed, expected, strict=True):
        for found, wanted in zip(one["columns"], other["columns"], strict=True):
            same = isinstance(found, list) and found == wanted
            assert same or torch.equal(found, wanted)
    assert str(fetch(unpack(packed), range(len(order)))) == str(fetch(joined, order))
