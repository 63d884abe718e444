"""Suggest names of zones that are close to an unknown one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def nearest(text: str, names: Iterable[str] | Mapping[str, str], count: int = 3) -> list[str]:
    """Return the names that are most like a text, without regard to case.

    Args:
        text: The unknown name.
        names: All names, or the description of each name, such as a country of each code. A text
            that is like the description has the code as its nearest name.
        count: Most names to return.

    Example:
        >>> nearest("Germny", {"DEU": "Germany", "FRA": "France", "GBR": "United Kingdom"}, 1)
        ['DEU (Germany)']
        >>> nearest("SE5", ["SE3", "NO1"])
        ['SE3', 'NO1']
    """
    described = names if isinstance(names, Mapping) else dict.fromkeys(names, "")

    def likeness(name: str) -> float:
        about = (name, described[name])
        return max(
            difflib.SequenceMatcher(None, text.lower(), one.lower()).ratio() for one in about if one
        )

    found = sorted(described, key=lambda name: (-likeness(name), name))[:count]
    return [f"{name} ({described[name]})" if described[name] else name for name in found]


def did_you_mean(text: str, names: Iterable[str] | Mapping[str, str]) -> str:
    """Return a sentence with the three nearest names, for the end of an error; may be empty.

    Example:
        >>> did_you_mean("SE5", ["SE3", "NO1"])
        '. The nearest are SE3 and NO1'
    """
    found = nearest(text, names)
    if not found:
        return ""
    listed = " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
    return f". The nearest {'are' if len(found) > 1 else 'is'} {listed}"
