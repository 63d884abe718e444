"""Decide, reserve, settle and learn: one core of all updates, a controller for any training."""

from greentrain.decisions.core import DecisionCore, PendingUpdate, UpdateOutcome
from greentrain.decisions.open_controller import candidates_of, open_controller
from greentrain.decisions.session import ControllerSession
from greentrain.decisions.stream_budget import StreamBudget

__all__ = [
    "ControllerSession",
    "DecisionCore",
    "PendingUpdate",
    "StreamBudget",
    "UpdateOutcome",
    "candidates_of",
    "open_controller",
]
