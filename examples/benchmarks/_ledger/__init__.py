"""The parts of ``ledger.py``: the guard, the ledger's speed, and rows of test cases."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # for helpers of the tests: simulated cards, random fits, a cluster
