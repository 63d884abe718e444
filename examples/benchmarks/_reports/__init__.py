"""The parts of ``reports.py``: a large ledger, and the tests of what has to hold of reports."""
