"""Print tables, lines and JSON to the terminal, as every sub-command does."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greentrain.errors import ConfigurationError
from greentrain.texts import masked, one_line, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_WIDTH_WHEN_PIPED = 140
_WHOLE = ("id", "run id")
"""Columns whose cells are to be copied, and stay on one line."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
LedgerOption = Annotated[
    str, typer.Option("--ledger", help="The ledger: a file or a URL.", metavar="URL")
]
FoundLedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        help="The ledger: a file or a URL.",
        metavar="URL",
        show_default="greentrain.db, or else the newest in greentrain_logs/",
    ),
]
ZoneOption = Annotated[
    str | None,
    typer.Option(help="Zone of the electricity grid, such as 'DE', to report emissions."),
]
ConfigArgument = Annotated[
    Path, typer.Argument(help="The YAML file; 'init' writes one.", metavar="CONFIG.yaml")
]
FORWARD_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}
"""Settings of a command that hands unknown options to its configuration."""


def open_console(*, quiet: bool = False) -> Console:
    """Return the terminal, or a wide page if the output is piped.

    Args:
        quiet: Whether nothing is shown, as another process shows the same.
    """
    from rich.console import Console

    console = Console(quiet=quiet)
    return console if console.is_terminal else Console(width=_WIDTH_WHEN_PIPED, quiet=quiet)


def print_line(line: object, terminal: Console | None = None, *, err: bool = False) -> None:
    """Print one line of plain text: nothing in it is markup, moves the cursor or is a secret.

    Args:
        line: The line, or what has it as its text.
        terminal: The console; required while it shows a status, which would be overwritten.
        err: Whether to print it to standard error.
    """
    if terminal is None:
        typer.echo(one_line(line), err=err)
    else:
        terminal.print(one_line(line), soft_wrap=True, markup=False, highlight=False)


def print_next(*words: object, err: bool = False) -> None:
    """Print the command that usually comes next.

    Args:
        *words: The words after ``greentrain``; each is quoted for the shell if necessary.
        err: Whether to print it to standard error.
    """
    print_line(f"Next: greentrain {shlex.join(masked(str(word)) for word in words)}", err=err)


def found_ledgers(given: Sequence[str] | None) -> Sequence[str]:
    """Return the given ledgers, or else those of the current folder, which are named then.

    Raises:
        ConfigurationError: If none are given, and the folder has none.
    """
    from greentrain.ledger import default_ledgers

    if given:
        return given
    found = default_ledgers(Path())
    print_line(f"reading {found}", err=True)
    return [found]


def print_json(value: Any) -> None:
    """Print a value as indented JSON in ASCII, safe for every terminal."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True))


def new_table(title: str, *columns: str, right: Sequence[str] = (), lines: bool = False) -> Table:
    """Return an empty table.

    Args:
        title: The title.
        *columns: Names of the columns.
        right: Columns that are aligned to the right.
        lines: Whether rows are separated by lines.
    """
    from rich.table import Table

    table = Table(title=plain_text(one_line(title)), show_lines=lines)
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=name in _WHOLE,
        )
    return table


def add_row(table: Table, *cells: str, end_section: bool = False) -> None:
    """Add a row of plain text: nothing in it is markup or moves the cursor."""
    table.add_row(*(plain_text(cell) for cell in cells), end_section=end_section)


def plain_text(text: str) -> Text:
    """Return a text for a table, whose line breaks stay: nothing in it is markup or a control."""
    from rich.text import Text

    return Text(visible(masked(text), keep="\n"))


def split_list(text: str) -> list[str]:
    """Split a text at its commas, except those in parentheses.

    Raises:
        ConfigurationError: If a part is empty.

    Example:
        >>> split_list("priced, mine:Policy(a=1,b=2)")
        ['priced', 'mine:Policy(a=1,b=2)']
    """
    found = [each.strip() for each in re.split(r",(?![^(]*\))", text)]
    if not all(found):
        raise ConfigurationError(f"cannot read {text!r}; write names with commas between")
    return found


def use_current_folder() -> None:
    """Make modules of the current folder importable, as ``python script.py`` does."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
