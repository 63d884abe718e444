"""Lightning callbacks that measure a running Trainer, keep it within a budget, and resume it."""

from greentrain.callbacks.agem import AGEM
from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.carbon_aware_pause import CarbonAwarePause
from greentrain.callbacks.compress_once import CompressOnce
from greentrain.callbacks.der import DER
from greentrain.callbacks.energy_monitor import EnergyMonitor
from greentrain.callbacks.ewc import EWC
from greentrain.callbacks.exact_loader import ResumableLoader, resumable_loader
from greentrain.callbacks.exact_resume import ExactResume
from greentrain.callbacks.exit_training import EarlyExit
from greentrain.callbacks.feature_cache import FeatureCache
from greentrain.callbacks.feedback_replay import ReplayThroughFeedback
from greentrain.callbacks.fit_estimate import FitEstimate
from greentrain.callbacks.gdumb import GDumb
from greentrain.callbacks.gem import GEM
from greentrain.callbacks.generative_replay import GenerativeReplay, LearnBuffer
from greentrain.callbacks.gradient_projection import GradientProjection
from greentrain.callbacks.icarl import ICaRL
from greentrain.callbacks.informative_subset import InformativeSubset
from greentrain.callbacks.l2_anchor import L2Anchor
from greentrain.callbacks.lora_update import LoraUpdate
from greentrain.callbacks.lwf import LwF
from greentrain.callbacks.mas import MAS
from greentrain.callbacks.mir import MIR
from greentrain.callbacks.output_term import OutputTerm
from greentrain.callbacks.parameter_anchor import ParameterAnchor
from greentrain.callbacks.partial_labels import PartialLabels
from greentrain.callbacks.selective_training import SelectiveTraining
from greentrain.callbacks.si import SI
from greentrain.callbacks.training_paused import TrainingPaused

__all__ = [
    "AGEM",
    "DER",
    "EWC",
    "GEM",
    "MAS",
    "MIR",
    "SI",
    "BudgetGuard",
    "CarbonAwarePause",
    "CompressOnce",
    "EarlyExit",
    "EnergyMonitor",
    "ExactResume",
    "FeatureCache",
    "FitEstimate",
    "GDumb",
    "GenerativeReplay",
    "GradientProjection",
    "ICaRL",
    "InformativeSubset",
    "L2Anchor",
    "LearnBuffer",
    "LoraUpdate",
    "LwF",
    "OutputTerm",
    "ParameterAnchor",
    "PartialLabels",
    "ReplayThroughFeedback",
    "ResumableLoader",
    "SelectiveTraining",
    "TrainingPaused",
    "resumable_loader",
]
