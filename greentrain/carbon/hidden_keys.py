"""Hide the keys of services in texts, in each form in which a service or a log may show them."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from urllib.parse import quote, quote_plus


def hide_keys(text: str, keys: Iterable[str]) -> str:
    """Return a text with each key replaced: as it is, URL-encoded, and in base64.

    Args:
        text: The text, such as a service's message or a line of a log.
        keys: The keys; an empty one is left out.

    Example:
        >>> hide_keys("a/b, a%2Fb and YS9i are no secrets", ["a/b"])
        '***, *** and *** are no secrets'
    """
    forms: set[str] = set()
    for key in filter(None, keys):
        forms |= {key, quote(key, safe=""), quote(key), quote_plus(key)}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(key.encode()).decode().rstrip("="))
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, "***")
    return text
