"""The ``greentrain keys`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from greentrain.cli import console

app = typer.Typer(help="Make keys that sign reports and ledgers.", no_args_is_help=True)


@app.callback()
def _keys() -> None:
    """Keep ``new`` a sub-command."""


@app.command()
def new(
    folder: Annotated[
        Path, typer.Argument(help="Folder of the two files.", show_default="the current folder")
    ] = Path(),
) -> None:
    """Make a pair of Ed25519 keys: greentrain.key signs, and greentrain.pub checks."""
    from greentrain.ledger.signatures import SIGNING_VARIABLE, Checker, new_keys

    private, public = new_keys(folder)
    console.print_line(f"wrote {private} (private: keep it to yourself)")
    console.print_line(f"wrote {public} (public: hand it to everyone who checks)")
    console.print_line(f"fingerprint {Checker(public).fingerprint}")
    console.print_line(f"To sign, set {SIGNING_VARIABLE}={private.resolve()}")
