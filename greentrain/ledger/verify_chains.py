"""Recompute a ledger's hash chains, and list the rows that do not follow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from greentrain.ledger.hashing import GENESIS, genesis, row_hash
from greentrain.ledger.schema import BUDGET_CHAIN, RUN_CHAIN, run_chain

Content = Mapping[str, Mapping[int, Mapping[str, Any]]]
_Heads = dict[str, list[Any]]


def chain_failures(
    spine: Sequence[Mapping[str, Any]], content: Content, key: bytes | None
) -> Iterator[str]:
    """Yield a sentence for each row that does not follow, in the order of the rows.

    Args:
        spine: All entries, in order.
        content: Content of each kind of entry, by the entry's id.
        key: Key that rows were hashed with; ``None`` for plain hashes.
    """
    begins = genesis(key)
    if spine and key is not None and spine[0]["prev_hash"] != begins:
        plain = spine[0]["prev_hash"] == GENESIS
        how = "without a key" if plain else "with another key than the given one"
        yield f"{_name(spine[0])}: was altered, or written {how}"
        return
    heads: _Heads = {}
    changed: set[str] = set()
    openings: dict[str, str] = {}
    for entry in spine:
        name, chain = _name(entry), entry["chain"]
        held = content.get(entry["kind"], {}).get(entry["id"])
        if held is None:
            yield f"{name}: its content was removed"
            continue
        own = chain in (RUN_CHAIN, BUDGET_CHAIN)
        if not own and chain not in openings:
            yield f"{name}: the run's opening row was removed"
        count, head = heads.get(chain, (0, begins if own else openings.get(chain, "")))
        if entry["seq"] != count:
            yield f"{name}: follows row {count - 1}, so rows were removed, inserted or reordered"
        elif entry["prev_hash"] != head and (own or chain in openings):
            yield f"{name}: does not follow from the row before it, which was altered or replaced"
        if not _hashes(entry, held, key):
            yield f"{name}: was altered"
        elif own:
            expected = {one: heads[one] for one in changed if one != chain}
            yield from _heads_failures(name, held["heads"], expected, heads)
        if own:
            changed.clear()
        heads[chain] = [entry["seq"] + 1, entry["hash"]]
        changed.add(chain)
        if entry["kind"] == "run":
            openings[run_chain(held["run_id"])] = entry["hash"]


def needs_key(spine: Sequence[Mapping[str, Any]], content: Content) -> bool:
    """Return whether rows were hashed with a key: none of the first rows follows without one."""
    if not spine or spine[0]["prev_hash"] == GENESIS:
        return False
    for entry in spine[:3]:
        held = content.get(entry["kind"], {}).get(entry["id"])
        if held is not None and _hashes(entry, held, None):
            return False
    return True


def _name(entry: Mapping[str, Any]) -> str:
    return f"row {entry['seq']} of {entry['chain']} ({entry['kind']})"


def _hashes(entry: Mapping[str, Any], held: Mapping[str, Any], key: bytes | None) -> bool:
    try:
        return bool(row_hash(entry, held, key) == entry["hash"])
    except (TypeError, ValueError):  # it was altered to a value that a ledger cannot hold
        return False


def _heads_failures(name: str, held: str, expected: _Heads, heads: _Heads) -> Iterator[str]:
    """Compare the heads in an opening row or a budget row with those of the chains."""
    try:
        then: _Heads = dict(json.loads(held))
    except (TypeError, ValueError):
        yield f"{name}: holds no heads, so it was replaced"
        return
    for chain in sorted({*then, *expected}, key=str):  # a forged one may be no text
        if then.get(chain) == expected.get(chain):
            continue
        found = heads.get(chain, [0, None])[0]
        if chain not in then:
            yield f"{name}: does not hold the changes to {chain}, so rows were inserted there"
        elif not found:
            yield f"{name}: names {then[chain][0]} row(s) of {chain}, which was removed whole"
        elif found != then[chain][0]:
            yield (
                f"{name}: names {then[chain][0]} row(s) of {chain}, and there are {found}, so "
                "rows were removed, inserted or reordered"
            )
        else:
            yield f"{name}: names another head of {chain}, so rows were replaced there"
