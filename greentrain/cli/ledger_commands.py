"""The ``greentrain ledger`` commands: show ledgers, and release reservations of dead runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from greentrain.cli import console, watching
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    from rich.table import Table

    from greentrain.ledger import Ledger
    from greentrain.ledger.rows import RecoveredWindowRow

app = typer.Typer(help="Show ledgers, and release reservations.", no_args_is_help=True)

LedgersArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Ledgers: files, patterns such as 'runs/*.db', URLs.",
        metavar="[LEDGER]...",
        show_default="greentrain.db",
    ),
]
Row = dict[str, Any]


@app.command()
def show(ledgers: LedgersArgument = None, as_json: console.JsonOption = False) -> None:
    """Show the contents of ledgers, and their open reservations."""
    rows = _print(ledgers, as_json, _contents, _contents_tables)
    still_open = [(row["ledger"], one) for row in rows for one in row["open_reservations"]]
    if still_open and not as_json:
        name, reservation = still_open[0]
        console.print_next("ledger", "release", reservation["reservation_id"], "--ledger", name)


@app.command()
def budgets(
    ledgers: LedgersArgument = None,
    as_json: console.JsonOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Show them again and again, until Ctrl-C.")
    ] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two frames of --watch.")] = 2.0,
) -> None:
    """Show the status of budgets; for renewed budgets, in the current period."""
    watching.check_interval(interval)
    if watch and as_json:
        raise ConfigurationError("--watch shows tables, and --json prints once; give one of them")
    if watch and console.open_console().is_terminal:
        watching.watch(lambda: budgets_frame(ledgers), interval)
    else:
        _print(ledgers, as_json, _budgets, _budget_tables)


def budgets_frame(patterns: Sequence[str] | None) -> Table:
    """Return one frame of ``greentrain ledger budgets --watch``.

    Args:
        patterns: Ledgers, or patterns of their files.
    """
    return _budget_tables(_rows(patterns, _budgets))[0]


@app.command()
def runs(ledgers: LedgersArgument = None, as_json: console.JsonOption = False) -> None:
    """Show the runs, their energy and whether they were closed."""
    _print(ledgers, as_json, _runs, _run_tables)


@app.command()
def release(
    reservation: Annotated[
        str, typer.Argument(help="Its id, from 'greentrain ledger show'.", metavar="ID")
    ],
    actual: Annotated[
        str | None,
        typer.Option(
            help="Energy used, such as '20 Wh', or emissions, such as '500 gCO2e', from a budget "
            "of carbon.",
            show_default="the windows and heartbeats",
        ),
    ] = None,
    ledger: console.LedgerOption = "greentrain.db",
    as_json: console.JsonOption = False,
) -> None:
    """Settle the reservation of a dead run, which counts as spent until then."""
    from greentrain.budget import parse_amount
    from greentrain.ledger import Ledger

    opened = Ledger(ledger, create=False)
    try:
        amount = None
        if actual is not None:
            held = opened.rows("reservation", reservation_id=reservation)
            of_carbon = bool(held) and held[0]["amount_g"] is not None
            amount = parse_amount(actual, "g" if of_carbon else "J")
        found = opened.release(reservation, amount)
    finally:
        opened.close()
    if as_json:
        amounts = _in_unit({"amount": found.amount, "actual": found.actual}, found.unit)
        console.print_json({"reservation_id": found.reservation_id, "how": found.how, **amounts})
    else:
        console.print_line(found)
        console.print_next("ledger", "budgets", ledger)


def _print(
    patterns: list[str] | None,
    as_json: bool,
    read: Callable[[Ledger], Iterator[Row]],
    tables: Callable[[Sequence[Row]], list[Table]],
) -> list[Row]:
    rows = _rows(patterns, read)
    if as_json:
        console.print_json(rows)
    else:
        for table in tables(rows):
            console.open_console().print(table)
    return rows


def _rows(patterns: Sequence[str] | None, read: Callable[[Ledger], Iterator[Row]]) -> list[Row]:
    from greentrain.ledger import close_ledgers, open_ledgers

    opened = open_ledgers(list(patterns or ["greentrain.db"]))
    try:
        return [{"ledger": one.name, **row} for one in opened for row in read(one)]
    finally:
        close_ledgers(opened)


def _contents(ledger: Ledger) -> Iterator[Row]:
    from greentrain.ledger.schema import CONTENT

    rows = {kind: ledger.rows(kind) for kind in CONTENT}
    settled = {row["reservation_id"] for row in ledger.rows("settlement")}
    names = {row["run_id"]: row["name"] for row in ledger.rows("run")}
    times = [row["recorded_utc"] for entries in rows.values() for row in entries]
    copied = ("reservation_id", "purpose", "amount_j", "amount_g", "recorded_utc")
    yield {
        "rows": {kind: len(entries) for kind, entries in rows.items()},
        "first_utc": min(times, default=None),
        "last_utc": max(times, default=None),
        "open_reservations": [
            {**{name: row[name] for name in copied}, "run": names.get(row["run_id"])}
            for row in rows["reservation"]
            if row["reservation_id"] not in settled
        ],
    }


def _contents_tables(rows: Sequence[Row]) -> list[Table]:
    from greentrain.units import format_carbon, format_energy

    held = console.new_table("Ledgers", "ledger", "rows", "from", "to")
    still_open = console.new_table("Open reservations", "id", "amount", "run", "purpose", "since")
    for row in rows:
        counts = [f"{kind} {count}" for kind, count in row["rows"].items() if count]
        moments = [_moment(row["first_utc"]), _moment(row["last_utc"])]
        console.add_row(held, row["ledger"], ", ".join(counts) or "nothing", *moments)
        for one in row["open_reservations"]:
            of_energy = one["amount_g"] is None
            console.add_row(
                still_open,
                one["reservation_id"],
                format_energy(one["amount_j"]) if of_energy else format_carbon(one["amount_g"]),
                one["run"] or "unknown",
                one["purpose"],
                _moment(one["recorded_utc"]),
            )
    return [held, still_open] if still_open.row_count else [held]


def _budgets(ledger: Ledger) -> Iterator[Row]:
    for row in ledger.rows("budget"):
        terms = ledger.terms(row["budget_id"])
        status = ledger.status(row["budget_id"])
        amounts = {
            "total": status.total,
            "spent": status.spent,
            "reserved": status.taken.reserved,
            "promised": status.promised,
            "left": status.left,
            "overrun": status.taken.overrun + status.overdrawn,
        }
        yield {
            "budget_id": row["budget_id"],
            "name": row["name"],
            "given_as": row["given_as"],
            "parent": terms.budget.parent,
            "unit": status.unit,
            "per": terms.budget.per,
            "carry_over": terms.budget.carry_over,
            "until_utc": row["until_utc"],
            "opened_utc": row["recorded_utc"],
            **_in_unit(amounts, status.unit),
            "open_reservations": status.taken.open,
            "over": status.over,
            "within": status.within,
        }


def _budget_tables(rows: Sequence[Row]) -> list[Table]:
    from greentrain.budget import format_amount

    shown = ("total", "spent", "reserved", "promised", "left", "overrun")
    table = console.new_table("Budgets", "ledger", "budget", "given as", *shown, right=shown)
    for row in rows:
        key = "g" if row["unit"] == "g" else "j"
        above = "" if row["parent"] is None else f"\nout of {row['parent']}"
        amounts = [format_amount(row[f"{name}_{key}"], row["unit"]) for name in shown]
        console.add_row(table, row["ledger"], row["name"] + above, row["given_as"], *amounts)
    return [table]


def _runs(ledger: Ledger) -> Iterator[Row]:
    closed = {row["run_id"]: row for row in ledger.rows("closing")}
    windows: dict[str, list[RecoveredWindowRow]] = {}
    for window in ledger.windows():
        windows.setdefault(window["run_id"], []).append(window)
    for row in ledger.rows("run"):
        measured, closing = windows.get(row["run_id"], []), closed.get(row["run_id"])
        yield {
            "run_id": row["run_id"],
            "kind": row["kind"],
            "name": row["name"],
            "status": "unclosed" if closing is None else closing["status"],
            "opened_utc": row["recorded_utc"],
            "closed_utc": None if closing is None else closing["recorded_utc"],
            "windows": len(measured),
            "energy_j": _sum(one["energy_j"] for one in measured),
            "complete": bool(measured) and all(one["complete"] for one in measured),
            "emissions_g": _sum(one["emissions_g"] for one in measured),
            "phases": dict(sorted(Counter(one["phase"] for one in measured).items())),
        }


def _run_tables(rows: Sequence[Row]) -> list[Table]:
    from greentrain.units import format_carbon, format_energy

    columns = ("ledger", "run id", "name", "opened", "status", "windows", "energy", "emissions")
    table = console.new_table("Runs", *columns, right=("windows", "energy", "emissions"))
    for row in rows:
        least = "" if row["complete"] or row["energy_j"] is None else "at least "
        console.add_row(
            table,
            row["ledger"],
            row["run_id"],
            f"{row['name']} ({row['kind']})",
            _moment(row["opened_utc"]),
            row["status"],
            str(row["windows"]),
            least + format_energy(row["energy_j"]),
            format_carbon(row["emissions_g"]),
        )
    return [table]


def _moment(recorded_utc: str | None) -> str:
    return "never" if recorded_utc is None else recorded_utc[:19].replace("T", " ")


def _in_unit(amounts: Mapping[str, float], unit: str) -> dict[str, float | None]:
    """Return each amount under a name with its unit, and ``None`` for the other unit."""
    return {
        f"{name}_{key}": amount if key == unit.lower() else None
        for name, amount in amounts.items()
        for key in ("j", "g")
    }


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
