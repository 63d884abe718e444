"""The groups of rows of the benchmark of reuse, one module each; see ``reuse.py``."""
