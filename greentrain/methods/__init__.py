"""Building blocks in pure torch: methods that reuse knowledge, computations and partial information."""

__all__: list[str] = []
