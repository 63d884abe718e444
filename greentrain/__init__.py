"""Energy- and carbon-aware training for PyTorch Lightning.

The names below are handed on when they are first used, so that ``import greentrain`` itself loads
neither torch nor Lightning nor MLflow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from greentrain._about import VERSION as __version__

if TYPE_CHECKING:
    from greentrain.budget import Budget
    from greentrain.control import BudgetController, UpdateMode
    from greentrain.decisions import candidates_of, open_controller
    from greentrain.measuring import measure
    from greentrain.streams import Experience
    from greentrain.training import ModelUpdate, StreamTrainer, update

_HOMES = {
    "Budget": "greentrain.budget",
    "BudgetController": "greentrain.control",
    "Experience": "greentrain.streams",
    "ModelUpdate": "greentrain.training",
    "StreamTrainer": "greentrain.training",
    "UpdateMode": "greentrain.control",
    "candidates_of": "greentrain.decisions",
    "measure": "greentrain.measuring",
    "open_controller": "greentrain.decisions",
    "update": "greentrain.training",
}

__all__ = [
    "Budget",
    "BudgetController",
    "Experience",
    "ModelUpdate",
    "StreamTrainer",
    "UpdateMode",
    "__version__",
    "candidates_of",
    "measure",
    "open_controller",
    "update",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
