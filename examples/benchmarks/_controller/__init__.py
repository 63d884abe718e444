"""The parts of ``controller.py``: streams, runs of them, and the rows that follow from the runs."""
