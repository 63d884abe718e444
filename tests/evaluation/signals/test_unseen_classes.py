"""Which classes were seen, and how much of new data is of others."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset, Subset, TensorDataset

from greentrain.evaluation.signals.unseen_classes import SeenClasses, labels_in, unseen_share
from greentrain.memory import SampleList, concat
from tests.models import blobs

labels = st.one_of(st.integers(-5, 5), st.sampled_from(["cat", "dog", "1"]))


class Counting(Dataset):
    """Pairs that are made when they are read, which is counted."""

    def __init__(self, n, label=lambda index: index % 3):
        self.n, self.label, self.read = n, label, 0

    def __len__(self):
        return self.n

    def __getitem__(self, index):
        self.read += 1
        return torch.zeros(2), self.label(index)


def test_tensors_give_the_labels_of_all_without_reading_a_sample():
    data = blobs(range(4), 400)
    joined = concat([Subset(data, range(0, 1600, 2)), data])
    assert labels_in(joined) == data.tensors[1][::2].tolist() + data.tensors[1].tolist()


def test_of_other_datasets_some_samples_are_read_from_all_over():
    sorted_by_class = Counting(6000, label=lambda index: index // 1000)
    found = labels_in(sorted_by_class, limit=60)
    assert sorted_by_class.read == 60
    assert found == [each for each in range(6) for _ in range(10)]


@pytest.mark.parametrize(
    "dataset",
    [
        TensorDataset(torch.zeros(3, 2)),
        TensorDataset(torch.zeros(3, 2), torch.zeros(3)),
        TensorDataset(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64)),
        TensorDataset(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),
        SampleList([]),
        SampleList([torch.zeros(2)]),
        SampleList([(torch.zeros(2), float("nan"))]),
        SampleList([(torch.zeros(2), None)]),
        SampleList([{"image": 1}]),
    ],
)
def test_what_has_no_class_has_no_labels(dataset):
    assert labels_in(dataset) is None
    assert unseen_share(labels_in(dataset), SeenClasses()) is None


def test_texts_and_named_labels_are_labels_too():
    samples = [{"image": 0, "label": "cat"}, {"image": 1, "label": torch.tensor(3)}]
    assert labels_in(SampleList(samples)) == ["cat", 3]


def test_the_share_counts_samples_and_not_classes():
    seen = SeenClasses()
    assert unseen_share([0, 1], seen) == 1.0  # the first ones are all new
    seen.add(labels_in(blobs((0, 1), 5)))
    new = labels_in(concat([blobs((1,), 30), blobs((2,), 10)]))
    assert unseen_share(new, seen) == 0.25
    seen.add(new)
    assert unseen_share(new, seen) == 0.0


@given(st.lists(labels), st.lists(labels, min_size=1))
def test_what_was_seen_outlives_a_way_through_json(first, new):
    seen, again = SeenClasses(), SeenClasses()
    seen.add(first)
    again.load_state_dict(json.loads(json.dumps(seen.state_dict())))
    assert len(again) == len(set(first))
    share = unseen_share(new, again)
    assert (
        share == unseen_share(new, seen) == sum(each not in set(first) for each in new) / len(new)
    )


def test_data_without_classes_add_none():
    seen = SeenClasses()
    seen.add(None)
    assert len(seen) == 0
