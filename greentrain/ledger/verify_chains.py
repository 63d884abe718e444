"""Recompute a ledger's hash chains, and list the rows that do not follow."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from greentrain.ledger.hashing import GENESIS, genesis
from greentrain.ledger.row_stream import Content, Entry
from greentrain.ledger.rows import Head
from greentrain.ledger.schema import BUDGET_CHAIN, RUN_CHAIN, run_chain
from greentrain.ledger.verify_hashes import hashes, row_name

_Heads = dict[str, list[Any]]
_OPENINGS = frozenset((RUN_CHAIN, BUDGET_CHAIN))
_ALTERED, _HEADS = 1, 2  # failures of one row, in order


class ChainCheck:
    """The heads of all chains after each row; :meth:`add` adds the next row.

    Args:
        key: Key that rows were hashed with; ``None`` for plain hashes.
        hashed_until: Number of the last entry that is hashed elsewhere: :meth:`failures` takes the
            altered ones.
    """

    def __init__(self, key: bytes | None, *, hashed_until: float = -math.inf) -> None:
        self._key = key
        self._hashed_until = hashed_until
        self._failures: list[tuple[int, int, str]] = []  # with entry and order in it
        self._begins = genesis(key)
        self._first = True
        self._foreign = False
        self._heads: _Heads = {}
        self._changed: set[str] = set()
        self._openings: dict[str, str] = {}
        self._last: dict[str, tuple[int, str]] = {}

    def start(
        self, heads: Mapping[str, Head], openings: Mapping[str, str], changed: set[str]
    ) -> None:
        """Begin at an earlier moment, whose rows are taken as right.

        Args:
            heads: The heads of all chains at that moment.
            openings: Hashes of the opening rows by chain of the run.
            changed: Chains that changed since the last opening row or budget row.
        """
        self._first = False
        self._heads = {chain: [one["count"], one["head"]] for chain, one in heads.items()}
        self._last = {chain: (one["count"] - 1, one["head"]) for chain, one in heads.items()}
        self._openings = dict(openings)
        self._changed = changed

    def add(self, entry: Entry, held: Content | None) -> None:
        """Add the next row; ``held`` is its content, ``None`` if that was removed."""
        _, kind, chain, seq, _, prev_hash, found = entry
        if not _is_number(seq):
            self._fail(entry, "was altered")
            return
        last = self._last.get(chain)
        if last is None or seq > last[0]:
            self._last[chain] = (seq, found)
        if self._foreign:
            return
        if self._first:
            self._first = False
            if self._key is not None and prev_hash != self._begins:
                plain = prev_hash == GENESIS
                how = "without a key" if plain else "with another key than the given one"
                self._fail(entry, f"was altered, or written {how}")
                self._foreign = True
                return
        if held is None:
            self._fail(entry, "its content was removed")
            return
        own = chain in _OPENINGS
        known = own or chain in self._openings
        if not known:
            self._fail(entry, "the run's opening row was removed")
        before = self._heads.get(chain)
        if before is None:
            before = [0, self._begins if own else self._openings.get(chain, "")]
        count, head = before
        if seq != count:
            self._fail(
                entry, f"follows row {count - 1}, so rows were removed, inserted or reordered"
            )
        elif prev_hash != head and known:
            self._fail(
                entry, "does not follow from the row before it, which was altered or replaced"
            )
        if entry.id > self._hashed_until and not hashes(entry, held, self._key):
            self._fail(entry, "was altered", _ALTERED)
        elif own:
            expected = {one: self._heads[one] for one in self._changed if one != chain}
            for failure in _heads_failures(held["heads"], expected, self._heads):
                self._fail(entry, failure, _HEADS)
        if own:
            self._changed.clear()
        self._heads[chain] = [seq + 1, found]
        self._changed.add(chain)
        if kind == "run":
            self._openings[run_chain(held["run_id"])] = found

    def _fail(self, entry: Entry, failure: str, order: int = 0) -> None:
        self._failures.append((entry.id, order, f"{row_name(entry)}: {failure}"))

    def failures(self, altered: Mapping[int, str] = MappingProxyType({})) -> list[str]:
        """Return a sentence for each row that does not follow, in the order of the rows.

        Args:
            altered: Names of the rows that another process found altered, by number of the entry.
        """
        if self._foreign or not altered:
            return [text for *_, text in self._failures]
        found = [one for one in self._failures if not (one[0] in altered and one[1] == _HEADS)]
        found += [(number, _ALTERED, f"{name}: was altered") for number, name in altered.items()]
        return [text for *_, text in sorted(found, key=lambda one: one[:2])]

    def heads(self) -> dict[str, Head]:
        """Return the heads of all chains, as ``Ledger.heads`` does."""
        return {
            chain: {"count": seq + 1, "head": head}
            for chain, (seq, head) in sorted(self._last.items(), key=lambda one: str(one[0]))
        }


def needs_key(first: Sequence[tuple[Entry, Content | None]]) -> bool:
    """Return whether rows were hashed with a key: none of the first rows follows without one."""
    if not first or first[0][0].prev_hash == GENESIS:
        return False
    return not any(held is not None and hashes(entry, held, None) for entry, held in first)


def _is_number(seq: object) -> bool:
    return isinstance(seq, int)  # SQLite keeps even a text in a column of integers


def _heads_failures(held: str, expected: _Heads, heads: _Heads) -> Iterator[str]:
    """Compare the heads in an opening row or a budget row with those of the chains."""
    try:
        then: _Heads = dict(json.loads(held))
    except (TypeError, ValueError):
        yield "holds no heads, so it was replaced"
        return
    for chain in sorted({*then, *expected}, key=str):  # a forged one may be no text
        if then.get(chain) == expected.get(chain):
            continue
        found = heads.get(chain, [0, None])[0]
        if chain not in then:
            yield f"does not hold the changes to {chain}, so rows were inserted there"
        elif not found:
            yield f"names {then[chain][0]} row(s) of {chain}, which was removed whole"
        elif found != then[chain][0]:
            yield (
                f"names {then[chain][0]} row(s) of {chain}, and there are {found}, so "
                "rows were removed, inserted or reordered"
            )
        else:
            yield f"names another head of {chain}, so rows were replaced there"
