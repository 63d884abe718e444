"""The parts of ``reports.py``: a large ledger, an outage, and the tests of reports."""
