"""Name of the distribution and version of the package."""

from __future__ import annotations

DISTRIBUTION = "lightning-greentrain"
"""Name on the package index, where another project has the name ``greentrain``."""

VERSION = "0.1.0"
