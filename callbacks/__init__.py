"""Lightning callbacks that measure a running Trainer, keep it within a budget, and resume it."""

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.carbon_aware_pause import CarbonAwarePause
from greentrain.callbacks.energy_monitor import EnergyMonitor
from greentrain.callbacks.exact_loader import ResumableLoader, resumable_loader
from greentrain.callbacks.exact_resume import ExactResume
from greentrain.callbacks.feature_cache import FeatureCache
from greentrain.callbacks.fit_estimate import FitEstimate
from greentrain.callbacks.lora_update import LoraUpdate
from greentrain.callbacks.partial_labels import PartialLabels
from greentrain.callbacks.selective_training import SelectiveTraining
from greentrain.callbacks.training_paused import TrainingPaused

__all__ = [
    "BudgetGuard",
    "CarbonAwarePause",
    "EnergyMonitor",
    "ExactResume",
    "FeatureCache",
    "FitEstimate",
    "LoraUpdate",
    "PartialLabels",
    "ResumableLoader",
    "SelectiveTraining",
    "TrainingPaused",
    "resumable_loader",
]
