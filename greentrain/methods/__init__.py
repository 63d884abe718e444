"""Building blocks in pure torch: reuse knowledge and computations, use partial information."""

from greentrain.methods.anchors import Anchor, add_penalty_gradient, penalty
from greentrain.methods.augmentation import strongly_augmented, weakly_augmented
from greentrain.methods.auxiliary_loss import AuxiliaryLoss, auxiliary_loss
from greentrain.methods.distillation import distillation_loss, heads_loss, output_loss
from greentrain.methods.early_exit import ExitHeads, ExitPrediction
from greentrain.methods.exit_thresholds import ExitRow, choose_threshold, exit_table
from greentrain.methods.feature_store import FeatureStore, content_keys, state_key
from greentrain.methods.freezing import freezing_depth, relative_information
from greentrain.methods.hypernetwork import HyperNetwork
from greentrain.methods.importance import (
    add_contributions,
    output_sensitivity,
    path_importance,
    squared_gradients,
)
from greentrain.methods.interference import most_harmed
from greentrain.methods.interval import Box, InterContiNet, IntervalLinear
from greentrain.methods.labelling import k_center, most_uncertain
from greentrain.methods.low_rank import low_rank
from greentrain.methods.masks import MaskedNetwork, Piggyback, SuperMasks
from greentrain.methods.mixture_of_experts import MixtureOfExperts
from greentrain.methods.multi_head import MultiHead
from greentrain.methods.nearest_mean import class_means, icarl_loss, mean_scores
from greentrain.methods.operation_count import count_operations
from greentrain.methods.partial_batches import PartialBatches
from greentrain.methods.progressive import ColumnRouter, ProgressiveNetwork
from greentrain.methods.projection import project_from, project_from_all
from greentrain.methods.pruning import magnitude_prune, prune_channels
from greentrain.methods.pseudo_labels import (
    MISSING_LABEL,
    MissingAsMinusOne,
    calibrated_threshold,
    consistency_loss,
    has_label,
    pseudo_labels,
)
from greentrain.methods.skip_blocks import SkipBlocks
from greentrain.methods.task_conditioned import TaskConditioned, set_task
from greentrain.methods.tensor_reservoir import TensorReservoir

__all__ = [
    "MISSING_LABEL",
    "Anchor",
    "AuxiliaryLoss",
    "Box",
    "ColumnRouter",
    "ExitHeads",
    "ExitPrediction",
    "ExitRow",
    "FeatureStore",
    "HyperNetwork",
    "InterContiNet",
    "IntervalLinear",
    "MaskedNetwork",
    "MissingAsMinusOne",
    "MixtureOfExperts",
    "MultiHead",
    "PartialBatches",
    "Piggyback",
    "ProgressiveNetwork",
    "SkipBlocks",
    "SuperMasks",
    "TaskConditioned",
    "TensorReservoir",
    "add_contributions",
    "add_penalty_gradient",
    "auxiliary_loss",
    "calibrated_threshold",
    "choose_threshold",
    "class_means",
    "consistency_loss",
    "content_keys",
    "count_operations",
    "distillation_loss",
    "exit_table",
    "freezing_depth",
    "has_label",
    "heads_loss",
    "icarl_loss",
    "k_center",
    "low_rank",
    "magnitude_prune",
    "mean_scores",
    "most_harmed",
    "most_uncertain",
    "output_loss",
    "output_sensitivity",
    "path_importance",
    "penalty",
    "project_from",
    "project_from_all",
    "prune_channels",
    "pseudo_labels",
    "relative_information",
    "set_task",
    "squared_gradients",
    "state_key",
    "strongly_augmented",
    "weakly_augmented",
]
