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
from greentrain.methods.interference import most_harmed
from greentrain.methods.projection import (
    assign_gradients,
    flattened,
    project_from,
    project_from_all,
)
from greentrain.methods.tensor_reservoir import TensorReservoir

__all__ = [
    "Anchor",
    "TensorReservoir",
    "accumulate",
    "add_contributions",
    "add_penalty_gradient",
    "assign_gradients",
    "digest",
    "distillation_loss",
    "flattened",
    "heads_loss",
    "merge",
    "most_harmed",
    "output_loss",
    "output_sensitivity",
    "path_importance",
    "penalty",
    "project_from",
    "project_from_all",
    "squared_gradients",
]
