"""The parts of ``carbon.py``."""
