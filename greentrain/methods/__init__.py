"""Building blocks in pure torch: reuse knowledge and computations, use partial information."""

from greentrain.methods.auxiliary_loss import (
    AuxiliaryLoss,
    auxiliary_loss,
)
from greentrain.methods.early_exit import (
    ExitHeads,
    ExitPrediction,
)
from greentrain.methods.exit_thresholds import (
    ExitRow,
    choose_threshold,
    exit_table,
)
from greentrain.methods.low_rank import (
    low_rank,
)
from greentrain.methods.mixture_of_experts import (
    MixtureOfExperts,
)
from greentrain.methods.operation_count import (
    count_operations,
)
from greentrain.methods.pruning import (
    magnitude_prune,
    prune_channels,
)
from greentrain.methods.skip_blocks import (
    SkipBlocks,
)

__all__ = [
    "AuxiliaryLoss",
    "ExitHeads",
    "ExitPrediction",
    "ExitRow",
    "MixtureOfExperts",
    "SkipBlocks",
    "auxiliary_loss",
    "choose_threshold",
    "count_operations",
    "exit_table",
    "low_rank",
    "magnitude_prune",
    "prune_channels",
]
