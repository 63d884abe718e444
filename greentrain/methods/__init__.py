"""Building blocks in pure torch: reuse knowledge and computations, use partial information."""

from greentrain.methods.anchors import (
    Anchor,
    accumulate,
    add_penalty_gradient,
    digest,
    merge,
    penalty,
)
from greentrain.methods.auxiliary_loss import AuxiliaryLoss, auxiliary_loss
from greentrain.methods.distillation import distillation_loss, heads_loss, output_loss
from greentrain.methods.early_exit import ExitHeads, ExitPrediction
from greentrain.methods.exit_thresholds import ExitRow, choose_threshold, exit_table
from greentrain.methods.importance import (
    add_contributions,
    output_sensitivity,
    path_importance,
    squared_gradients,
)
from greentrain.methods.interference import most_harmed
from greentrain.methods.low_rank import low_rank
from greentrain.methods.mixture_of_experts import MixtureOfExperts
from greentrain.methods.operation_count import count_operations
from greentrain.methods.projection import (
    assign_gradients,
    flattened,
    project_from,
    project_from_all,
)
from greentrain.methods.pruning import magnitude_prune, prune_channels
from greentrain.methods.skip_blocks import SkipBlocks
from greentrain.methods.tensor_reservoir import TensorReservoir

__all__ = [
    "Anchor",
    "AuxiliaryLoss",
    "ExitHeads",
    "ExitPrediction",
    "ExitRow",
    "MixtureOfExperts",
    "SkipBlocks",
    "TensorReservoir",
    "accumulate",
    "add_contributions",
    "add_penalty_gradient",
    "assign_gradients",
    "auxiliary_loss",
    "choose_threshold",
    "count_operations",
    "digest",
    "distillation_loss",
    "exit_table",
    "flattened",
    "heads_loss",
    "low_rank",
    "magnitude_prune",
    "merge",
    "most_harmed",
    "output_loss",
    "output_sensitivity",
    "path_importance",
    "penalty",
    "project_from",
    "project_from_all",
    "prune_channels",
    "squared_gradients",
]
