"""The parts of ``controller.py``: streams, their runs, and the rows computed from the runs."""
