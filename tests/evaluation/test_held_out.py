"""Held-out data: what a model is judged on."""

from __future__ import annotations

import io

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.evaluation.held_out import KEPT, WINDOW, HeldOut
from greentrain.memory import SampleList, size
from greentrain.streams import Experience


def arrival(number: int, count: int) -> Experience:
    """Held-out samples that tell their experience and their place in it."""
    numbers = torch.arange(count)
    val = TensorDataset(torch.full((count,), number), numbers)
    return Experience(str(number), TensorDataset(numbers), val)


def shown(dataset) -> list[tuple[int, int]]:
    return [tuple(int(part) for part in dataset[index]) for index in range(size(dataset))]


def gone_through(objective, counts, seed=0) -> HeldOut:
    held = HeldOut(objective, seed=seed)
    for number, count in enumerate(counts):
        held.add(arrival(number, count))
    return held


def test_the_present_comes_last_and_whole():
    now = arrival(9, 4)
    for objective, past in [("seen", 5), ("window", 5), ("current", 0)]:
        judged = shown(gone_through(objective, [5]).with_current(now))
        assert len(judged) == past + 4
        assert judged[past:] == [(9, place) for place in range(4)]


def test_what_is_seen_is_a_uniform_sample_of_fixed_size():
    held = gone_through("seen", [1500] * 8)
    kept = shown(held.with_current(arrival(9, 1)))[:-1]
    assert len(kept) == len(set(kept)) == KEPT
    by_experience = [size(held.of(str(number))) for number in range(8)]
    assert sum(by_experience) == KEPT
    # 2,000 of 12,000: 250 of each, give or take five times the deviation of a hypergeometric.
    assert all(abs(count - 250) < 5 * 13.6 for count in by_experience)


def test_a_window_forgets_what_is_five_experiences_old():
    held = gone_through("window", [10, 600, 20, 30, 40, 50])
    counts = [size(held.of(str(number))) for number in range(6)]
    assert counts == [0, 0, 20, 30, 40, 50]
    assert size(gone_through("window", [600]).of("0")) == KEPT // WINDOW


@pytest.mark.parametrize("objective", ["seen", "window", "current"])
def test_a_saved_state_goes_on_as_if_nothing_had_been(objective):
    held = gone_through(objective, [900, 900])
    file = io.BytesIO()
    torch.save(held.state_dict(), file)
    file.seek(0)
    again = HeldOut(objective, seed=0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for each in (held, again):
        each.add(arrival(2, 900))
        each.add(arrival(3, 900))
    now = arrival(9, 1)
    assert shown(again.with_current(now)) == shown(held.with_current(now))


def test_samples_may_differ_in_length_and_kind():
    texts = SampleList([(torch.arange(length), "text") for length in (3, 1, 4, 1, 5)])
    held = HeldOut("seen", seed=0)
    held.add(Experience("0", texts, texts))
    lengths = sorted(len(held.of("0")[index][0]) for index in range(5))
    assert lengths == [1, 1, 3, 4, 5]
    again = HeldOut("seen", seed=0)
    again.load_state_dict(held.state_dict())
    assert sorted(len(again.of("0")[index][0]) for index in range(5)) == lengths

    class Picture:
        pass

    strange = SampleList([Picture()])
    held.add(Experience("1", strange, strange))
    assert isinstance(held.of("1")[0], Picture)
    with pytest.raises(ConfigurationError, match="holds a Picture"):
        held.state_dict()


def test_kept_samples_do_not_hold_on_to_their_dataset():
    val = torch.arange(8.0)
    held = HeldOut("seen", seed=0)
    held.add(Experience("0", TensorDataset(val), TensorDataset(val)))
    val.zero_()
    assert sorted(float(held.of("0")[index][0]) for index in range(8)) == list(range(8))


def leaves(state) -> int:
    """Count the values in a state."""
    parts = state.values() if isinstance(state, dict) else state
    return sum(leaves(part) for part in parts) if isinstance(state, dict | list) else 1


def test_a_state_holds_as_many_values_however_many_experiences_there_were():
    few, many = (gone_through("seen", [50] * count) for count in (2, 100))
    assert leaves(few.state_dict()) == leaves(many.state_dict())
    assert size(many.past) == KEPT


def test_the_order_of_arrival_stays():
    held = gone_through("seen", [700] * 6)
    kept = shown(held.past)
    assert kept == sorted(kept)


def test_no_other_eval_on_is_known():
    with pytest.raises(ConfigurationError, match="eval_on is 'past'; allowed are 'seen'"):
        HeldOut("past", seed=0)
