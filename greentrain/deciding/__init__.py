"""The controller around training of one's own: decide, reserve, measure, settle, learn."""

from greentrain.deciding.opening import candidates_of, open_controller
from greentrain.deciding.training import OwnTraining
from greentrain.deciding.update import Came, OwnUpdate

__all__ = ["Came", "OwnTraining", "OwnUpdate", "candidates_of", "open_controller"]
