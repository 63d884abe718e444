"""The ``greentrain verify`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from greentrain.cli import console
from greentrain.cli.few_collections import few_collections
from greentrain.errors import ConfigurationError


def verify(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ledgers: files, patterns such as 'runs/*.db', URLs; or one report.json.",
            metavar="LEDGER...|REPORT",
            show_default="greentrain.db, or else greentrain_logs/*.db",
        ),
    ] = None,
    heads: Annotated[
        Path | None,
        typer.Option(
            help="Compare with the heads in this file (or report.json); written if missing.",
            metavar="FILE",
        ),
    ] = None,
    new_only: Annotated[
        bool,
        typer.Option(
            "--new-only", help="Recompute only the rows after the heads in the --heads file."
        ),
    ] = False,
    ledgers: Annotated[
        list[str] | None,
        typer.Option(
            "--ledger",
            help="A ledger of the report.json, or of the --model. Can be repeated.",
            metavar="LEDGER",
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Also find the update that produced the weights in this file: a checkpoint of "
            "Lightning, a state_dict, or state.pt of a stream.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Recompute the chains and sums of ledgers, or every figure of a report from its ledgers.

    Exit code 1: a row was altered, removed, inserted or reordered, a figure of the report is not
    that of the ledger, or no update produced the model. Exit code 3: a run has no closing row, and
    no exported head covers it. Exit code 4: a file is no readable ledger: it is empty, cut short,
    or no SQLite database, or a text in it is not UTF-8.
    """
    if model is not None:
        targets = [*(targets or ()), *(ledgers or ())]
        ledgers = None
    targets = list(targets or ([] if ledgers else console.found_ledgers(None)))
    if model is not None and any(one.endswith(".json") for one in targets):
        raise ConfigurationError(
            "a model is checked with ledgers, and a report.json was given; use: greentrain verify "
            "--ledger LEDGER --model FILE"
        )
    weights = None if model is None else _hash_of(model)
    if ledgers or targets[0].endswith(".json"):
        from greentrain.report.recheck import check_file

        if len(targets) != 1 or not ledgers or heads is not None or new_only:
            raise ConfigurationError(
                "a report is checked alone, with its ledger: greentrain verify report.json "
                "--ledger LEDGER"
            )
        with few_collections():
            lines, code = check_file(Path(targets[0]), ledgers)
    else:
        from greentrain.ledger.multi import verify_all

        with few_collections():
            lines, code = verify_all(targets, heads, new_only=new_only)
        if model is not None and code in (0, 3):  # 3: a run is not closed
            found, produced = _origins(model, str(weights), targets)
            lines, code = [*lines, *found], code if produced else 1
    for line in lines:
        console.print_line(line)
    raise typer.Exit(code)


def _hash_of(model: Path) -> str:
    """Return the hash of the weights in a file."""
    from greentrain.training.weights_digest import read_weights, weights_sha256

    return weights_sha256(read_weights(model))


def _origins(model: Path, weights: str, targets: list[str]) -> tuple[list[str], bool]:
    """Describe the updates that produced a file of weights, and return whether there are any."""
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report.model_origin import describe_origins

    opened = open_ledgers(targets)
    try:
        return describe_origins(opened, weights, model.name)
    finally:
        close_ledgers(opened)
