"""Metrics of accuracy, forgetting and transfer over a stream, and of the resources used."""

from greentrain.metrics.matrix import AccuracyMatrix
from greentrain.metrics.resources import (
    ResourceUse,
    Slope,
    frugality_score,
    resource_slopes,
    slope,
)
from greentrain.metrics.target import TargetEnergy, energy_to_target, median_energy_to_target
from greentrain.metrics.transfer import (
    anytime_accuracy,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)

__all__ = [
    "AccuracyMatrix",
    "ResourceUse",
    "Slope",
    "TargetEnergy",
    "anytime_accuracy",
    "average_accuracy",
    "backward_transfer",
    "energy_to_target",
    "forgetting",
    "forward_transfer",
    "frugality_score",
    "median_energy_to_target",
    "resource_slopes",
    "slope",
]
