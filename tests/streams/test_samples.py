from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams.samples import TransformedSubset, cyclic_parts, labels_of, split


class Counting(Dataset[Any]):
    """Samples that count how often they are read."""

    def __init__(self, labels: Any, **attributes: Any) -> None:
        self.labels = labels
        self.reads = 0
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Any:
        self.reads += 1
        return torch.zeros(2), self.labels[index]


TENSORS = TensorDataset(torch.zeros(4, 2), torch.tensor([3, 1, 4, 1]))


@pytest.mark.parametrize(
    ("dataset", "labels"),
    [
        (TENSORS, [3, 1, 4, 1]),
        (Subset(TENSORS, [2, 0]), [4, 3]),
        (Subset(Subset(TENSORS, [2, 0]), [1]), [3]),
        (ConcatDataset([TENSORS, Subset(TENSORS, [2])]), [3, 1, 4, 1, 4]),
        (Counting([5, 6]), [5, 6]),
        (Counting([torch.tensor(5), np.int16(6)]), [5, 6]),
        (TransformedSubset(TENSORS, [3, 2], lambda sample, index: (sample[0], index)), [3, 2]),
    ],
)
def test_labels_are_found(dataset: Dataset[Any], labels: list[int]) -> None:
    found = labels_of(dataset, "train")
    assert (found.tolist(), found.dtype) == (labels, np.int64)


@pytest.mark.parametrize("targets", [[7, 8], torch.tensor([7, 8]), np.array([7, 8])])
def test_targets_save_reading_the_samples(targets: Any) -> None:
    dataset = Counting([7, 8], targets=targets)
    assert labels_of(Subset(dataset, [1]), "train").tolist() == [8]
    assert dataset.reads == 0


@pytest.mark.parametrize(
    "attributes",
    [
        {"targets": [7, 8], "target_transform": lambda label: label - 7},
        {"targets": [7, 8, 9]},
        {"targets": None},
    ],
)
def test_targets_that_are_not_what_is_read_are_left_alone(attributes: dict[str, Any]) -> None:
    assert labels_of(Counting([0, 1], **attributes), "train").tolist() == [0, 1]


@pytest.mark.parametrize(
    ("dataset", "complaint"),
    [
        (TensorDataset(torch.zeros(2, 1), torch.zeros(2)), "train has labels of type float32;"),
        (TensorDataset(torch.zeros(2, 1), torch.zeros(2, 3).long()), "int64 of shape"),
        (TensorDataset(torch.zeros(2, 1)), "train has samples without a label"),
        (Counting(["cat", "dog"]), "train has labels of type <U3"),
        (Counting([True, False]), "train has labels of type bool"),
        (Counting([torch.zeros(2), torch.zeros(2)]), "train has samples without a label"),
        ([torch.zeros(3)], "(one is a Tensor)"),
        ([{"x": 1, "y": 2}], "(one is a dict)"),
        (Counting([1, [2, 3]]), "train has samples without a label (one is a tuple)"),
        (Counting([1, None]), "train has labels of type object"),
        (7, "train is a int; it has to be a map-style dataset"),
        ([], "train holds no samples"),
    ],
)
def test_what_has_no_classes_is_refused(dataset: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        labels_of(dataset, "train")
    assert complaint in str(caught.value)


@given(
    n=st.integers(2, 50),
    share=st.floats(0.001, 0.999),
    seed=st.integers(0, 3),
)
def test_shares_are_disjoint_and_whole(n: int, share: float, seed: int) -> None:
    indices = np.arange(100, 100 + n)
    fit, held_out = split(indices, share, np.random.default_rng(seed), "it")
    assert sorted([*fit, *held_out]) == indices.tolist()
    assert fit
    assert held_out
    assert abs(len(held_out) - share * n) <= 1.0


def test_what_fails_in_the_dataset_itself_is_not_hidden() -> None:
    class Broken(Counting):
        def __getitem__(self, index: int) -> Any:
            raise KeyError("picture")

    with pytest.raises(KeyError, match="picture"):
        labels_of(Broken([1, 2]), "train")


def test_one_sample_cannot_be_parted() -> None:
    with pytest.raises(ConfigurationError, match="monday holds 1 of the samples; two or more"):
        split(np.arange(1), 0.5, np.random.default_rng(0), "monday")


@given(data=st.data(), pool=st.integers(1, 12), hands=st.integers(1, 8), seed=st.integers(0, 3))
def test_no_card_comes_again_before_all_have_come(
    data: st.DataObject, pool: int, hands: int, seed: int
) -> None:
    hand_size = data.draw(st.integers(1, pool))
    dealt = list(cyclic_parts(np.arange(pool), hands, hand_size, np.random.default_rng(seed)))
    assert [len(hand) for hand in dealt] == [hand_size] * hands
    assert all(len(set(hand)) == hand_size for hand in dealt)
    for last in range(1, hands + 1):
        times = Counter(card for hand in dealt[:last] for card in hand)
        assert max(times.values()) - min(times[card] for card in range(pool)) <= 1


def test_a_view_changes_what_is_read_and_nothing_else() -> None:
    view = TransformedSubset(TENSORS, [2, 0], lambda sample, index: (index, int(sample[1])))
    assert list(view) == [(2, 4), (0, 3)]  # type: ignore[call-overload]
    assert view[-1] == (0, 3)
    assert len(view) == 2
