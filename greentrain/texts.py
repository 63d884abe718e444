r"""Make texts safe for each output: terminals, logs, files, Markdown and databases.

Names of streams, experiences and devices come from users, files and servers. A name may hold
controls of a terminal, line breaks, links or the password of a URL. Each output has one function:

========================  ===================================================================
output                    function
========================  ===================================================================
terminal, error, warning  :func:`one_line`
log                       :func:`get_logger`, whose records pass through :func:`one_line`
file, workbook, page      :func:`visible`, and the escapes of its format
Markdown                  :func:`markdown`
database                  :func:`storable`; :func:`greentrain.naming.check_name` for names
========================  ===================================================================

Example:
    >>> print(one_line("red\x1b[2J\nat http://me:secret@host/db"))
    red\x1b[2J\nat http://host/db
"""

from __future__ import annotations

import logging
import re
import unicodedata

_SHORT = 80
"""Most characters of a value in an error."""
_JOINERS = "\u200c\u200d"
"""Invisible characters that scripts and emoji need."""
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
"""Categories of characters that move the cursor, reorder a text or cannot be encoded."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_USER = re.compile(
    r"(?<![\w+.-])([a-z][\w+.-]{0,40}://)(?!/|user@host/)[^\s<>]{0,2000}@", re.IGNORECASE
)
"""A URL up to its last "@": an unescaped "/" or "@" may be in the password.

The example in errors, ``user@host``, stays.
"""
_SECRET = re.compile(
    r"""((?:password|passwd|passphrase|passfile|pwd|secret|token|api_?key)\w{0,20}['"]?\s?[=:]\s?)
        (?:'[^']*'|"[^"]*"|[^\s&;,'"}\])]+)""",
    re.IGNORECASE | re.VERBOSE,
)
_LOGIN = re.compile(r"(authorization['\"]?\s?[:=]\s?['\"]?\w{1,20}\s)[^\s'\"]+", re.IGNORECASE)
_MARKS = re.compile(r"([\\`*_{}\[\]()#+!|~$@:])")
_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def visible(text: str, keep: str = "") -> str:
    r"""Return a text with controls and invisible characters spelled out, as Python writes them.

    Args:
        text: Any text; lone surrogates are allowed.
        keep: Characters that stay as they are, such as a line break.

    Example:
        >>> print(visible("a\x1b[2J\u202e\ud800\ufffe"))
        a\x1b[2J\u202e\ud800\ufffe
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode() if char not in keep and _is_hidden(char) else char
        for char in text
    )


def masked(text: str) -> str:
    """Return a text without the users and passwords of its URLs, and without other secrets.

    Example:
        >>> masked("see https://me:pw@host/x?token=1")
        'see https://host/x?token=***'
        >>> masked("host=h password='p w' dbname=d")
        'host=h password=*** dbname=d'
    """
    without_users = _USER.sub(r"\1", text)
    return _LOGIN.sub(r"\1***", _SECRET.sub(r"\1***", without_users))


def one_line(value: object, longest: int | None = None) -> str:
    r"""Return a value as one line of text for terminals and logs: inert, and without secrets.

    Args:
        value: A text, an error or a path.
        longest: Most characters; the rest is cut off.

    Example:
        >>> one_line("a\nb"), one_line("abc", 2)
        ('a\\nb', 'ab…')
    """
    text = visible(masked(str(value)))
    return text if longest is None or len(text) <= longest else text[:longest] + "…"


def short_repr(value: object) -> str:
    """Return the beginning of a value's ``repr`` for an error; no value makes it fail.

    Example:
        >>> short_repr("abc"), short_repr(10**5000)
        ("'abc'", 'a value of type int')
    """
    try:
        text = str.__repr__(value) if isinstance(value, str) else repr(value)
    except Exception:  # such as an integer of more than 4,300 digits
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def storable(text: str) -> str:
    r"""Return a text that every database can store: without NUL and lone surrogates.

    Example:
        >>> storable("a\0b"), storable("caf\udce9")
        ('a\\x00b', 'caf\\udce9')
    """
    return _UNSTORABLE.sub(lambda found: visible(found[0]), text)


def is_storable(text: str) -> bool:
    """Return whether every database can store a text as it is."""
    return _UNSTORABLE.search(text) is None


def markdown(text: str) -> str:
    r"""Escape a text, so that Markdown shows it as it is, without markup, HTML or links.

    Example:
        >>> print(markdown("*a* <b> [c](http://d)"))
        \*a\* &lt;b&gt; \[c\]\(http\://d\)
    """
    # After a backslash or an entity, "www." is no link to GitHub either.
    marked = _MARKS.sub(r"\\\1", visible(" ".join(text.split()))).translate(_HTML)
    return re.sub(r"(?i)www\.", lambda found: f"{found[0][:3]}\\.", marked)


def get_logger(name: str) -> logging.Logger:
    """Return a logger whose messages are single lines without secrets.

    Args:
        name: Name of the module, ``__name__``.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_make_inert)
    return logger


def _make_inert(record: logging.LogRecord) -> bool:
    try:
        record.msg, record.args = one_line(record.getMessage()), ()
    except Exception:  # logging reports a message with wrong arguments, and training continues
        return True
    return True


def _is_hidden(char: str) -> bool:
    if char in _JOINERS:
        return False
    code = ord(char)
    no_character = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return no_character or unicodedata.category(char) in _HIDDEN
