"""Measure and cap the training of other libraries than Lightning, and whole searches."""

from greentrain.integrations.search import SearchBudget
from greentrain.integrations.transformers_callback import TransformersCallback

__all__ = ["SearchBudget", "TransformersCallback"]
