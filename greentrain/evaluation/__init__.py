"""Measure a model: probe it, validate it, and compare it with its successor."""

__all__: list[str] = []
