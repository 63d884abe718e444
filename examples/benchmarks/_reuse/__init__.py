"""Parts of the benchmark of reused computations."""
