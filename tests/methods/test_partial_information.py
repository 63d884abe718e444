"""Pseudo-labels, their threshold, augmentation, and the choice of what to label."""

from __future__ import annotations

import math

import pytest
import torch

from greentrain.errors import ConfigurationError
from greentrain.methods import (
    PartialBatches,
    calibrated_threshold,
    freezing_depth,
    k_center,
    most_uncertain,
    strongly_augmented,
    weakly_augmented,
)


def test_equal_confidences_pass_or_fail_together():
    """Both at 0.8 count, one is wrong: 2 of 3 are right there, and 1 of 1 at 0.9."""
    confidences = torch.tensor([0.8, 0.9, 0.8])
    right = torch.tensor([True, True, False])
    strict = calibrated_threshold(confidences, right, precision=1.0, least=1)
    assert strict == pytest.approx(0.9)
    loose = calibrated_threshold(confidences, right, precision=0.6, least=1)
    assert loose == pytest.approx(0.8)


def test_a_later_threshold_may_be_good_again():
    confidences = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    right = torch.tensor([False, True, True, True, True])
    assert calibrated_threshold(confidences, right, precision=0.8, least=1) == 0.5
    assert calibrated_threshold(confidences, right, precision=0.9, least=1) == math.inf
    assert calibrated_threshold(torch.empty(0), torch.empty(0, dtype=torch.bool)) == math.inf


def test_a_confidence_that_is_no_number_is_left_out():
    confidences = torch.tensor([math.nan, 0.9, 0.8])
    right = torch.tensor([False, True, True])
    assert calibrated_threshold(confidences, right, least=1) == pytest.approx(0.8)


def test_batches_have_a_fixed_number_of_samples_with_labels():
    """Two of eight have labels: each comes in every batch of two; the six others once in three."""
    targets = torch.tensor([-1, 5, -1, -1, 7, -1, -1, -1])
    batches = PartialBatches(targets, labelled=2, ratio=1, seed=3)
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 3
    assert all(sorted(batch[:2]) == [1, 4] for batch in first)
    assert sorted(at for batch in first for at in batch[2:]) == [0, 2, 3, 5, 6, 7]
    assert first != second  # a new order in each epoch
    assert list(PartialBatches(targets, labelled=2, ratio=1, seed=3)) == first
    assert len(PartialBatches(targets, steps=5)) == 5


def test_k_center_covers_clusters_before_it_takes_a_second_of_one():
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    noise = 0.1 * torch.randn(30, 2, generator=torch.Generator().manual_seed(1))
    features = centers.repeat(10, 1) + noise
    assert {at % 3 for at in k_center(features, 3)} == {0, 1, 2}
    second = k_center(features, 1, labelled=features[[0, 1]])
    assert second[0] % 3 == 2
    assert sorted(k_center(features, 30)) == list(range(30))
    assert sorted(k_center(torch.zeros(3, 2), 3)) == [0, 1, 2]  # equal samples, each once


def test_entropy_and_margin_differ_where_a_third_class_is_likely():
    logits = torch.tensor([[0.5, 0.5, 0.0], [0.4, 0.36, 0.24], [0.34, 0.33, 0.33]]).log()
    assert most_uncertain(logits, 3, by="margin") == [0, 2, 1]
    assert most_uncertain(logits, 3, by="entropy") == [2, 1, 0]


def test_augmented_images_keep_their_shape_range_and_most_of_their_pixels():
    torch.manual_seed(1)
    images = torch.rand(8, 3, 16, 24)
    weak, strong = weakly_augmented(images), strongly_augmented(images)
    assert weak.shape == strong.shape == images.shape
    assert (strong.amin() >= images.amin()) & (strong.amax() <= images.amax())
    # A shift by up to 2 rows and 3 columns keeps the middle, somewhere.
    middle, places = images[0, :, 5:11, 8:16], []
    for top in range(3, 8):
        for left in range(5, 12):
            places.append(torch.equal(weak[0, :, top : top + 6, left : left + 8], middle))
    assert sum(places) == 1


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: calibrated_threshold(torch.ones(1), torch.ones(1), precision=0), "precision is 0"),
        (lambda: most_uncertain(torch.ones(3, 2), 4), "from 1 to the 3 samples"),
        (lambda: most_uncertain(torch.ones(3, 2), 1, by="luck"), "by is 'luck'"),
        (lambda: most_uncertain(torch.ones(3, 1), 1), "one class"),
        (lambda: k_center(torch.ones(3), 1), "1 dimensions"),
        (lambda: k_center(torch.ones(3, 2), 0), "count is 0"),
        (lambda: PartialBatches(torch.tensor([1, -1]), labelled=0), "labelled is 0"),
        (lambda: PartialBatches(torch.tensor([1, -1]), ratio=1.5), "ratio is 1.5"),
        (lambda: PartialBatches(torch.tensor([-1, -1])), "none of the 2 samples has a label"),
        (lambda: PartialBatches(torch.tensor([1, 2])), "each of the 2 samples has a label"),
        (lambda: weakly_augmented(torch.ones(3, 2)), "have 2 dimensions"),
        (lambda: freezing_depth([1.0], share=1), "share is 1"),
    ],
)
def test_unusable_arguments_are_refused(call, words):
    with pytest.raises(ConfigurationError, match=words):
        call()


@pytest.mark.parametrize(
    ("information", "depth"),
    [
        ([], 0),
        ([None, None], 0),
        ([None, 1.0], 0),  # nothing with parameters comes before the first layer that learns
        ([0.0, None, 0.0], 0),  # no gradient at all: nothing is known
        ([0.1, 1.0], 1),
        ([0.11, 1.0], 0),
        ([0.01, math.nan, 1.0], 1),
    ],
)
def test_layers_are_frozen_up_to_the_first_one_that_learns(information, depth):
    assert freezing_depth(information) == depth
