"""The parts of ``reliability.py``: failpoints, kills, sick disks and servers, forgeries."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # for helpers of the tests: models, hostile names, a cluster
