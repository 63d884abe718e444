"""MLflow: what is logged where, and under which names."""

from greentrain.tracking.mlflow_tracker import MlflowTracker
from greentrain.tracking.tracker import DatasetUsed, NullTracker, Tracker

__all__ = ["DatasetUsed", "MlflowTracker", "NullTracker", "Tracker"]
