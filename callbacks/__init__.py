"""Everything that touches a running Lightning Trainer."""

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.energy_monitor import EnergyMonitor, epoch_metrics, record_window

__all__ = ["BudgetGuard", "EnergyMonitor", "epoch_metrics", "record_window"]
