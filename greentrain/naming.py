"""Check the names and places that users give, before anything is opened, stored or paid."""

from __future__ import annotations

import os
import re

from greentrain.errors import ConfigurationError
from greentrain.texts import is_storable, short_repr

LONGEST_NAME = 500
"""Most characters of a name: PostgreSQL indexes 2,704 bytes at most."""
LONGEST_TAG = 100
"""Most characters of a tag, which is a column of a table."""
_WITH_PASSWORD = re.compile(r"://[^\s/]*:[^\s/]*@")
_LOGIN = re.compile(r"[^/\\]*:.*@", re.DOTALL)
"""A colon in the first part of a path, and an "@" after it."""
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
_OPTION = re.compile(
    r"^\s*(host|hostaddr|port|dbname|user|service)\s*="
    r"|(^|[\s;,&?])\w*(password|passfile|passwd|pwd)\s*=",
    re.IGNORECASE,
)


def check_name(name: object, what: str, example: str, *, longest: int = LONGEST_NAME) -> str:
    """Return a name as plain text, or refuse it.

    Args:
        name: The name.
        what: The argument, for the error.
        example: A name that could be given instead.
        longest: Most characters.

    Raises:
        ConfigurationError: If it is no text, empty, or too long, cannot be stored in every
            database, or holds a URL with a password.

    Example:
        >>> check_name("digits", "name", "digits")
        'digits'
    """
    if not isinstance(name, str) or not str.__str__(name).strip():
        raise ConfigurationError(
            f"{what} is {short_repr(name)}; it must be a text that is not empty, such as "
            f"{example!r}"
        )
    text = str.__str__(name)  # of a subclass too, such as an Enum's member
    if len(text) > longest:
        raise ConfigurationError(
            f"{what} has {len(text)} characters, {short_repr(text)}; it may have {longest}"
        )
    if not is_storable(text):
        raise ConfigurationError(
            f"{what} is {short_repr(text)}, which holds NUL or a broken character and cannot be "
            f"stored; give another name, such as {example!r}. If it is the name of a file, rename "
            "the file in UTF-8"
        )
    if _WITH_PASSWORD.search(text):
        raise ConfigurationError(
            f"{what} holds a URL with a password, which a ledger would show; leave the password out"
        )
    return text


def check_tag(tag: object, what: str) -> str | None:
    """Return a tag such as a team as plain text; ``None`` stays.

    Raises:
        ConfigurationError: As for :func:`check_name`.
    """
    return None if tag is None else check_name(tag, what, "vision", longest=LONGEST_TAG)


def check_place(place: object, what: str, example: str) -> str:
    """Return a path or URL as plain text, or refuse it.

    A login such as ``user:password@host/database`` would become a file of that name. Options such
    as ``host=h password=p`` would as well. The error does not repeat them.

    Args:
        place: The path or URL.
        what: The argument, for the error.
        example: A place that could be given instead.

    Raises:
        ConfigurationError: If it is no text, neither a path nor a URL, or a URL whose user or
            password holds an unescaped character.
    """
    if not isinstance(place, str) or not place:
        raise ConfigurationError(
            f"{what} is {short_repr(place)}; it must be a path or a URL, such as {example!r}"
        )
    text = str.__str__(place)
    scheme, is_url, rest = text.partition("://")
    is_path = not is_url or (rest.startswith("/") and scheme.startswith(("sqlite", "file")))
    if not is_path:
        before_path = re.split("[/?#]", rest)[0]
        cut_off = scheme.startswith("http") and "@" in rest and "@" not in before_path
        if cut_off or rest.count("@") > 1:
            raise ConfigurationError(
                f"{what} is a URL with an unescaped character in its user, password or options; "
                "write @ as %40, / as %2F, ? as %3F and # as %23"
            )
    if "\0" in text or (is_path and _is_login(rest.removeprefix("/") if is_url else text)):
        raise ConfigurationError(
            f"{what} is neither a path nor a URL, and is not shown because it may hold a password; "
            f"write it as {example!r}"
        )
    return text


def _is_login(path: str) -> bool:
    """Return whether a path is a login or a list of options that lacks the form of a URL."""
    if os.name == "nt" and _DRIVE.match(path):
        return False
    if path.startswith("//"):
        path = path.lstrip("/")
    return _LOGIN.match(path) is not None or _OPTION.search(path) is not None
