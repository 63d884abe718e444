"""Estimates without labels: by hand, on shifted data, and where there is none."""

from __future__ import annotations

import pytest
import torch

from greentrain.evaluation.signals.confidence import (
    EstimatedMetric,
    corrected,
    difference_of_confidences,
    disagreement_accuracy,
    estimate_without_labels,
    thresholded_confidence,
)
from greentrain.evaluation.signals.missing_labels import (
    label_known,
    labelled_part,
    lacks_labels,
    only_inputs,
)


def classified(count: int, signal: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of a classifier that is right more often with a larger signal, and the labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    logits = signal * torch.eye(4)[labels] + torch.randn(count, 4, generator=generator)
    return logits, labels


def test_the_threshold_is_passed_by_as_many_old_samples_as_are_right():
    """Two of five are wrong, so the threshold is the third lowest confidence: 0.7."""
    old = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    right = torch.tensor([True, False, True, True, False])
    assert thresholded_confidence(old, right, torch.tensor([0.95, 0.7, 0.69, 0.1])) == 0.5
    assert thresholded_confidence(old, torch.zeros(5, dtype=torch.bool), old) == 0.0


def test_accuracy_falls_with_confidence_and_stays_in_its_range():
    old, right = torch.tensor([0.9, 0.7]), torch.tensor([True, False])
    assert difference_of_confidences(old, right, torch.tensor([0.6])) == pytest.approx(0.3)
    assert difference_of_confidences(old, right, torch.tensor([0.1])) == 0.0


def test_disagreement_needs_features_of_each_sample():
    logits = torch.eye(2)
    few = torch.zeros(1, 3)
    right = torch.tensor([True, True])
    assert disagreement_accuracy(logits, right, logits, torch.zeros(2, 3), few) is None


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_shift_lowers_the_estimated_accuracy_and_widens_its_error(scale):
    logits, labels = classified(400, 3.0)
    accuracy = scale * float((logits.argmax(1) == labels).float().mean())
    same, _ = classified(400, 3.0, seed=1)
    worse, worse_labels = classified(400, 1.0, seed=2)
    true = scale * float((worse.argmax(1) == worse_labels).float().mean())
    alike = estimate_without_labels(accuracy, logits, labels, same)
    fallen = estimate_without_labels(accuracy, logits, labels, worse, shift=0.25)
    assert isinstance(alike, EstimatedMetric) and isinstance(fallen, EstimatedMetric)
    assert abs(alike.value - accuracy) <= 3 * alike.sd
    assert fallen.value < accuracy - 0.02 * scale
    assert abs(fallen.value - true) < abs(accuracy - true)
    assert fallen.sd > alike.sd


def test_an_unsure_model_has_a_larger_estimated_loss():
    logits, labels = classified(200, 3.0)
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    found = estimate_without_labels(loss, logits, labels, logits / 4)
    assert isinstance(found, EstimatedMetric)
    assert found.value > loss and found.by == "entropy of calibrated predictions"


def test_scores_that_are_not_finite_are_left_out_and_few_are_no_evidence():
    logits, labels = classified(40, 3.0)
    broken = logits.clone()
    broken[:30] = float("nan")
    accuracy = float((logits.argmax(1) == labels).float().mean())
    found = estimate_without_labels(accuracy, logits, labels, broken)
    assert found == "fewer than 16 samples have finite class scores"


def test_an_estimate_without_any_history_is_not_corrected():
    found = EstimatedMetric(value=0.7, sd=0.1, by="confidence")
    assert corrected(found, 0.8, []) is found
    # Nothing was estimated, but 0.2 was lost: the error grows to sqrt((0.01 + 0.04) / 2).
    again = corrected(found, 0.8, [(0.0, -0.2)])
    assert again.value == pytest.approx(0.7)
    assert again.sd == pytest.approx(0.158, abs=1e-3)


def test_labels_are_missing_if_they_are_none_nan_or_minus_one():
    some = torch.utils.data.TensorDataset(torch.zeros(3, 2), torch.tensor([1, -1, 0]))
    assert [label for _, label in labelled_part(some)] == [1, 0]
    floats = torch.utils.data.TensorDataset(torch.zeros(2, 2), torch.tensor([-1.0, float("nan")]))
    assert len(labelled_part(floats)) == 1
    masks = torch.utils.data.TensorDataset(torch.zeros(2, 2), -torch.ones(2, 4))
    assert labelled_part(masks) is masks  # targets of several numbers are left alone
    assert label_known({"x": 1, "label": None}) is False
    assert label_known((1, torch.tensor(-1))) is False


def test_samples_without_a_place_for_a_label_lack_it_only_if_the_past_has_one():
    alone = [torch.ones(2), torch.zeros(2)]
    assert not lacks_labels(alone, [])
    assert not lacks_labels(alone, [torch.ones(2)])
    assert lacks_labels(alone, [(torch.ones(2), 3)])
    assert only_inputs([{"image": 7, "label": None}])[0] == 7


def test_all_labels_of_a_list_are_read_before_it_is_called_unlabelled():
    few = [(place, 1 if place in (1, 2, 52) else None) for place in range(105)]
    assert not lacks_labels(few, [])
    assert [x for x, _ in labelled_part(few)] == [1, 2, 52]
    assert lacks_labels([(x, None) for x, _ in few], [])
    most = [(place, -1 if 1 <= place <= 7 else 0) for place in range(600)]
    assert len(labelled_part(most)) == 593
    assert labelled_part(most, quick=True) is most  # the first samples read all have one
