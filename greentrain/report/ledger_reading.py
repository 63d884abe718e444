"""Read ledgers for a report: each at one moment, and several as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from heapq import merge
from operator import itemgetter
from shlex import quote
from typing import Any, cast

from greentrain.errors import ConfigurationError
from greentrain.ledger import (
    ExportedHeads,
    Heads,
    Ledger,
    LedgerRows,
    Verification,
    verify_snapshot,
    with_recovered,
)
from greentrain.report.document import VerificationSummary
from greentrain.report.row_helpers import MeasuredWindow, ReportRows, readable
from greentrain.report.times import with_times

KEPT = tuple(ReportRows.__annotations__)
"""Kinds of which all rows are in memory."""
KINDS = (*KEPT, "window", "heartbeat", "reservation", "settlement", "decision", "outcome")
"""The kinds of rows that a report is built from."""
LATEST = "9999"
"""A text after all times."""


class OneLedger:
    """The rows of one ledger, with entries numbered on from the ledger before it.

    Args:
        rows: Its rows.
        offset: Number that is added to those of its entries.
    """

    def __init__(self, rows: LedgerRows, offset: int = 0) -> None:
        self.rows = rows
        self.offset = offset
        self.kept: dict[str, list[Any]] = {kind: list(self.each(kind)) for kind in KEPT}
        self._closed = {row["run_id"] for row in self.kept["closing"]}

    def each(self, kind: str, *columns: str) -> Iterator[Any]:
        """Yield the rows of a kind, in order."""
        for row in self.rows.each(kind, *columns):
            row["entry_id"] += self.offset
            yield row

    def windows(self) -> Iterator[list[MeasuredWindow]]:
        """Yield the windows of each run, in order, with those recovered of a killed run."""
        runs = dict.fromkeys(row["run_id"] for row in self.kept["run"])
        for kind in ("window", "heartbeat"):
            runs.update(dict.fromkeys(sorted(self.rows.without_run(kind) - runs.keys())))
        for run_id in runs:
            if found := self.windows_of_run(run_id):
                yield found

    def windows_of_run(self, run_id: str) -> list[MeasuredWindow]:
        """Return the windows of a run, in order, with those recovered if it was killed.

        Raises:
            LedgerError: If the start of a window cannot be read.
        """
        windows: list[Any] = self.rows.rows("window", run_id=run_id)
        if run_id in self._closed:
            recovered: list[Any] = windows
            for row in recovered:
                row["recovered"] = False
        else:
            beats = self.rows.rows("heartbeat", run_id=run_id)
            recovered = list(with_recovered(windows, beats, ()))
        for row in recovered:
            row["entry_id"] += self.offset
        return with_times(readable(recovered))


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerContents:
    """The contents of one ledger, or of several.

    Args:
        ledgers: The ledgers.
        rows: The rows of the kinds of which there are few.
    """

    ledgers: Sequence[OneLedger]
    rows: ReportRows

    def each(self, kind: str, *columns: str) -> Iterator[Any]:
        """Yield the rows of a kind, in order.

        Args:
            kind: A kind of entry.
            *columns: Columns to read; all by default.
        """
        for ledger in self.ledgers:
            yield from ledger.each(kind, *columns)

    def payments(self) -> Iterator[Any]:
        """Yield reservations and settlements, in order."""
        for ledger in self.ledgers:
            yield from merge(
                ledger.each("reservation"), ledger.each("settlement"), key=itemgetter("entry_id")
            )

    def windows(self) -> Iterator[list[MeasuredWindow]]:
        """Yield the windows of each run, with ``joules`` and ``times``."""
        for ledger in self.ledgers:
            yield from ledger.windows()

    def windows_of_run(self, run_id: str) -> list[MeasuredWindow]:
        """Return the windows of a run."""
        return [one for ledger in self.ledgers for one in ledger.windows_of_run(run_id)]

    def windows_of_reservation(self, reservation: str) -> list[MeasuredWindow]:
        """Return the windows that a reservation paid for."""
        runs = dict.fromkeys(
            row["run_id"]
            for ledger in self.ledgers
            for kind in ("window", "heartbeat")
            for row in ledger.rows.rows(kind, reservation_id=reservation)
        )
        return [
            window
            for run_id in runs
            for window in self.windows_of_run(run_id)
            if window["reservation_id"] == reservation
        ]

    def moments(self, since: str | None, until: str | None) -> Iterator[tuple[str, str, str]]:
        """Yield the first and the last time of the rows in an interval, by their chain."""
        for ledger in self.ledgers:
            found = ledger.rows.moments(KINDS, since or "", until or LATEST)
            for chain, (first, last) in found.items():
                yield chain, first, last


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedContents(LedgerContents):
    """The contents of ledgers that were verified.

    Args:
        verification: The result, and the head of each chain by its name; of several ledgers, after
            the ledger's name.
    """

    verification: VerificationSummary

    def of_ledger(self, place: int) -> VerifiedContents:
        """Return the contents of one ledger, by its number."""
        part = self.ledgers[place]
        return replace(self, ledgers=[part], rows=cast(ReportRows, part.kept))


@contextmanager
def read_unverified(ledger: Ledger) -> Iterator[LedgerContents]:
    """Read one ledger in a transaction that lasts as long as the ``with`` block.

    Raises:
        LedgerError: If it cannot be read.
    """
    with ledger.reading() as rows:
        part = OneLedger(rows)
        yield LedgerContents(ledgers=[part], rows=_merged({ledger.name: part}))


@contextmanager
def read(
    ledgers: Sequence[Ledger],
    *,
    names: Sequence[str] | None = None,
    as_of: Sequence[Heads] | None = None,
) -> Iterator[VerifiedContents]:
    """Read ledgers, each in one transaction that lasts as long as the ``with`` block.

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
    with ExitStack() as opened:
        parts: dict[str, OneLedger] = {}
        verified: dict[str, Verification] = {}
        offset = 0
        for place, (name, ledger) in enumerate(zip(names, ledgers, strict=True)):
            heads = None if as_of is None else as_of[place]
            rows = opened.enter_context(ledger.reading(heads))
            exported = None
            if heads is not None:
                exported = ExportedHeads(exported_utc="the day of the report", heads=heads)
            verified[name] = verify_snapshot(rows, ledger, exported)
            parts[name] = OneLedger(rows, offset)
            offset += rows.last_entry()
        yield VerifiedContents(
            ledgers=list(parts.values()),
            rows=_merged(parts),
            verification=_summary(verified),
        )


def names_of(ledgers: Sequence[Ledger]) -> list[str]:
    """Name each ledger by its file alone, so that a report reveals no folder and no server."""
    names: list[str] = []
    for ledger in ledgers:
        name = ledger.public_name
        same = sum(one == name or one.startswith(f"{name} (") for one in names)
        names.append(f"{name} ({same + 1})" if same else name)
    return names


def _summary(verified: Mapping[str, Verification]) -> VerificationSummary:
    quoted = [quote(name) for name in verified]
    several = len(verified) > 1
    prefixes = {name: f"{name}: " * several for name in verified}
    return {
        "ok": all(one.ok for one in verified.values()),
        "rows": sum(one.rows for one in verified.values()),
        "failures": [
            prefixes[name] + text for name in verified for text in verified[name].failures
        ],
        "notes": [prefixes[name] + text for name, one in verified.items() for text in one.notes],
        "ledgers": [{"name": name, "heads": dict(one.heads)} for name, one in verified.items()],
        "heads": {
            f"{name} {chain}" if several else chain: head
            for name, one in verified.items()
            for chain, head in one.heads.items()
        },
        "command": f"greentrain verify {' '.join(quoted)}",
        "report_command": f"greentrain verify report.json --ledger {' --ledger '.join(quoted)}",
    }


def _merged(parts: Mapping[str, OneLedger]) -> ReportRows:
    """Concatenate the rows of ledgers."""
    owners: dict[str, str] = {}
    for name, part in parts.items():
        for run in part.kept["run"]:
            other = owners.setdefault(run["run_id"], name)
            if other != name:
                raise ConfigurationError(
                    f"the run {run['run_id']} is in {other!r} and in {name!r}: one ledger is a "
                    "copy of the other, so its runs would count twice; leave one out"
                )
    kept = {kind: [row for part in parts.values() for row in part.kept[kind]] for kind in KEPT}
    return cast(ReportRows, kept)
