"""The identifier of a report, which every file rendered from it carries."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from greentrain.report.document import Report
from greentrain.report.exports.facts import json_text

_MARK = re.compile(r"urn:uuid:[0-9a-f-]{36} sha256:[0-9a-f]{64}")


class Claim(NamedTuple):
    """The identity of a report.

    Args:
        urn: ``urn:uuid:`` and a UUID that follows from the heads, the scope and the disclosures.
        sha256: SHA-256 of the bytes of ``report.json``, in hexadecimal digits.
    """

    urn: str
    sha256: str

    def __str__(self) -> str:
        """Return both on one line, of the same length for every report."""
        return f"{self.urn} sha256:{self.sha256}"


NO_CLAIM = Claim(f"urn:uuid:{uuid.UUID(int=0)}", "0" * 64)
"""Holds the place of a claim that is not known yet."""


def claim(document: Report) -> Claim:
    """Return the identity of a report; the same document gives the same identity."""
    held: Mapping[str, Any] = document
    heads = held.get("verification", {}).get("heads")
    given = held.get("scope", {}).get("stated_sha256")
    about = json_text([heads, given], sort_keys=True)
    written = json_text(document, sort_keys=True).encode("utf-8")
    return Claim(f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, about)}", sha256(written).hexdigest())


def carried(text: str) -> str | None:
    """Return the first mark of a claim in a text, such as that of a file.

    Example:
        >>> carried(f"<p>{NO_CLAIM}</p>") == str(NO_CLAIM)
        True
        >>> carried("nothing") is None
        True
    """
    found = _MARK.search(text)
    return found[0] if found else None


def all_carried(text: str) -> list[str]:
    """Return all marks of claims in a text.

    Example:
        >>> len(all_carried(f"{NO_CLAIM} and {NO_CLAIM}"))
        2
    """
    return _MARK.findall(text)
