"""Building blocks in pure torch: reuse knowledge, computations and partial information."""

from greentrain.methods.anchors import (
    Anchor,
    accumulate,
    add_penalty_gradient,
    digest,
    merge,
    penalty,
)
from greentrain.methods.distillation import distillation_loss, heads_loss, output_loss
from greentrain.methods.importance import (
    add_contributions,
    output_sensitivity,
    path_importance,
    squared_gradients,
)

__all__ = [
    "Anchor",
    "accumulate",
    "add_contributions",
    "add_penalty_gradient",
    "digest",
    "distillation_loss",
    "heads_loss",
    "merge",
    "output_loss",
    "output_sensitivity",
    "path_importance",
    "penalty",
    "squared_gradients",
]
