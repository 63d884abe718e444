"""Turn what jsonargparse says, over many lines, into one sentence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_KEY = re.compile(r'Parser key "([^"]+)":\s*')
_REFUSED = re.compile(
    r"Problem with given class_path '([^']+)':\n(.*?)(?=\n\s*- |\n\s*Given value|\Z)", re.DOTALL
)
_NOT_FOUND = re.compile(r"module '\S+' has no attribute '\S+'|No module named '\S+'")
_EXPECTED = re.compile(
    r"Expected an? (<class '[^']+'>|typing\.Literal\[[^\]]+\]|[\w.]+\[[^\n]*\])"
    r"|Not a valid subclass of (\w+)|(?:subclass of|implement protocol) (\w+)"
)
_INSIDE = re.compile(r"Expected an? (<class '[^']+'>)\. Got value: (.*)")
_GOT = re.compile(r"Got value: (.*)")
_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "NoneType": "null",
    "dict": "lines of 'key: value'",
    "Mapping": "lines of 'key: value'",
    "list": "a list",
}


def one_line(message: str, key: str, given: Mapping[str, Any]) -> str:
    r"""Return one sentence that names a key, its value and what is allowed.

    Args:
        message: What jsonargparse says.
        key: Where the arguments stand in the configuration.
        given: The arguments.

    Example:
        >>> message = 'Parser key "max_epochs":\n  Expected a <class \'int\'>. Got value: b'
        >>> one_line(message, "trainer", {"max_epochs": "b"})
        "trainer.max_epochs is 'b'; it is a whole number"
    """
    named = _KEY.match(message)
    if named is None:
        return f"{key}: {_reason(message)}" if key else _reason(message)
    name, rest = named.group(1), message[named.end() :]
    where = f"{key}.{name}" if key else name
    refused = _REFUSED.search(rest)
    if refused is not None:
        return f"{where} has {refused.group(1)}, and {_reason(refused.group(2))}"
    value: Any = given
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    inside = _INSIDE.search(rest)
    if inside is not None and isinstance(value, (list, dict)) and inside.group(2) != str(value):
        return f"{where} has {inside.group(2)!r} in it, which has to be {_word(inside.group(1))}"
    not_found = _NOT_FOUND.search(rest)
    if not_found is not None:
        return f"{where} is {value!r}, and there is {_absent(not_found.group())}"
    return f"{where} is {value!r}; {_allowed(rest)}"


def _reason(message: str) -> str:
    """Say what is wrong with the arguments of a class that is named in a value."""
    message = message.strip()
    inner = _REFUSED.search(message)
    if inner is not None:
        return f"in it {inner.group(1)}, and {_reason(inner.group(2))}"
    named, got = _KEY.match(message), _GOT.search(message)
    if named is not None and got is not None:
        return f"its {named.group(1)} is {got.group(1)!r}; {_allowed(message[named.end() :])}"
    option = re.search(r"[Oo]ption '([^']+)' is not accepted|accept option '([^']+)'", message)
    if option is not None:
        return f"it takes no {next(filter(None, option.groups()))!r}"
    required = re.search(r"arguments are required: (.*)", message)
    if required is not None:
        return f"it lacks {required.group(1)}"
    not_found = _NOT_FOUND.search(message)
    if not_found is not None:
        return f"there is {_absent(not_found.group())}"
    return " ".join(message.split())


def _absent(found: str) -> str:
    names = re.findall(r"'([^']+)'", found)
    return f"no {names[1]!r} in {names[0]}" if len(names) > 1 else f"no module {names[0]!r}"


def _allowed(message: str) -> str:
    kinds = [next(filter(None, match.groups())) for match in _EXPECTED.finditer(message)]
    words = list(dict.fromkeys(_word(kind) for kind in kinds))
    if not words:
        return " ".join(message.split())
    *most, last = words
    return f"it is {', '.join(most)} or {last}" if most else f"it is {last}"


def _word(kind: str) -> str:
    literal = re.fullmatch(r"typing\.Literal\[(.*)\]", kind)
    if literal is not None:
        *most, last = literal.group(1).split(", ")
        return f"{', '.join(most)} or {last}" if most else last
    name = re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", kind)
    if re.match(r"(?:[\w.]+\.)?(?:[Ll]ist|Sequence)\[", name):
        return "a list"
    article = "an" if name[0] in "AEIOU" else "a"
    return _WORDS.get(name, f"{article} {name} by class_path")
