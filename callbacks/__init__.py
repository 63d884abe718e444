"""Lightning callbacks: what touches a running Trainer."""

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.energy_monitor import EnergyMonitor

__all__ = ["BudgetGuard", "EnergyMonitor"]
