"""Recompute a ledger's chains and sums, and name the first thing that does not follow."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, select

from greentrain.budget import Balance, overrun
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.schema import (
    BUDGET_CHAIN,
    CONTENT,
    GENESIS,
    RUN_CHAIN,
    entries,
    row_hash,
    run_chain,
)
from greentrain.units import format_energy

_TOLERANCE = 1e-9
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was found in a ledger.

    Args:
        rows: Rows that were recomputed.
        failures: What does not follow, one sentence each; empty for an untouched ledger.
        notes: What follows and should be known: overruns, open reservations, unclosed runs.
    """

    rows: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything follows."""
        return not self.failures


def verify(ledger: Ledger) -> Verification:
    """Recompute the hash chains, the money rules and the sums of a ledger.

    What lies after the last head that left the database can be cut off unnoticed: compare
    :meth:`Ledger.heads` with those in a report or in MLflow.
    """
    with ledger.store.write() as connection:
        spine = _dicts(connection, select(entries).order_by(entries.c.id))
        content = {
            kind: {row["entry_id"]: row for row in _dicts(connection, select(table))}
            for kind, table in CONTENT.items()
        }
        failures = [*_chains(spine, content), *_orphans(connection)]
    rows = {kind: [table[key] for key in sorted(table)] for kind, table in content.items()}
    failures += [*_money(spine, content), *_sums(rows)]
    return Verification(rows=len(spine), failures=tuple(failures), notes=tuple(_notes(rows)))


def _dicts(connection: Connection, query: Select[Any]) -> list[dict[str, Any]]:
    return [{str(key): row[key] for key in row} for row in connection.execute(query).mappings()]


def _chains(spine: Rows, content: Mapping[str, Mapping[int, dict[str, Any]]]) -> Iterator[str]:
    heads: dict[str, tuple[int, str]] = {}
    openings: dict[str, str] = {}
    for entry in spine:
        name = f"row {entry['seq']} of {entry['chain']} ({entry['kind']})"
        held = content.get(entry["kind"], {}).get(entry["id"])
        if held is None:
            yield f"{name}: its content was removed"
            continue
        first = openings.get(entry["chain"], GENESIS)
        if first == GENESIS and entry["chain"] not in (RUN_CHAIN, BUDGET_CHAIN):
            yield f"{name}: the run's opening row was removed"
        seq, head = heads.get(entry["chain"], (-1, first))
        if entry["seq"] != seq + 1:
            yield f"{name}: follows row {seq}, so rows were removed or reordered"
        elif entry["prev_hash"] != head:
            yield f"{name}: does not follow from the row before it, which was altered or replaced"
        if row_hash(entry, held) != entry["hash"]:
            yield f"{name}: was altered"
        heads[entry["chain"]] = (entry["seq"], entry["hash"])
        if entry["kind"] == "run":
            openings[run_chain(held["run_id"])] = entry["hash"]


def _orphans(connection: Connection) -> Iterator[str]:
    for kind, table in CONTENT.items():
        query = (
            select(func.count())
            .select_from(table)
            .outerjoin(entries, (entries.c.id == table.c.entry_id) & (entries.c.kind == kind))
            .where(entries.c.id.is_(None))
        )
        count = connection.execute(query).scalar_one()
        if count:
            yield f"{count} row(s) of {table.name} were inserted without an entry"


def _money(spine: Rows, content: Mapping[str, Mapping[int, dict[str, Any]]]) -> Iterator[str]:
    totals: dict[str, float] = {}
    open_j: dict[str, dict[str, float]] = defaultdict(dict)
    spent_j: dict[str, float] = defaultdict(float)
    for entry in spine:
        held = content.get(entry["kind"], {}).get(entry["id"])
        if held is None:
            continue
        if entry["kind"] == "budget":
            totals[held["budget_id"]] = held["energy_j"]
        elif entry["kind"] == "reservation":
            open_j[held["budget_id"]][held["reservation_id"]] = held["amount_j"]
        elif entry["kind"] == "settlement":
            reserved = open_j[held["budget_id"]].pop(held["reservation_id"], None)
            if reserved is None:
                yield f"the settlement of {held['reservation_id']} has no open reservation"
                continue
            if not math.isclose(overrun(reserved, held["actual_j"]), held["overrun_j"]):
                yield f"the overrun of {held['reservation_id']} is not what it should be"
            spent_j[held["budget_id"]] += min(reserved, held["actual_j"])
        else:
            continue
        budget_id = held["budget_id"]
        balance = Balance(
            total_j=totals.get(budget_id, 0.0),
            spent_j=spent_j[budget_id],
            reserved_j=math.fsum(open_j[budget_id].values()),
        )
        if not balance.within:
            yield (
                f"after row {entry['seq']} of {entry['chain']} the budget {budget_id} has "
                f"{format_energy(balance.spent_j + balance.reserved_j)} spent and reserved of "
                f"{format_energy(balance.total_j)}"
            )


def _sums(rows: Mapping[str, Rows]) -> Iterator[str]:
    windows: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for window in rows["window"]:
        windows[window["reservation_id"]].append(window)
    for settlement in rows["settlement"]:
        of_it = windows[settlement["reservation_id"]]
        if not of_it or not all(window["complete"] for window in of_it):
            continue  # as given, or at its reservation because not everything could be measured
        total_j = math.fsum(window["energy_j"] for window in of_it)
        if not math.isclose(total_j, settlement["actual_j"], rel_tol=_TOLERANCE, abs_tol=1e-9):
            yield (
                f"the settlement of {settlement['reservation_id']} is {settlement['actual_j']:g} J "
                f"and its windows sum to {total_j:g} J"
            )


def _notes(rows: Mapping[str, Rows]) -> Iterator[str]:
    settled = {row["reservation_id"] for row in rows["settlement"]}
    measured = {row["reservation_id"] for row in rows["window"]}
    for row in rows["settlement"]:
        if row["reservation_id"] not in measured:
            yield (
                f"given: {row['reservation_id']} was settled at {format_energy(row['actual_j'])} "
                "and has no windows that show it"
            )
        if row["overrun_j"] > 0:
            yield (
                f"overrun: {row['reservation_id']} drew {format_energy(row['overrun_j'])} more "
                "than was reserved"
            )
    for row in rows["reservation"]:
        if row["reservation_id"] not in settled:
            yield (
                f"open: {format_energy(row['amount_j'])} reserved for {row['purpose']} were never "
                "settled and count as spent"
            )
    closed = {row["run_id"] for row in rows["closing"]}
    for row in rows["run"]:
        if row["run_id"] not in closed:
            yield f"unclosed: run {row['run_id']} ({row['name']}) has no closing row"
