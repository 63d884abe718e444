"""The ``greentrain`` command."""

from greentrain.cli.app import main

__all__ = ["main"]
