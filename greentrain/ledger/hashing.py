"""Hash the rows of a ledger, with or without a secret key."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any

from greentrain.errors import ConfigurationError

GENESIS = "0" * 64
"""Previous hash of the first row of a chain, in a ledger without a key."""
KEY_VARIABLE = "GREENTRAIN_LEDGER_KEY"
"""Environment variable of the key, which is never stored."""

_SHORTEST_KEY = 16
_ENCODER = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
)


_WRITERS: Mapping[type, str] = {
    float: "{%s!r}",
    int: "{%s!r}",
    str: "{quoted(%s)}",
    bool: "{'true' if %s else 'false'}",
}
"""The part of an f-string that writes a value of each type; ``canonical`` writes all others."""
_KEPT = 1000
"""Functions that write rows and are kept; a ledger needs a few dozen."""


def canonical(value: Any) -> str:
    """Return a value as JSON in one unique form: sorted keys, no spaces, shortest floats.

    Example:
        >>> canonical({"b": 0.1, "a": None})
        '{"a":null,"b":0.1}'
    """
    return _ENCODER.encode(value)


def config_sha256(settings: Any) -> str:
    """Return the SHA-256 of a run's settings as its environment has them, in hexadecimal.

    Example:
        >>> config_sha256({"seed": 0, "mode": "max"}) == config_sha256({"mode": "max", "seed": 0})
        True
    """
    return hashlib.sha256(canonical(settings).encode()).hexdigest()


def row_hash(entry: Mapping[str, Any], content: Mapping[str, Any], key: bytes | None = None) -> str:
    """Return the SHA-256 of a row in hexadecimal, or its HMAC-SHA256 with a key.

    The hash covers the entry, which includes the hash of the row before it, and the content by
    column name. Columns that are NULL are left out, so that a nullable column can be added later
    without changing the hashes of older rows.

    Leaving them out opens no attack. A table's columns are the same for all its rows, so a column
    that is missing from the hash can only be NULL. Every other column is hashed with its name:
    setting a value to NULL, NULL to a value, or moving a value to another column changes the hash.
    The hash does not show whether a column existed when a row was written. A NULL in a later column
    must therefore mean "not recorded".

    Example:
        >>> entry = {"kind": "k", "chain": "c", "seq": 0, "recorded_utc": "", "prev_hash": GENESIS}
        >>> row_hash(entry, {"a": 1}) == row_hash(entry, {"a": 1, "later": None})
        True
        >>> row_hash(entry, {"a": 1}) == row_hash(entry, {"a": 1, "later": 0})
        False
    """
    held = {name: content[name] for name in sorted(content) if name != "entry_id"}
    return digest(
        entry["kind"],
        entry["chain"],
        entry["seq"],
        entry["recorded_utc"],
        entry["prev_hash"],
        held,
        key,
    )


def digest(
    kind: str,
    chain: str,
    seq: int,
    recorded_utc: str,
    prev_hash: str,
    held: Mapping[str, Any],
    key: bytes | None,
) -> str:
    """Return the hash of a row, see :func:`row_hash`.

    The text is that of :func:`canonical`, written in less time.

    Args:
        kind: Kind of the entry, like the next four a column of the spine.
        chain: Name of its chain.
        seq: Its number in the chain.
        recorded_utc: Time at which it was appended.
        prev_hash: Hash of the row before it.
        held: The content by column, sorted by name, without ``entry_id``.
        key: The key; ``None`` for a plain hash.

    Raises:
        TypeError, ValueError: If JSON cannot hold a value.
    """
    values = held.values()
    content = _writer((*held,), (*map(type, values),))(*values)
    text = (
        f'[{{"chain":{_quoted(chain)},"kind":{_quoted(kind)},"prev_hash":{_quoted(prev_hash)},'
        f'"recorded_utc":{_quoted(recorded_utc)},"seq":{seq}}},{{{content}}}]'
    ).encode()
    if key is None:
        return hashlib.sha256(text).hexdigest()
    return hmac.digest(key, text, "sha256").hex()


@lru_cache(_KEPT)
def _writer(names: tuple[str, ...], types: tuple[type, ...]) -> Callable[..., str]:
    """Return a function that writes the values of these columns as JSON, without the braces.

    It is compiled from one f-string, and reads no text of a row: for ``("a", "b")`` and
    ``(int, str)`` it is ``lambda _0, _1: '"a":' f'{_0!r}' ',"b":' f'{quoted(_1)}'``.
    """
    parts: list[str] = []
    for number, (name, one) in enumerate(zip(names, types, strict=True)):
        if one is not type(None):
            begin = f'{"," if parts else ""}"{name}":'
            write = _WRITERS.get(one, "{canonical(%s)}") % f"_{number}"
            parts.append(f'{begin!r} f"{write}"')
    taken = ", ".join(f"_{number}" for number in range(len(names)))
    source = f"lambda {taken}: {' '.join(parts) or repr('')}"
    write_row: Callable[..., str] = eval(source, {"quoted": _quoted, "canonical": canonical})
    return write_row


def genesis(key: bytes | None = None) -> str:
    """Return the previous hash of the first row of the chains of runs and budgets.

    With a key it cannot be computed without the key. A ledger that was created with a key can
    therefore not be passed off as one without.
    """
    return GENESIS if key is None else hmac.digest(key, b"greentrain ledger", "sha256").hex()


def ledger_key(given: str | None = None) -> bytes | None:
    """Return the given key, or the key in the environment; ``None`` if there is none.

    Raises:
        ConfigurationError: If it is so short that it could be guessed. The message does not show
            the key.
    """
    key = os.environ.get(KEY_VARIABLE) or None if given is None else given
    if key is None:
        return None
    if len(key) < _SHORTEST_KEY:
        raise ConfigurationError(
            f"the ledger's key ({KEY_VARIABLE}) is {len(key)} characters long; it takes "
            f"{_SHORTEST_KEY} or more, such as those of `openssl rand -hex 32`"
        )
    return key.encode("utf-8", "surrogateescape")


def wrong_key(name: str, first: str, key: bytes | None) -> str:
    """Return the message for a ledger whose first row was hashed with another key.

    Args:
        name: Name of the ledger.
        first: Previous hash of its first row.
        key: The key that was given.
    """
    if first == GENESIS:
        return (
            f"the ledger {name!r} was created without a key, and a key was given; unset "
            f"{KEY_VARIABLE}, or create another ledger"
        )
    if key is None:
        return (
            f"the ledger {name!r} was created with a key, and no key was given; set the "
            f"environment variable {KEY_VARIABLE}"
        )
    return f"the ledger {name!r} was created with another key than the one given; use the first key"
