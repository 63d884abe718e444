"""Log streams to MLflow, and name their metrics and tags.

``MlflowTracker`` is loaded when it is first used, because it loads Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from greentrain.tracking.tracker import DatasetUsed, NullTracker, RunFiles, Tracker

if TYPE_CHECKING:
    from greentrain.tracking.mlflow_tracker import MlflowTracker

__all__ = ["DatasetUsed", "MlflowTracker", "NullTracker", "RunFiles", "Tracker"]


def __getattr__(name: str) -> Any:
    if name != "MlflowTracker":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from greentrain.tracking.mlflow_tracker import MlflowTracker

    return MlflowTracker
