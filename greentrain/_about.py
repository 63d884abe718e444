"""Name and version of the distribution, and the releases that must not be next to it."""

from __future__ import annotations

DISTRIBUTION = "lightning-greentrain"
"""Name on the package index, where another project has the name ``greentrain``."""

VERSION = "0.1.0"

MALICIOUS_LIGHTNING = ("2.6.2", "2.6.3")
"""Releases of ``lightning`` and ``pytorch-lightning`` that stole credentials; withdrawn since."""

MALICIOUS_ADVISORY = "GHSA-w37p-236h-pfx3"
"""The advisory on these releases."""
