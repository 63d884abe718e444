"""Record the cost and gain of every possible update, and simulate policies on the recordings."""

from greentrain.simulation.named_policies import named_policy
from greentrain.simulation.oracle import Oracle, best_schedule
from greentrain.simulation.recorded_table import RecordedTable, read_table
from greentrain.simulation.recording import record
from greentrain.simulation.shared_simulation import simulate_shared
from greentrain.simulation.simulator import (
    always_full,
    follow,
    share_of_gap,
    simulate,
    train_once,
)
from greentrain.simulation.table_path import SimulationResult

__all__ = [
    "Oracle",
    "RecordedTable",
    "SimulationResult",
    "always_full",
    "best_schedule",
    "follow",
    "named_policy",
    "read_table",
    "record",
    "share_of_gap",
    "simulate",
    "simulate_shared",
    "train_once",
]
