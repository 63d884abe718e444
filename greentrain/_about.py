"""What the project is called where it is installed from, and which version this is."""

from __future__ import annotations

DISTRIBUTION = "lightning-greentrain"
"""Name of the distribution: another project holds the name ``greentrain`` on the public index."""

VERSION = "0.1.0"
