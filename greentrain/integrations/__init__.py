"""Measure and cap the training of other libraries than Lightning."""

from greentrain.integrations.transformers_callback import TransformersCallback

__all__ = ["TransformersCallback"]
