"""The parts of ``ledger.py``: the guard, the ledger's speed, and what its tests try."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # for what the tests have: simulated cards, random fits, a cluster
