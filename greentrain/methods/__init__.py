"""Building blocks in pure torch that reuse knowledge, computations and partial information."""

from greentrain.methods.augmentation import strongly_augmented, weakly_augmented
from greentrain.methods.feature_store import FeatureStore, content_keys, state_key
from greentrain.methods.freezing import freezing_depth, relative_information
from greentrain.methods.labelling import k_center, most_uncertain
from greentrain.methods.pseudo_labels import (
    MISSING_LABEL,
    MissingAsMinusOne,
    calibrated_threshold,
    consistency_loss,
    has_label,
    pseudo_labels,
)

__all__ = [
    "MISSING_LABEL",
    "FeatureStore",
    "MissingAsMinusOne",
    "calibrated_threshold",
    "consistency_loss",
    "content_keys",
    "freezing_depth",
    "has_label",
    "k_center",
    "most_uncertain",
    "pseudo_labels",
    "relative_information",
    "state_key",
    "strongly_augmented",
    "weakly_augmented",
]
