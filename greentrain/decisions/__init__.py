"""The controller around training of one's own: decide, reserve, measure, settle, learn."""

from greentrain.decisions.open_controller import candidates_of, open_controller
from greentrain.decisions.pending_update import PendingUpdate, UpdateOutcome
from greentrain.decisions.session import ControllerSession

__all__ = [
    "ControllerSession",
    "PendingUpdate",
    "UpdateOutcome",
    "candidates_of",
    "open_controller",
]
