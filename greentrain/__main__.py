"""The same command as ``greentrain``: ``python -m greentrain``."""

from greentrain.cli.app import main

main()
