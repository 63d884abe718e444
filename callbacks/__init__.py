"""Lightning callbacks that measure a running Trainer and keep it within a budget."""

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.energy_monitor import EnergyMonitor
from greentrain.callbacks.fit_estimate import FitEstimate
from greentrain.callbacks.selective_training import SelectiveTraining

__all__ = ["BudgetGuard", "EnergyMonitor", "FitEstimate", "SelectiveTraining"]
