"""Log streams to MLflow, and name their metrics and tags."""

from greentrain.tracking.mlflow_tracker import MlflowTracker
from greentrain.tracking.tracker import DatasetUsed, NullTracker, RunFiles, Tracker

__all__ = ["DatasetUsed", "MlflowTracker", "NullTracker", "RunFiles", "Tracker"]
