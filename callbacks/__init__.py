"""Lightning callbacks that measure a running Trainer and keep it within a budget."""

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.energy_monitor import EnergyMonitor

__all__ = ["BudgetGuard", "EnergyMonitor"]
