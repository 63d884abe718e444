"""The key that a ledger's rows may be hashed with, which is never stored."""

from __future__ import annotations

import os

from greentrain.errors import ConfigurationError

KEY_VARIABLE = "GREENTRAIN_LEDGER_KEY"
_SHORTEST = 16


def ledger_key(given: str | None = None) -> bytes | None:
    """Return the key that was given, or that of the environment; ``None`` if there is none.

    Raises:
        ConfigurationError: If it is so short that it could be guessed; it is not shown.
    """
    key = os.environ.get(KEY_VARIABLE) or None if given is None else given
    if key is None:
        return None
    if len(key) < _SHORTEST:
        raise ConfigurationError(
            f"the ledger's key ({KEY_VARIABLE}) is {len(key)} characters long; it takes "
            f"{_SHORTEST} or more, such as those of `openssl rand -hex 32`"
        )
    return key.encode("utf-8", "surrogateescape")
