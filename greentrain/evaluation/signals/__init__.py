"""Signals of drift, unseen classes and training progress."""

__all__: list[str] = []
