"""Read ledgers for a report, each as it stood at one moment, and several as if they were one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from shlex import quote
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger import ExportedHeads, Ledger, take_snapshot, verify_snapshot, with_recovered
from greentrain.report.row_helpers import Row, Rows, readable
from greentrain.report.times import with_times

KINDS = (
    "run",
    "closing",
    "source",
    "window",
    "heartbeat",
    "calibration",
    "budget",
    "reservation",
    "settlement",
    "decision",
    "outcome",
)
"""The kinds of rows that a report is made of."""
_Part = tuple[dict[str, Rows], dict[str, Any], dict[str, Any]]
Heads = Mapping[str, Mapping[str, Any]]


def read(
    ledgers: Sequence[Ledger],
    *,
    names: Sequence[str] | None = None,
    as_of: Sequence[Heads] | None = None,
) -> tuple[dict[str, Rows], dict[str, Any], dict[str, Any]]:
    """Read ledgers.

    Args:
        ledgers: The ledgers, each of which is read in one transaction.
        names: What to call them; by default the names of their files.
        as_of: The heads of each: what was appended later is left out.

    Returns:
        The rows by kind, windows with ``joules``, ``recovered`` and their ``times``; the head of
        each chain by its name, of several ledgers with that of the ledger before it; and what
        verifying them found.

    Raises:
        ConfigurationError: If there is none, or one run is in two of them.
        LedgerError: If one cannot be read.
    """
    if not ledgers:
        raise ConfigurationError("a report is made of one ledger or more, and none was given")
    names = names_of(ledgers) if names is None else names
    parts = [
        _read(ledger, None if as_of is None else as_of[place])
        for place, ledger in enumerate(ledgers)
    ]
    for (_, _, found), name in zip(parts, names, strict=True):
        found["ledgers"][0]["name"] = name
    quoted = [quote(name) for name in names]
    commands = {
        "command": f"greentrain verify {' '.join(quoted)}",
        "report_command": f"greentrain verify report.json --ledger {' --ledger '.join(quoted)}",
    }
    if len(parts) == 1:
        rows, heads, found = parts[0]
        return rows, heads, {**found, **commands}
    merged = _merged([rows for rows, _, _ in parts], names)
    several = {
        f"{name} {chain}": head
        for name, (_, heads, _) in zip(names, parts, strict=True)
        for chain, head in heads.items()
    }
    verification = {
        "ok": all(found["ok"] for _, _, found in parts),
        "rows": sum(found["rows"] for _, _, found in parts),
        **{
            key: [
                f"{name}: {sentence}"
                for name, (_, _, found) in zip(names, parts, strict=True)
                for sentence in found[key]
            ]
            for key in ("failures", "notes")
        },
        "ledgers": [found["ledgers"][0] for _, _, found in parts],
        **commands,
    }
    return merged, several, verification


def _read(ledger: Ledger, as_of: Heads | None) -> _Part:
    snapshot, exported = take_snapshot(ledger.store), None
    if as_of is not None:
        snapshot = snapshot.as_of(as_of)
        exported = ExportedHeads(exported_utc="the day of the report", heads=as_of)
    found = verify_snapshot(snapshot, ledger.store, exported)
    heads = snapshot.heads()
    rows: dict[str, Rows] = {kind: snapshot.rows(kind) for kind in KINDS}
    windows = with_recovered(*(rows[kind] for kind in ("window", "heartbeat", "closing")))
    rows["window"] = with_times(readable(windows))
    return (
        rows,
        heads,
        {
            "ok": found.ok,
            "rows": found.rows,
            "failures": list(found.failures),
            "notes": list(found.notes),
            "ledgers": [{"name": "", "heads": heads}],
        },
    )


def _merged(parts: Sequence[Mapping[str, Rows]], names: Sequence[str]) -> dict[str, Rows]:
    """Put rows after one another, numbered on, so that each ledger's stay in their order."""
    owners: dict[str, str] = {}
    merged: dict[str, list[Row]] = {kind: [] for kind in KINDS}
    offset = 0
    for name, rows in zip(names, parts, strict=True):
        for run in rows["run"]:
            other = owners.setdefault(run["run_id"], name)
            if other != name:
                raise ConfigurationError(
                    f"the run {run['run_id']} is in {other!r} and in {name!r}: one is a copy of "
                    "the other, and would be counted twice"
                )
        for kind in KINDS:
            merged[kind] += [{**row, "entry_id": row["entry_id"] + offset} for row in rows[kind]]
        offset += max((row["entry_id"] for kind in KINDS for row in rows[kind]), default=0)
    return dict(merged)


def names_of(ledgers: Sequence[Ledger]) -> list[str]:
    """Name each ledger by its file alone: a report must not carry anybody's folders or servers."""
    names: list[str] = []
    for ledger in ledgers:
        database = ledger.store.url.database or ""
        on_server = ledger.store.path is None
        name = f"postgresql:///{database}" if on_server else PurePath(database).name
        same = sum(one == name or one.startswith(f"{name} (") for one in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names
