"""The ``greentrain verify`` command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from greentrain.cli import console
from greentrain.errors import ConfigurationError
from greentrain.ledger.few_collections import few_collections

REPORT_FILES = (".html", ".pdf", ".json", ".csv", ".xlsx", ".md", ".yaml")
"""Ends of the names of a report's files; every other name is that of a ledger."""


def verify(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Ledgers: files, patterns such as 'runs/*.db', URLs; or one file of a report.",
            metavar="LEDGER...|FILE",
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
        typer.Option("--ledger", help="A ledger of the report. Can be repeated.", metavar="LEDGER"),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            help="The report.json that the file was rendered from.",
            metavar="FILE",
            show_default="report.json in the file's folder",
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(
            help="Check signatures with this key: of FILE in FILE.sig, or of a ledger's heads.",
            metavar="KEY",
        ),
    ] = None,
    factors: Annotated[
        Path | None,
        typer.Option(help="The file of factors of a restated report.", metavar="FILE"),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Also find the update that produced the weights in this file: a checkpoint of "
            "Lightning, a state_dict, safetensors, or state.pt of a stream.",
            metavar="FILE",
        ),
    ] = None,
) -> None:
    """Recompute the chains and sums of ledgers, or every figure of a report's file.

    A report.json is built again from its ledgers. Any other file of a report is rendered again from
    its report.json, which is compared with the ledgers if they are given.

    Exit code 1: a row was altered, removed, inserted or reordered, a figure of the report is not
    that of the ledger, or no update produced the model. Exit code 3: a run has no closing row, and
    no exported head covers it. Exit code 4: a file is no readable ledger: it is empty, cut short,
    or no SQLite database, or a text in it is not UTF-8.
    """
    if model is not None:
        targets, ledgers = [*(targets or ()), *(ledgers or ())], None
    named = list(targets or ledgers or console.found_ledgers(None))
    of_report = [one for one in named if Path(one).suffix.lower() in REPORT_FILES]
    if model is not None and of_report:
        raise ConfigurationError(
            f"a model is checked with ledgers, and {of_report[0]!r} is a file of a report; use: "
            "greentrain verify --ledger LEDGER --model FILE"
        )
    weights = None if model is None else _hash_of(model)
    if Path(named[0]).suffix.lower() in REPORT_FILES:
        lines: list[str] = []
        code = 0
        if public_key is not None:
            from greentrain.ledger.signatures import check_signature

            lines, code = check_signature(Path(named[0]), public_key)
            if not (ledgers or report is not None or len(named) > 1):
                lines.append("the contents were not checked: add --ledger LEDGER")
        if public_key is None or ledgers or report is not None or len(named) > 1:
            alone = heads is None and not new_only
            found, worst = _check_file(named, ledgers or [], report, factors, alone=alone)
            lines, code = [*lines, *found], max(code, worst)
    elif report is not None or factors is not None or (targets and ledgers):
        raise ConfigurationError(
            f"--report, --factors and --ledger belong to a file of a report, and {named[0]!r} is "
            f"none by its name; it ends with one of {', '.join(REPORT_FILES)}"
        )
    else:
        from greentrain.ledger.multi import verify_all

        with few_collections():
            lines, code = verify_all(named, heads, new_only=new_only, public_key=public_key)
        if model is not None and code in (0, 3):  # 3: a run is not closed
            found, produced = _origins(model, str(weights), named)
            lines, code = [*lines, *found], code if produced else 1
    for line in lines:
        console.print_line(line)
    raise typer.Exit(code)


def _check_file(
    named: Sequence[str],
    ledgers: Sequence[str],
    report: Path | None,
    factors: Path | None,
    *,
    alone: bool,
) -> tuple[list[str], int]:
    from greentrain.report.recheck import check_file
    from greentrain.report.recheck_exports import check_rendered, is_report

    path = Path(named[0])
    of_report = is_report(path.name)
    if len(named) != 1 or not alone or (of_report and (not ledgers or report is not None)):
        raise ConfigurationError(
            "a report is checked alone, with its ledger: greentrain verify report.json "
            "--ledger LEDGER"
        )
    with few_collections():
        if of_report:
            return check_file(path, ledgers, factors)
        return check_rendered(path, ledgers, report, factors)


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
