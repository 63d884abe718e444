"""Read ledgers for a report, each as it stood at one moment, and several as if they were one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from shlex import quote
from typing import Any

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, verify
from greentrain.report.rows import Row, Rows

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
_ATTEMPTS = 5


def read(ledgers: Sequence[Ledger]) -> tuple[dict[str, Rows], dict[str, Any], dict[str, Any]]:
    """Read ledgers.

    Returns:
        The rows by kind; the head of each chain by its name, of several ledgers with that of the
        ledger before it; and what verifying them found.

    Raises:
        ConfigurationError: If there is none, or one run is in two of them.
        LedgerError: If one cannot be read, or grows faster than it can be read.
    """
    if not ledgers:
        raise ConfigurationError("a report is made of one ledger or more, and none was given")
    names = _names(ledgers)
    parts = [_read(ledger) for ledger in ledgers]
    command = f"greentrain verify {' '.join(quote(name) for name in names)}"
    if len(parts) == 1:
        rows, heads, found = parts[0]
        return rows, heads, {**found, "command": command}
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
        "ledgers": [
            {"name": name, "heads": heads} for name, (_, heads, _) in zip(names, parts, strict=True)
        ],
        "command": command,
    }
    return merged, several, verification


def _read(ledger: Ledger) -> tuple[dict[str, Rows], dict[str, Any], dict[str, Any]]:
    """Read everything as it stood at one moment: what is appended meanwhile means reading again."""
    for _ in range(_ATTEMPTS):
        heads = ledger.heads()
        rows: dict[str, Rows] = {kind: ledger.rows(kind) for kind in KINDS}
        found = verify(ledger)
        if ledger.heads() == heads:
            return (
                rows,
                heads,
                {
                    "ok": found.ok,
                    "rows": found.rows,
                    "failures": list(found.failures),
                    "notes": list(found.notes),
                },
            )
    raise LedgerError(
        f"the ledger grew each of the {_ATTEMPTS} times that it was read; write the report when "
        "its runs are done"
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


def _names(ledgers: Sequence[Ledger]) -> list[str]:
    """Name each ledger by its file alone: a report must not carry anybody's folders or servers."""
    names: list[str] = []
    for ledger in ledgers:
        database = ledger.store.url.database or ""
        on_server = ledger.store.path is None
        name = f"postgresql:///{database}" if on_server else PurePath(database).name
        same = sum(one == name or one.startswith(f"{name} (") for one in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names
