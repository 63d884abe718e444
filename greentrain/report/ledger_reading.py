"""Read ledgers for a report: each at one moment, and several as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any, cast

from greentrain.errors import ConfigurationError
from greentrain.ledger import (
    ExportedHeads,
    Heads,
    Ledger,
    Snapshot,
    verify_snapshot,
    with_recovered,
)
from greentrain.report.document import VerificationSummary
from greentrain.report.row_helpers import ReportRows, readable
from greentrain.report.times import with_times

KINDS = tuple(ReportRows.__annotations__)
"""The kinds of rows that a report is built from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerContents:
    """The contents of one ledger, or of several.

    Args:
        rows: The rows by kind; windows include recovered ones and have ``joules`` and ``times``.
        verification: The result of verifying the ledgers, and the head of each chain by its name;
            of several ledgers, after the ledger's name.
    """

    rows: ReportRows
    verification: VerificationSummary


def read(
    ledgers: Sequence[Ledger],
    *,
    names: Sequence[str] | None = None,
    as_of: Sequence[Heads] | None = None,
) -> LedgerContents:
    """Read ledgers, each in one transaction.

    Args:
        ledgers: The ledgers.
        names: Their names; by default the names of their files.
        as_of: The heads of each: rows that were appended later are left out.

    Raises:
        ConfigurationError: If there is no ledger, or one run is in two of them.
        LedgerError: If one cannot be read.
    """
    if not ledgers:
        raise ConfigurationError("a report needs at least one ledger, and none was given")
    names = names_of(ledgers) if names is None else names
    parts = [
        _read(ledger, name, None if as_of is None else as_of[place])
        for place, (name, ledger) in enumerate(zip(names, ledgers, strict=True))
    ]
    found = [part.verification for part in parts]
    quoted = [quote(name) for name in names]
    several = len(parts) > 1
    named = [(f"{name}: ", one) for name, one in zip(names, found, strict=True)]
    verification: VerificationSummary = {
        "ok": all(one["ok"] for one in found),
        "rows": sum(one["rows"] for one in found),
        "failures": [prefix * several + text for prefix, one in named for text in one["failures"]],
        "notes": [prefix * several + text for prefix, one in named for text in one["notes"]],
        "ledgers": [ledger for one in found for ledger in one["ledgers"]],
        "heads": {
            f"{name} {chain}" if several else chain: head
            for name, one in zip(names, found, strict=True)
            for chain, head in one["heads"].items()
        },
        "command": f"greentrain verify {' '.join(quoted)}",
        "report_command": f"greentrain verify report.json --ledger {' --ledger '.join(quoted)}",
    }
    by_name = {name: part.rows for name, part in zip(names, parts, strict=True)}
    return LedgerContents(
        rows=_merged(by_name) if several else parts[0].rows, verification=verification
    )


def rows_of(snapshot: Snapshot) -> ReportRows:
    """Return the rows of one ledger, with the recovered windows of killed runs.

    Raises:
        LedgerError: If the start of a window cannot be read.
    """
    rows = snapshot.by_kind()
    windows = with_recovered(rows["window"], rows["heartbeat"], rows["closing"])
    report_rows: Any = {kind: held for kind, held in rows.items() if kind in KINDS}
    return cast(ReportRows, {**report_rows, "window": with_times(readable(windows))})


def names_of(ledgers: Sequence[Ledger]) -> list[str]:
    """Name each ledger by its file alone, so that a report reveals no folder and no server."""
    names: list[str] = []
    for ledger in ledgers:
        name = ledger.public_name
        same = sum(one == name or one.startswith(f"{name} (") for one in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def _read(ledger: Ledger, name: str, as_of: Heads | None) -> LedgerContents:
    snapshot, exported = ledger.snapshot(), None
    if as_of is not None:
        snapshot = snapshot.as_of(as_of)
        exported = ExportedHeads(exported_utc="the day of the report", heads=as_of)
    found = verify_snapshot(snapshot, ledger, exported)
    heads = snapshot.heads()
    return LedgerContents(
        rows=rows_of(snapshot),
        verification={
            "ok": found.ok,
            "rows": found.rows,
            "failures": list(found.failures),
            "notes": list(found.notes),
            "ledgers": [{"name": name, "heads": heads}],
            "heads": heads,
            "command": "",
            "report_command": "",
        },
    )


def _merged(parts: Mapping[str, ReportRows]) -> ReportRows:
    """Concatenate the rows of ledgers, with entries numbered on from ledger to ledger."""
    owners: dict[str, str] = {}
    merged: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    offset = 0
    for name, rows in parts.items():
        for run in rows["run"]:
            other = owners.setdefault(run["run_id"], name)
            if other != name:
                raise ConfigurationError(
                    f"the run {run['run_id']} is in {other!r} and in {name!r}: one ledger is a "
                    "copy of the other, so its runs would count twice; leave one out"
                )
        by_kind = cast(Mapping[str, Sequence[Any]], rows)
        for kind, held in by_kind.items():
            merged[kind] += [{**row, "entry_id": row["entry_id"] + offset} for row in held]
        offset += max((row["entry_id"] for held in by_kind.values() for row in held), default=0)
    return cast(ReportRows, merged)
