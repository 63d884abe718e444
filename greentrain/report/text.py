"""Make text from a ledger safe to look at: nothing in it hides, reorders or floods the page."""

from __future__ import annotations

import unicodedata

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_KEPT = frozenset("\n\t")


def shown(text: str, limit: int = 1000) -> str:
    r"""Return a text with invisible controls spelled out, cut off after a number of characters.

    A name with a right-to-left override can make a figure read as another one, so such marks are
    shown by their code. Escaping for HTML is the renderer's.

    Example:
        >>> shown("a\u202eb"), shown("abcdef", limit=3)
        ('a\\u202eb', 'abc…')
    """
    cut = text if len(text) <= limit else text[:limit] + "…"
    return "".join(_visible(character) for character in cut)


def _visible(character: str) -> str:
    if character in _KEPT:
        return character
    hidden = character in _BIDI or unicodedata.category(character) in ("Cc", "Cs")
    return f"\\u{ord(character):04x}" if hidden else character
