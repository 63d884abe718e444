"""Turn the multi-line errors of jsonargparse into one sentence each."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

_KEY = re.compile(r'Parser key "([^"]+)":\s*')
_REFUSED = re.compile(
    r"Problem with given class_path '([^']+)':\n(.*?)(?=\n\s*- |\n\s*Given value|\Z)", re.DOTALL
)
_NO_OPTION = re.compile(
    r"(?:Group '(?P<group>\S+)' does not accept o|O)ption '(?P<name>[^']+)'"
    r"|unrecognized arguments: --(?P<argument>[^\s=]+)"
)
_EXPECTED = re.compile(
    r"Expected an? (<class '[^']+'>|typing\.Literal\[[^\]]+\]|[\w.]+\[[^\n]*\])"
    r"|Not a valid subclass of (\w+)|(?:subclass of|implement protocol) (\w+)|Not of type (\w+)"
    r"|Expected a (dot import path)"
)
_GOT = re.compile(r"(?:Got|Given) value: (.*)")
_REASONS = (
    (re.compile(r"module '(\S+)' has no attribute '(\S+)'"), "there is no {1!r} in {0}"),
    (re.compile(r"No module named '(\S+)'"), "there is no module {0!r}"),
    (re.compile(r"ption '([^']+)' is not accepted"), "it takes no {0!r}"),
    (re.compile(r"accept option '([^']+)'"), "it takes no {0!r}"),
    (re.compile(r"arguments are required: (.*)"), "it lacks {0}"),
)
_WORDS = {
    "int": "a whole number",
    "PositiveInt": "a whole number above 0",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "NoneType": "null",
    "Path": "a path",
    "dot import path": "the path of a class",
    "list": "a list",
    **dict.fromkeys(("dict", "Mapping"), "lines of 'key: value'"),
}


def one_line(
    message: str, given: Mapping[str, Any], known: Collection[str], required: Mapping[str, str]
) -> str:
    r"""Return one sentence that names a key, its value and the allowed values.

    Args:
        message: The message of jsonargparse.
        given: The configuration.
        known: All keys that a configuration may have, with dots.
        required: The required keys, each with what it is.

    Example:
        >>> message = 'Parser key "max_epochs":\n  Expected a <class \'int\'>. Got value: b'
        >>> one_line(message, {"max_epochs": "b"}, ["max_epochs"], {})
        "max_epochs is 'b'; it must be a whole number"
    """
    message = message.removeprefix('Parser key "config":').strip()
    if named := _KEY.match(message):
        return _wrong_value(named.group(1), message[named.end() :], given)
    if unknown := _NO_OPTION.search(message):
        key = ".".join(filter(None, unknown.groups()))
        return _unknown_key(*key.rpartition(".")[::2], known)
    if lacking := re.search(r"arguments are required: ([^\s,]+)", message):
        key = lacking.group(1).removesuffix(".class_path")
        if key in required:
            return f"the key {key!r} is missing; it is {required[key]}"
        group, _, name = key.rpartition(".")
        return f"{group} lacks {name}"
    if without := re.search(r"argument (--[^\s/]+).*: expected one argument", message):
        return f"{without.group(1)} lacks its value, such as {without.group(1)} VALUE"
    if word := re.search(r"unrecognized arguments: (\S+)", message):
        return (
            f"{word.group(1)!r} is not understood; options after the file's name look like "
            "--trainer.max_epochs 3"
        )
    return " ".join(message.split())


def lookup(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a key with dots; ``None`` if it is missing.

    Example:
        >>> lookup({"carbon": {"zone": "DE"}}, "carbon.zone")
        'DE'
    """
    value: Any = config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def explain_import(error: Exception) -> str | None:
    """Return the reason why a path leads nowhere, with a suggestion; ``None`` for other errors."""
    for pattern, template in _REASONS[:2]:
        if found := pattern.search(str(error)):
            return template.format(*found.groups()) + _suggestion(found.groups())
    return None


def _unknown_key(group: str, name: str, known: Collection[str]) -> str:
    above = f"{group}." if group else ""
    inside = {key.removeprefix(above).split(".")[0]: None for key in known if key.startswith(above)}
    where = f"{group} has no key" if group else "there is no key"
    allowed = f"; allowed are {', '.join(inside)}" if inside else "; none is allowed"
    return f"{where} {name!r}{_did_you_mean(name, inside) or allowed}"


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _suggestion(found: Sequence[str]) -> str:
    """Suggest the public name of a module that is closest to the one that it lacks."""
    module, name = (*found, "")[:2]
    public = [each for each in dir(sys.modules.get(module)) if not each.startswith("_")]
    return _did_you_mean(name, public) if name else ""


def _wrong_value(key: str, rest: str, given: Mapping[str, Any]) -> str:
    if refused := _REFUSED.search(rest):
        return f"{key} has {refused.group(1)}, and {_reason(refused.group(2))}"
    got = _GOT.findall(rest)
    value = lookup(given, key)
    if value is None and got:  # on the command line only
        value = got[-1]
    inside = re.search(r"Expected an? (<class '[^']+'>)\. Got value: (.*)", rest)
    if inside and isinstance(value, list | dict) and inside.group(2) != str(value):
        return f"{key} has {inside.group(2)!r} in it, which has to be {_word(inside.group(1))}"
    if not_found := explain_import(ImportError(rest)):
        return f"{key} is {value!r}, and {not_found}"
    return f"{key} is {value!r}; {_allowed(rest)}"


def _reason(message: str) -> str:
    """Describe the fault in the arguments of a class that is named in a value."""
    message = message.strip()
    if inner := _REFUSED.search(message):
        return f"in it {inner.group(1)}, and {_reason(inner.group(2))}"
    named, got = _KEY.match(message), _GOT.search(message)
    if named and got:
        return f"its {named.group(1)} is {got.group(1)!r}; {_allowed(message[named.end() :])}"
    for pattern, template in _REASONS:
        if found := pattern.search(message):
            return template.format(*found.groups()) + _suggestion(found.groups())
    return " ".join(message.split())


def _allowed(message: str) -> str:
    kinds = [next(filter(None, match.groups())) for match in _EXPECTED.finditer(message)]
    words = list(dict.fromkeys(_word(kind) for kind in kinds))
    return f"it must be {_listed(words)}" if words else " ".join(message.split())


def _word(kind: str) -> str:
    if literal := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return _listed(literal.group(1).split(", "))
    name = re.sub(r"<class '(?:.*\.)?(\w+)'>", r"\1", kind)
    if re.match(r"(?:[\w.]+\.)?(?:[Ll]ist|Sequence)\[", name):
        return "a list"
    article = "an" if name[0] in "AEIOU" else "a"
    return _WORDS.get(name, f"{article} {name} by class_path")


def _listed(words: Sequence[str]) -> str:
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last
