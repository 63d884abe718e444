"""Read ledgers for a report: each at one moment, and several as one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from heapq import merge
from operator import itemgetter
from shlex import quote
from typing import Any, cast

from greentrain.errors import ConfigurationError
from greentrain.ledger import (
    Heads,
    Ledger,
    LedgerAtMoment,
    LedgerRows,
    RunRow,
    Verification,
    verified_meanwhile,
    with_recovered,
)
from greentrain.ledger.few_collections import few_collections
from greentrain.report.document import VerificationSummary
from greentrain.report.restatement import Restatement
from greentrain.report.row_helpers import MeasuredWindow, ReportRows, readable
from greentrain.report.times import with_times

KEPT = tuple(ReportRows.__annotations__)
"""Kinds of which all rows are in memory."""
KINDS = (*KEPT, "window", "heartbeat", "reservation", "settlement", "decision", "outcome")
"""The kinds of rows that a report is built from."""
MOST_ASKED = 500
"""Runs whose rows are asked for by name; of more runs, all rows are read."""
LATEST = "9999"
"""A text after all times."""


class OneLedger:
    """The rows of one ledger, with entries numbered on from the ledger before it.

    Args:
        rows: Its rows.
        offset: Number that is added to those of its entries.
        restatement: Other emission factors; ``None`` for those of the runs.
    """

    def __init__(
        self, rows: LedgerRows, offset: int = 0, restatement: Restatement | None = None
    ) -> None:
        self.rows = rows
        self.offset = offset
        self.restatement = restatement
        self.kept: dict[str, list[Any]] = {kind: list(self.each(kind)) for kind in KEPT}
        self.recorded_runs: list[RunRow] = self.kept["run"]
        if restatement is not None:
            self.kept["run"] = [restatement.run(row) for row in self.kept["run"]]
        self._closed = {row["run_id"] for row in self.kept["closing"]}
        self._moments: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}

    def each(self, kind: str, *columns: str) -> Iterator[Any]:
        """Yield the rows of a kind, in order."""
        for row in self.rows.each(kind, *columns):
            row["entry_id"] += self.offset
            yield row

    def moments(self, since: str, until: str) -> dict[str, tuple[str, str]]:
        """Return the first and the last time of the rows in an interval, by their chain."""
        asked = since, until
        if asked not in self._moments:
            self._moments[asked] = self.rows.moments(KINDS, since, until)
        return self._moments[asked]

    def each_of_runs(self, kind: str, runs: Collection[str] | None, *columns: str) -> Iterator[Any]:
        """Yield the rows of a kind of some runs, in order; of all runs if ``None``."""
        if runs is None or len(runs) > MOST_ASKED:
            for row in self.each(kind, *columns):
                if runs is None or row["run_id"] in runs:
                    yield row
            return
        for row in self.rows.each(kind, *columns, run_id=[*runs]):
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

    def each_of_runs(self, kind: str, runs: Collection[str] | None, *columns: str) -> Iterator[Any]:
        """Yield the rows of a kind of some runs, in order.

        Args:
            kind: A kind of entry.
            runs: Ids of the runs; ``None`` for all.
            *columns: Columns to read, ``run_id`` among them; all by default.
        """
        for ledger in self.ledgers:
            yield from ledger.each_of_runs(kind, runs, *columns)

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

    @property
    def restatement(self) -> Restatement | None:
        """The other emission factors of a restated report."""
        return self.ledgers[0].restatement if self.ledgers else None

    def restated(self, windows: list[MeasuredWindow]) -> list[MeasuredWindow]:
        """Return windows of one run with the grams of a restated report; all else stays."""
        if self.restatement is not None:
            self.restatement.restate(windows)
        return windows

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
            found = ledger.moments(since or "", until or LATEST)
            for chain, (first, last) in found.items():
                yield chain, first, last


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedContents(LedgerContents):
    """The contents of ledgers that were verified.

    Args:
        names: Names of the ledgers.
        verified: Waits for the result of verifying them, which a second process may compute.
    """

    names: Sequence[str]
    verified: Callable[[], VerificationSummary]

    @property
    def verification(self) -> VerificationSummary:
        """The result, and the head of each chain by its name.

        Of several ledgers, a chain's name follows that of its ledger.
        """
        return self.verified()

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
    restatement: Restatement | None = None,
) -> Iterator[VerifiedContents]:
    """Read ledgers, each in one transaction that lasts as long as the ``with`` block.

    Args:
        ledgers: The ledgers.
        names: Their names; by default the names of their files.
        as_of: The heads of each: rows that were appended later are left out.
        restatement: Emission factors in place of those of the runs.

    Raises:
        ConfigurationError: If there is no ledger, or one run is in two of them.
        LedgerError: If one cannot be read.
    """
    if not ledgers:
        raise ConfigurationError("a report needs at least one ledger, and none was given")
    names = names_of(ledgers) if names is None else names
    with ExitStack() as opened:
        opened.enter_context(few_collections())
        moments = [None] * len(ledgers) if as_of is None else as_of
        to_verify = [
            LedgerAtMoment(opened.enter_context(ledger.reading(heads)), ledger, heads)
            for ledger, heads in zip(ledgers, moments, strict=True)
        ]
        results = opened.enter_context(verified_meanwhile(to_verify))
        parts: dict[str, OneLedger] = {}
        offset = 0
        for name, one in zip(names, to_verify, strict=True):
            parts[name] = OneLedger(one.rows, offset, restatement)
            offset += one.rows.last_entry()
        yield VerifiedContents(
            ledgers=list(parts.values()),
            rows=_merged(parts),
            names=names,
            verified=cache(lambda: _summary(dict(zip(names, results(), strict=True)))),
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
