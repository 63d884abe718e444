"""What is known of the samples that there have been, however few of them are stored."""

from __future__ import annotations

import json

import pytest

from greentrain.memory import FullBuffer, ReservoirBuffer
from greentrain.training.data import StreamData
from tests.models import experience


@pytest.mark.parametrize(("memory", "n_kept"), [(FullBuffer(), 60), (ReservoirBuffer(12), 12)])
def test_samples_that_there_have_been_are_counted_and_those_that_wait_are_new(memory, n_kept):
    material = StreamData(memory)
    for name, trained in (("a", True), ("b", True), ("c", False)):
        material.store(experience(name, (0, 1), count=10), trained=trained)
    restored = StreamData(memory)
    restored.load_state_dict(material.state_dict())
    for each in (material, restored):
        batch = each.gather(experience("d", (0, 1), count=10))
        assert batch.n_past == 2 * 20
        assert batch.n_new == 20 + batch.n_pending
        assert batch.n_stored + batch.n_pending == n_kept
        assert batch.share_new == pytest.approx(batch.n_new / (batch.n_new + 40))


def test_skipped_copies_do_not_wait():
    material = StreamData(FullBuffer())
    material.store(experience("a", (0, 1), count=10), trained=True)
    material.store(experience("again", (0, 1), count=10), trained=False, copies=True)
    batch = material.gather(experience("b", (0, 1), count=10))
    assert (batch.n_new, batch.n_pending, batch.n_stored) == (20, 0, 40)


def test_without_a_memory_all_is_new():
    material = StreamData(None)
    material.store(experience("a", (0, 1)), trained=True)
    batch = material.gather(experience("b", (0, 1)))
    assert (batch.n_stored, batch.n_past, batch.share_new) == (0, 0, 1.0)


@pytest.mark.parametrize("name", ["b", 'say "b"', "café", "空"])
def test_names_that_were_written_once_are_saved_as_if_written_whole(name):
    material = StreamData(None)
    assert material.state_dict()["known"] == "{}"
    material.store(experience("a", (0, 1), count=5), trained=True)
    material.set_aside(experience(name, (0, 1)))
    saved = material.state_dict()
    assert saved["known"] == json.dumps({"a": 10, name: 0})
    restored = StreamData(None)
    restored.load_state_dict(saved)
    assert list(restored.known) == ["a", name] and restored.state_dict() == saved
