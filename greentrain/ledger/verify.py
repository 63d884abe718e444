"""Recompute a ledger's chains and sums, and list everything that does not follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import earlier
from greentrain.ledger.hashing import wrong_key
from greentrain.ledger.heads import ExportedHeads
from greentrain.ledger.ledger import Ledger
from greentrain.ledger.outbox import set_aside
from greentrain.ledger.row_stream import Content, Entry, LedgerRows, OrderedRows, read_rows
from greentrain.ledger.rows import Heads
from greentrain.ledger.schema import RUN_CHAIN
from greentrain.ledger.store import UnreadableError
from greentrain.ledger.verify_chains import ChainCheck, needs_key
from greentrain.ledger.verify_hashes import SecondProcess, altered_meanwhile
from greentrain.ledger.verify_money import MoneyCheck
from greentrain.ledger.verify_notes import RunNotes

_KEYED = 3
"""First rows that show whether a ledger was created with a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of verifying a ledger.

    Args:
        rows: Number of rows that were recomputed.
        failures: Sentences about what does not follow; empty for an unaltered ledger.
        notes: Sentences about what follows and may matter: overruns, open reservations, unclosed
            runs, the energy recovered from their heartbeats, and clocks that were set back.
        uncovered: Ids of the runs without a closing row, if no exported head shows that there was
            none. The row may never have been written, or may have been cut off.
        readable: Whether the file could be read; if not, its failure says why.
        heads: The heads of all chains, as ``Ledger.heads`` returns them.
        earlier: Number of rows before the exported heads that were not recomputed.
    """

    rows: int
    failures: tuple[str, ...]
    notes: tuple[str, ...]
    uncovered: tuple[str, ...] = ()
    readable: bool = True
    heads: Heads = field(default_factory=dict, compare=False)
    earlier: int = 0

    @property
    def ok(self) -> bool:
        """``True`` if everything follows."""
        return not self.failures

    @property
    def exit_code(self) -> int:
        """Exit code of ``greentrain verify``.

        It is 0, 1 for failures, 3 for uncovered runs, or 4 for a file that is no readable ledger.
        """
        if not self.readable:
            return 4
        return 1 if self.failures else 3 if self.uncovered else 0


def verify(
    ledger: Ledger, exported: ExportedHeads | None = None, *, new_only: bool = False
) -> Verification:
    """Recompute the hash chains, the rules for budgets and the sums of a ledger.

    Rows after the last head that was exported can be cut off unnoticed. Rows are read in chunks:
    the memory grows with the number of runs and of open reservations, and not with that of rows.

    Args:
        ledger: The ledger, which is only read.
        exported: Heads that were exported earlier, and that the ledger must still contain.
        new_only: ``True`` to recompute only the rows after ``exported``. The rows before are not
            read, and their sums are taken as right. If one of the heads is missing, or a row was
            inserted before them, all rows are recomputed.

    Raises:
        ConfigurationError: If ``new_only`` is set without exported heads.
        LedgerError: If it cannot be read, or was created with a key and none is given.
    """
    if new_only and exported is None:
        raise ConfigurationError(
            "only new rows were to be verified, and no exported heads say which these are; give "
            "the file of an earlier `greentrain verify --heads FILE`"
        )
    try:
        with read_rows(ledger.store) as rows:
            if new_only and exported is not None:
                rows.after = earlier.last_entry(rows.connection, exported)
                if rows.after is not None:
                    return _verify_new(rows, ledger, exported)
            return verify_snapshot(rows, ledger, exported)
    except UnreadableError as error:
        return unreadable(error)


def unreadable(error: UnreadableError) -> Verification:
    """Return the result for a file that is no readable ledger."""
    return Verification(rows=0, failures=(str(error),), notes=(), readable=False)


def verify_snapshot(
    rows: OrderedRows, ledger: Ledger, exported: ExportedHeads | None = None
) -> Verification:
    """Verify rows as :func:`verify` verifies a ledger.

    Args:
        rows: The rows at one moment, such as a :class:`Snapshot`.
        ledger: Their ledger, which has the key.
        exported: Heads that were exported earlier.

    Raises:
        LedgerError: If the ledger was created with a key and none is given.
    """
    key, wanted = ledger.store.key, {} if exported is None else exported.places()
    with rows.damage() as damage, altered_meanwhile(rows, key) as second:
        in_order = rows.in_order()
        first = list(islice(in_order, _KEYED))
        _refuse_missing_key(ledger, first)
        check = _Check(rows, key, wanted, second)
        for entry, held in chain(first, in_order):
            check.add(entry, held)
        return check.result(ledger, damage(), exported)


def _verify_new(rows: LedgerRows, ledger: Ledger, exported: ExportedHeads) -> Verification:
    """Verify the rows after exported heads, which were found in the ledger."""
    key = ledger.store.key
    with rows.damage() as damage, altered_meanwhile(rows, key) as second:
        refuse_missing_key(ledger, LedgerRows(rows.connection))
        check = _Check(rows, key, {}, second)
        earlier.restore(rows, exported, check.chains, check.money, check.notes)
        for entry, held in rows.in_order():
            check.add(entry, held)
        return check.result(ledger, damage(), exported, earlier=exported.total)


def refuse_missing_key(ledger: Ledger, rows: OrderedRows) -> None:
    """Refuse a ledger that was created with a key, if none is given.

    Args:
        ledger: The ledger.
        rows: Its rows, of which the first few are read.

    Raises:
        LedgerError: If the key is missing.
    """
    first = rows.in_order()
    _refuse_missing_key(ledger, list(islice(first, _KEYED)))


def _refuse_missing_key(ledger: Ledger, first: list[tuple[Entry, Content | None]]) -> None:
    if ledger.store.key is None and needs_key(first):
        raise LedgerError(wrong_key(ledger.name, first[0][0].prev_hash, None))


class _Check:
    """All checks of a ledger; :meth:`add` adds the next row to each."""

    def __init__(
        self,
        rows: OrderedRows,
        key: bytes | None,
        wanted: Mapping[tuple[str, int], str],
        second: SecondProcess | None,
    ) -> None:
        self.chains = (
            ChainCheck(key) if second is None else ChainCheck(key, hashed_until=second.last)
        )
        self._second = second
        self.money = MoneyCheck(rows)
        self.notes = RunNotes(rows)
        self._rows = rows
        self._wanted = wanted
        self._found: dict[tuple[str, int], str] = {}
        self._count = 0
        self._error: Exception | None = None
        self._of_kind: dict[str, tuple[Callable[[Any], None], ...]] = {
            "run": (self.notes.run,),
            "closing": (self.notes.closing,),
            "heartbeat": (self.notes.heartbeat,),
            "window": (self.money.window, self.notes.window),
            "budget": (self.money.budget,),
            "reservation": (self.money.reservation,),
            "settlement": (self.money.settlement,),
        }

    def add(self, entry: Entry, held: Content | None) -> None:
        """Add the next row; ``held`` is its content, ``None`` if that was removed."""
        self._count += 1
        self.chains.add(entry, held)
        if self._wanted and (entry.chain, entry.seq) in self._wanted:
            self._found[entry.chain, entry.seq] = entry.hash
        try:
            self.notes.entry(entry)
            if held is not None and (checks := self._of_kind.get(entry.kind)):
                held["entry_id"], held["recorded_utc"] = entry.id, entry.recorded_utc
                for check in checks:
                    check(held)
        except (ArithmeticError, TypeError, ValueError) as error:
            self._error = self._error or error

    def result(
        self,
        ledger: Ledger,
        damage: Sequence[str],
        exported: ExportedHeads | None,
        *,
        earlier: int = 0,
    ) -> Verification:
        """Return what was found, after the last row."""
        altered = {} if self._second is None else self._second.altered()
        failures = [*damage, *self.chains.failures(altered), *self._rows.orphans]
        if exported is not None and not earlier:
            failures += exported.failures(self._found)
        notes: list[str] = []
        try:
            failures += self.money.failures()
            if self._error is not None:
                raise self._error
            notes += [*self.money.notes(), *self.notes.all()]
        except (ArithmeticError, TypeError, ValueError) as error:
            if not failures:
                raise
            failures.append(f"the altered amounts cannot be summed: {error}")
        notes += [
            f"refused: a row that the ledger did not take is set aside in {path.name}"
            for path in set_aside(ledger.store)
        ]
        covered = 0 if exported is None else exported.count(RUN_CHAIN)
        return Verification(
            rows=self._count,
            failures=tuple(failures),
            notes=tuple(notes),
            uncovered=self.notes.unclosed(covered),
            heads=self.chains.heads(),
            earlier=earlier,
        )
