"""MLflow: what is logged where, and under which names."""

from greentrain.tracking.tracker import MlflowTracker, NullTracker, Tracker

__all__ = ["MlflowTracker", "NullTracker", "Tracker"]
