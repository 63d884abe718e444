"""Lightning callbacks that measure a running Trainer, keep it within a budget, and resume it."""

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.energy_monitor import EnergyMonitor
from greentrain.callbacks.exact_loader import ResumableLoader, resumable_loader
from greentrain.callbacks.exact_resume import ExactResume
from greentrain.callbacks.fit_estimate import FitEstimate

__all__ = [
    "BudgetGuard",
    "EnergyMonitor",
    "ExactResume",
    "FitEstimate",
    "ResumableLoader",
    "resumable_loader",
]
