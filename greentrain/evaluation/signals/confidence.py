"""Estimate a metric on samples without labels, from a classifier's confidence in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

FEWEST_SCORED = 16
"""Smallest number of samples, with labels and without, of an estimate."""
SHIFT_ERROR = 0.1
"""Standard error of an estimated accuracy at a distance of 1 between new and old features."""
_MOST_SLOPE = 5.0
_TEMPERATURES = torch.logspace(-3, 3, 49, base=2.0)
_METHODS = "confidence (ATC, DoC)"
_SAME = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimatedMetric:
    """A metric that was estimated without labels.

    Args:
        value: The metric, as the model logs it.
        sd: Its standard error: of sampling, of the methods' scatter, and of the shift.
        by: The methods.
    """

    value: float
    sd: float
    by: str


def thresholded_confidence(old: Tensor, right: Tensor, new: Tensor) -> float:
    """Return the accuracy on new samples by the average thresholded confidence.

    The threshold is the confidence below which the share of the old samples is their error. The
    estimate is the share of new samples at or above it (Garg et al. 2022, "Leveraging unlabeled
    data to predict out-of-distribution performance", arXiv 2201.04234, equations 1 and 2).

    Args:
        old: Confidences of samples with labels, ``(old,)``.
        right: Whether their predictions are right, ``(old,)``.
        new: Confidences of samples without labels, ``(new,)``.

    Example:
        >>> old, new = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0.9, 0.5])
        >>> right = torch.tensor([True, True, True, False])  # one error, below 0.7
        >>> thresholded_confidence(old, right, new)
        0.5
    """
    errors = int((~right).sum())
    if errors == len(old):
        return 0.0
    threshold = old.sort().values[errors]
    return float((new >= threshold).float().mean())


def difference_of_confidences(old: Tensor, right: Tensor, new: Tensor) -> float:
    """Return the accuracy on new samples by the difference of the average confidences.

    The accuracy falls by as much as the average confidence (Guillory et al. 2021, "Predicting with
    confidence on unseen distributions", arXiv 2107.03315, section 3).

    Args:
        old: Confidences of samples with labels, ``(old,)``.
        right: Whether their predictions are right, ``(old,)``.
        new: Confidences of samples without labels, ``(new,)``.

    Returns:
        The accuracy, in [0, 1].

    Example:
        >>> old, new = torch.tensor([0.75, 0.75]), torch.tensor([0.5, 0.5])
        >>> difference_of_confidences(old, torch.tensor([True, True]), new)
        0.75
    """
    accuracy = float(right.float().mean() - (old.mean() - new.mean()))
    return min(1.0, max(0.0, accuracy))


def disagreement_accuracy(
    old: Tensor, right: Tensor, new: Tensor, old_features: Tensor, new_features: Tensor
) -> float | None:
    """Return the accuracy on new samples by the disagreement with a second classifier.

    The second one predicts the class whose mean of the old features is nearest. The error grows by
    as much as the disagreement of two classifiers, as in Jiang et al. 2022, "Assessing
    generalization of SGD via disagreement", arXiv 2106.13799.

    Args:
        old: Logits of samples with labels, ``(old, classes)``.
        right: Whether their predictions are right, ``(old,)``.
        new: Logits of samples without labels, ``(new, classes)``.
        old_features: Features of the first, ``(old, features)``.
        new_features: Features of the second, ``(new, features)``.

    Returns:
        The accuracy, in [0, 1]; ``None`` if the numbers of rows or features differ.

    Example:
        >>> old = new = torch.tensor([[9.0, 0.0], [0.0, 9.0]])  # class 0, then class 1
        >>> there = torch.tensor([[0.0], [1.0]])
        >>> moved = torch.tensor([[0.0], [0.1]])  # both near the mean of class 0
        >>> disagreement_accuracy(old, torch.tensor([True, True]), new, there, moved)
        0.5
    """
    if (len(old), len(new)) != (len(old_features), len(new_features)):
        return None
    if old_features.shape[1:] != new_features.shape[1:]:
        return None
    ours, theirs = old.argmax(1), new.argmax(1)
    present = torch.tensor(sorted(set(ours.tolist())))
    means = torch.stack([old_features[ours == each].mean(0) for each in present])

    def disagreement(features: Tensor, classes: Tensor) -> Tensor:
        nearest = present[torch.cdist(features, means).argmin(1)]
        return (nearest != classes).float().mean()

    more = disagreement(new_features, theirs) - disagreement(old_features, ours)
    return min(1.0, max(0.0, float(right.float().mean() - more)))


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the temperature at which the cross-entropy of the logits is smallest.

    One of 49, from 1/8 to 8 (Guo et al. 2017, "On calibration of modern neural networks",
    section 4.2).

    Args:
        logits: ``(samples, classes)``.
        labels: ``(samples,)``.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0], [4.0, 0.0]])
        >>> round(fitted_temperature(logits, torch.tensor([0, 1])), 1)  # never sure
        8.0
    """
    losses = torch.stack([cross_entropy(logits / each, labels) for each in _TEMPERATURES])
    return float(_TEMPERATURES[losses.argmin()])


def estimate_without_labels(
    metric: float,
    logits: Tensor,
    labels: Tensor,
    new: Tensor,
    *,
    features: tuple[Tensor, Tensor] | None = None,
    shift: float | None = None,
) -> EstimatedMetric | str:
    """Estimate the metric of a classifier on samples without labels.

    An accuracy is the median of the estimates of the methods. A cross-entropy grows by as much as
    the entropy of the calibrated predictions.

    Args:
        metric: The metric on old samples, as the model logs it.
        logits: Logits of old samples, with labels, ``(old, classes)``.
        labels: Their classes, ``(old,)``.
        new: Logits of the new samples, ``(new, classes)``.
        features: Features of the old and the new samples, for the disagreement.
        shift: Squared distance of the new features from the old ones, such as ``mmd2``.

    Returns:
        The estimate; or the reason in one clause if there is none.

    Example:
        >>> logits = torch.eye(2).repeat(20, 1) * 4
        >>> labels = torch.tensor([0, 1]).repeat(20)
        >>> found = estimate_without_labels(1.0, logits, labels, logits)
        >>> found.value, found.sd < 0.05, found.by
        (1.0, True, 'confidence (ATC, DoC)')
        >>> estimate_without_labels(0.3, logits, labels, logits)
        'the metric is neither the accuracy nor the cross-entropy of what forward returns'
    """
    keep = torch.isfinite(new).all(1)
    usable = torch.isfinite(logits).all(1)
    if int(keep.sum()) < FEWEST_SCORED or int(usable.sum()) < FEWEST_SCORED:
        return f"fewer than {FEWEST_SCORED} samples have finite class scores"
    old_features, new_features = (None, None) if features is None else features
    if old_features is not None and new_features is not None and len(old_features) == len(usable):
        old_features, new_features = (
            old_features[usable],
            new_features[keep] if len(new_features) == len(keep) else new_features,
        )
    else:
        old_features = new_features = None
    logits, labels, new = logits[usable].float(), labels[usable], new[keep].float()
    right = logits.argmax(1) == labels
    accuracy, loss = float(right.float().mean()), float(cross_entropy(logits, labels))
    distance = math.sqrt(max(0.0, shift or 0.0))
    heat = fitted_temperature(logits, labels)
    old_shares, new_shares = (logits / heat).softmax(1), (new / heat).softmax(1)
    error = (accuracy * (1 - accuracy) / len(right)) ** 0.5
    for scale in (1.0, 100.0):
        if abs(metric / scale - accuracy) <= max(_SAME, 3 * error):
            found = _accuracies(
                (logits, old_shares.amax(1)), right, (new, new_shares.amax(1)), old_features,
                new_features,
            )  # fmt: skip
            value = sorted(found)[len(found) // 2]
            spread = 0.5 * (max(found) - min(found))
            sampling = math.sqrt(max(value * (1 - value), 1 / len(new)) / len(new))
            sd = math.hypot(sampling, error, spread, SHIFT_ERROR * distance)
            by = _METHODS if len(found) == 2 else f"{_METHODS} and disagreement"
            return EstimatedMetric(value=scale * value, sd=scale * sd, by=by)
    each = cross_entropy(logits, labels, reduction="none")
    error = float(each.std()) / math.sqrt(len(each))
    if abs(metric - loss) <= max(_SAME * abs(loss), 3 * error):
        old_entropy, new_entropy = (
            -(shares * shares.clamp_min(1e-12).log()).sum(1) for shares in (old_shares, new_shares)
        )
        more = float(new_entropy.mean() - old_entropy.mean())
        sampling = float(new_entropy.std()) / math.sqrt(len(new_entropy))
        sd = math.hypot(sampling, error, 0.5 * more, SHIFT_ERROR * distance * max(loss, 0.1))
        return EstimatedMetric(value=metric + more, sd=sd, by="entropy of calibrated predictions")
    return "the metric is neither the accuracy nor the cross-entropy of what forward returns"


def corrected(
    found: EstimatedMetric, past: float, changes: Sequence[tuple[float, float]]
) -> EstimatedMetric:
    """Correct an estimate without labels by what was measured after earlier ones.

    The change of the metric is multiplied by the slope of a ridge regression of the measured on the
    estimated changes, whose prior is 1. The error becomes that of these estimates.

    Args:
        found: The estimate.
        past: The metric on held-out data of earlier experiences.
        changes: Earlier changes of the metric on new data, estimated and measured.

    Example:
        >>> found = EstimatedMetric(value=0.7, sd=0.1, by="confidence")
        >>> again = corrected(found, 0.8, [(-0.1, -0.3)])  # was three times as much
        >>> round(again.value, 3), round(again.sd, 3)  # slope (0.01 + 0.03) / (0.01 + 0.01)
        (0.6, 0.1)
    """
    if not changes:
        return found
    prior = found.sd**2
    slope = (prior + math.fsum(a * b for a, b in changes)) / max(
        prior + math.fsum(a * a for a, _ in changes), 1e-12
    )
    slope = min(max(slope, 0.0), _MOST_SLOPE)
    errors = math.fsum((b - slope * a) ** 2 for a, b in changes)
    sd = math.sqrt((prior + errors) / (1 + len(changes)))
    return EstimatedMetric(value=past + slope * (found.value - past), sd=sd, by=found.by)


def _accuracies(
    old: tuple[Tensor, Tensor],
    right: Tensor,
    new: tuple[Tensor, Tensor],
    old_features: Tensor | None,
    new_features: Tensor | None,
) -> list[float]:
    """Return the estimates of all methods, of logits and confidences."""
    found = [
        thresholded_confidence(old[1], right, new[1]),
        difference_of_confidences(old[1], right, new[1]),
    ]
    if old_features is not None and new_features is not None:
        third = disagreement_accuracy(old[0], right, new[0], old_features, new_features)
        found += [] if third is None else [third]
    return found
