"""The parts of ``measurement.py``."""
