"""``greentrain ledger``: look at ledgers, and release what a run that died had reserved."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from greentrain.ledger import Ledger

app = typer.Typer(help="Look at ledgers, and release reservations.", no_args_is_help=True)

Ledgers = Annotated[
    list[str] | None,
    typer.Argument(
        help="The ledgers: files, patterns such as 'runs/*.db', URLs.",
        metavar="[LEDGER]...",
        show_default="greentrain.db",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]
Row = dict[str, Any]
_WHOLE = ("id", "run id")
"""Columns that are to be copied, and so stay on one line."""


@app.command()
def show(ledgers: Ledgers = None, as_json: Json = False) -> None:
    """Show what ledgers hold, and which reservations are open."""
    _print(ledgers, as_json, _contents, _show_contents)


@app.command()
def budgets(ledgers: Ledgers = None, as_json: Json = False) -> None:
    """Show where budgets stand now; those that are renewed, in this period."""
    _print(ledgers, as_json, _budgets, _show_budgets)


@app.command()
def runs(ledgers: Ledgers = None, as_json: Json = False) -> None:
    """Show the runs, what was measured of each, and whether it was closed."""
    _print(ledgers, as_json, _runs, _show_runs)


@app.command()
def release(
    reservation: Annotated[
        str, typer.Argument(help="Its id: see 'greentrain ledger show'.", metavar="ID")
    ],
    actual: Annotated[
        str | None,
        typer.Option(
            help="What was drawn, such as '20 Wh', or '500 gCO2e' from a budget of carbon.",
            show_default="what windows and heartbeats say",
        ),
    ] = None,
    ledger: Annotated[
        str, typer.Option("--ledger", help="The ledger: a file or a URL.", metavar="URL")
    ] = "greentrain.db",
    as_json: Json = False,
) -> None:
    """Settle the reservation of a run that died: until then it counts as spent."""
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
        _echo_json(
            {
                "reservation_id": found.reservation_id,
                "how": found.how,
                **_in_unit({"amount": found.amount, "actual": found.actual}, found.unit),
            }
        )
    else:
        typer.echo(str(found))


def _print(
    patterns: list[str] | None,
    as_json: bool,
    read: Callable[[Ledger], list[Row]],
    tables: Callable[[Sequence[Row]], list[Table]],
) -> None:
    from greentrain.ledger import close_ledgers, open_ledgers

    opened = open_ledgers(patterns or ["greentrain.db"])
    try:
        rows = [{"ledger": one.store.name, **row} for one in opened for row in read(one)]
    finally:
        close_ledgers(opened)
    if as_json:
        _echo_json(rows)
        return
    from greentrain.cli.rich_tables import open_console

    for table in tables(rows):
        open_console().print(table)


def _contents(ledger: Ledger) -> list[Row]:
    from greentrain.ledger.schema import CONTENT

    rows = {kind: ledger.rows(kind) for kind in CONTENT}
    settled = {row["reservation_id"] for row in rows["settlement"]}
    names = {row["run_id"]: row["name"] for row in rows["run"]}
    times = [row["recorded_utc"] for of_it in rows.values() for row in of_it]
    return [
        {
            "rows": {kind: len(of_it) for kind, of_it in rows.items()},
            "first_utc": min(times, default=None),
            "last_utc": max(times, default=None),
            "open_reservations": [
                {
                    "reservation_id": row["reservation_id"],
                    "run": names.get(row["run_id"]),
                    "purpose": row["purpose"],
                    "amount_j": row["amount_j"],
                    "amount_g": row["amount_g"],
                    "recorded_utc": row["recorded_utc"],
                }
                for row in rows["reservation"]
                if row["reservation_id"] not in settled
            ],
        }
    ]


def _show_contents(rows: Sequence[Row]) -> list[Table]:
    from greentrain.units import format_carbon, format_energy

    held = _table("Ledgers", "ledger", "holds", "from", "to")
    still_open = _table("Open reservations", "id", "amount", "run", "purpose", "since")
    for row in rows:
        counts = [f"{kind} {count}" for kind, count in row["rows"].items() if count]
        moments = [_moment(row["first_utc"]), _moment(row["last_utc"])]
        _add(held, row["ledger"], ", ".join(counts) or "nothing", *moments)
        for one in row["open_reservations"]:
            of_energy = one["amount_g"] is None
            _add(
                still_open,
                one["reservation_id"],
                format_energy(one["amount_j"]) if of_energy else format_carbon(one["amount_g"]),
                one["run"] or "unknown",
                one["purpose"],
                _moment(one["recorded_utc"]),
            )
    return [held, still_open] if still_open.row_count else [held]


def _budgets(ledger: Ledger) -> list[Row]:
    found: list[Row] = []
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
        found.append(
            {
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
        )
    return found


def _show_budgets(rows: Sequence[Row]) -> list[Table]:
    from greentrain.budget import format_amount

    shown = ("total", "spent", "reserved", "promised", "left", "overrun")
    table = _table("Budgets", "ledger", "budget", "given as", *shown, right=shown)
    for row in rows:
        key = "g" if row["unit"] == "g" else "j"
        above = "" if row["parent"] is None else f"\nout of {row['parent']}"
        amounts = [format_amount(row[f"{name}_{key}"], row["unit"]) for name in shown]
        _add(table, row["ledger"], row["name"] + above, row["given_as"], *amounts)
    return [table]


def _runs(ledger: Ledger) -> list[Row]:
    closed = {row["run_id"]: row for row in ledger.rows("closing")}
    drawn: dict[str, list[Mapping[str, Any]]] = {}
    for window in ledger.windows():
        drawn.setdefault(window["run_id"], []).append(window)
    found: list[Row] = []
    for row in ledger.rows("run"):
        of_it, closing = drawn.get(row["run_id"], []), closed.get(row["run_id"])
        found.append(
            {
                "run_id": row["run_id"],
                "kind": row["kind"],
                "name": row["name"],
                "status": "unclosed" if closing is None else closing["status"],
                "opened_utc": row["recorded_utc"],
                "closed_utc": None if closing is None else closing["recorded_utc"],
                "windows": len(of_it),
                "energy_j": _sum(one["energy_j"] for one in of_it),
                "complete": bool(of_it) and all(one["complete"] for one in of_it),
                "emissions_g": _sum(one["emissions_g"] for one in of_it),
                "phases": dict(sorted(Counter(one["phase"] for one in of_it).items())),
            }
        )
    return found


def _show_runs(rows: Sequence[Row]) -> list[Table]:
    from greentrain.units import format_carbon, format_energy

    columns = ("ledger", "run id", "name", "opened", "status", "windows", "energy", "emissions")
    table = _table("Runs", *columns, right=("windows", "energy", "emissions"))
    for row in rows:
        least = "" if row["complete"] or row["energy_j"] is None else "at least "
        _add(
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


def _table(title: str, *columns: str, right: Sequence[str] = ()) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for name in columns:
        table.add_column(
            name,
            justify="right" if name in right else "left",
            overflow="fold",
            no_wrap=name in _WHOLE,
        )
    return table


def _add(table: Table, *cells: str) -> None:
    """Add a row of texts: nothing that a ledger holds is markup, or moves the cursor."""
    from rich.text import Text

    table.add_row(*(Text(_plain(cell)) for cell in cells))


def _plain(text: str) -> str:
    return "".join(
        char if char.isprintable() or char == "\n" else f"\\x{ord(char):02x}" for char in text
    )


def _moment(recorded_utc: str | None) -> str:
    return "never" if recorded_utc is None else recorded_utc[:19].replace("T", " ")


def _in_unit(amounts: Mapping[str, float], unit: str) -> dict[str, float | None]:
    """Write each amount with its unit in the name; in the other unit it is unknown."""
    return {
        f"{name}_{key}": amount if key == unit.lower() else None
        for name, amount in amounts.items()
        for key in ("j", "g")
    }


def _sum(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _echo_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=True))
