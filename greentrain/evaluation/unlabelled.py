"""Estimate the metric of a model on samples without labels, by a forward pass on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch.utils.data import DataLoader, Dataset, Subset

from greentrain.evaluation.comparison import Measured
from greentrain.evaluation.evaluator import isolated_rng
from greentrain.evaluation.signals.confidence import EstimatedMetric, estimate_without_labels
from greentrain.evaluation.signals.drift import MOST_ROWS, Drift, spread
from greentrain.evaluation.signals.features import (
    OUTPUTS,
    PENULTIMATE,
    FeatureTap,
    drift_between,
)
from greentrain.evaluation.signals.missing_labels import only_inputs
from greentrain.evaluation.signals.unseen_classes import labels_in
from greentrain.memory import size

_BATCH = 256


def estimate_new(
    model: LightningModule, past: Dataset[Any], measured: Measured, new: Dataset[Any]
) -> tuple[EstimatedMetric | str, Drift | None]:
    """Estimate a model's metric on new samples without labels, and their distance from the past.

    Args:
        model: The model; its ``forward`` returns class scores ``(batch, classes)``.
        past: Held-out samples with labels.
        measured: The metric on them, with their features if they were captured.
        new: Samples without labels.

    Returns:
        The estimate, or the reason in one clause if there is none; and the drift.
    """
    features = forward_features(model, new)
    if isinstance(features, str):
        return features, None
    rows = spread(size(past), MOST_ROWS).tolist()
    old: Mapping[str, torch.Tensor] | str = measured.features
    if OUTPUTS not in measured.features:
        old = forward_features(model, Subset(past, rows))
    if isinstance(old, str):
        return old, None
    drift = drift_between(old, features)
    scores, new_scores = old.get(OUTPUTS), features.get(OUTPUTS)
    if scores is None or new_scores is None or scores.shape[1] < 2:
        return "forward returns no class scores, so there is no confidence", drift
    labels = labels_in(Subset(past, rows))
    if labels is None or not all(
        isinstance(each, int) and 0 <= each < scores.shape[1] for each in labels
    ):
        return "the labels of held-out data are no classes of what forward returns", drift
    if len(labels) != len(scores):
        return "the held-out data have samples without a label", drift
    pair = None
    if PENULTIMATE in old and PENULTIMATE in features:
        pair = (old[PENULTIMATE], features[PENULTIMATE])
    return estimate_without_labels(
        measured.value,
        scores,
        torch.tensor(labels),
        new_scores,
        features=pair,
        shift=drift.value if drift is not None and drift.measure.startswith("MMD2") else None,
    ), drift


def forward_features(
    model: LightningModule, dataset: Dataset[Any]
) -> dict[str, torch.Tensor] | str:
    """Return what a model's ``forward`` gives for the inputs of samples, whose labels are not read.

    Args:
        model: The model, on its present device.
        dataset: The samples.

    Returns:
        The features by their kind, as a :class:`FeatureTap` captures them; or the reason in one
        clause if the model cannot be called like this.
    """
    device = next((each.device for each in model.parameters()), torch.device("cpu"))
    tap, was_training = FeatureTap(size(dataset), limit=max(1, size(dataset))), model.training
    model.eval()
    try:
        tap.attach(model)
        with isolated_rng(), torch.no_grad():
            for inputs in DataLoader(only_inputs(dataset), batch_size=_BATCH):
                tap.begin()
                model(inputs.to(device))
                tap.add(inputs)
    except Exception as error:  # forward may need anything
        line = " ".join(str(error).split())[:100]
        return f"forward failed on inputs alone ({type(error).__name__}: {line})"
    finally:
        tap.close()
        model.train(was_training)
    return tap.features
