"""Everything that touches a running Lightning Trainer."""

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.energy_monitor import (
    EnergyMonitor,
    emissions_of,
    epoch_metrics,
    record_window,
)

__all__ = ["BudgetGuard", "EnergyMonitor", "emissions_of", "epoch_metrics", "record_window"]
