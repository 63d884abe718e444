"""The ``greentrain priors`` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from greentrain.cli import console
from greentrain.errors import ConfigurationError
from greentrain.units import plural

app = typer.Typer(help="Priors of the gain of an update.", no_args_is_help=True)


@app.callback()
def _priors() -> None:
    """Keep ``fit`` a sub-command."""


@app.command()
def fit(
    ledgers: Annotated[
        list[str],
        typer.Argument(help="Ledgers of your past streams, or patterns.", metavar="LEDGER..."),
    ],
    out: Annotated[Path, typer.Option(help="File to write.", metavar="FILE")] = Path("priors.json"),
) -> None:
    """Fit priors of the gain to the gains that past streams measured.

    Each stream is also predicted from the priors of all others, and from the default ones. So the
    table shows whether the new priors are better for a stream that they were not fitted to.
    """
    from greentrain.control.priors import GainPriors, fit_priors, prediction_error
    from greentrain.decisions.past_gains import read_gains
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report.exports.facts import json_text, replace_file

    opened = open_ledgers(ledgers)
    try:
        streams = read_gains(opened)
    finally:
        close_ledgers(opened)
    if not streams:
        raise ConfigurationError(
            "the ledgers have no measured gain, so there is nothing to fit; an update of a stream "
            "measures one from ledger revision 0004 on"
        )
    fitted = fit_priors([gains for _, gains in streams])
    try:
        replace_file(out, json_text(fitted.as_dict()))
    except OSError as error:
        raise ConfigurationError(f"cannot write {str(out)!r}: {error.strerror}") from None
    table = console.new_table(
        "Mean error of the predicted gains",
        "stream",
        "gains",
        "default priors",
        "others' priors",
        right=("gains", "default priors", "others' priors"),
    )
    errors = []
    for number, (name, gains) in enumerate(streams):
        others = [each for other, (_, each) in enumerate(streams) if other != number]
        first = prediction_error(GainPriors(), gains)
        second = prediction_error(fit_priors(others), gains) if others else None
        errors.append((first, second))
        count = str(sum(map(len, gains.values())))
        console.add_row(table, name, count, _error(first), _error(second))
    console.open_console().print(table)
    if len(streams) == 1:
        console.print_line("With one stream alone, priors cannot be compared on another.")
    else:
        better = sum(second < first for first, second in errors if first and second is not None)
        console.print_line(
            f"The priors of the others predict {better} of {plural(len(errors), 'stream')} better "
            "than the default ones."
        )
    console.print_line(f"wrote {out}; use it with priors: {out}")


def _error(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
