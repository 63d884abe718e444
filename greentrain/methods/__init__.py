"""Building blocks in pure torch: reuse knowledge and computations, use partial information."""

__all__: list[str] = []
