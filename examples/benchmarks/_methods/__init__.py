"""Parts of the benchmark of continual-learning methods."""
