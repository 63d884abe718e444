"""Check a report against its ledgers: form it anew, and name every figure that does not follow."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, close_ledgers, open_ledgers
from greentrain.report import ledger_reading as reading
from greentrain.report.disclosures import Given
from greentrain.report.model import SCHEMA_VERSION, document
from greentrain.report.scope import Scope
from greentrain.report.text import shown
from greentrain.report.write import render_json

_SHOWN = 50
_NOTHING = object()


class _Number(str):
    """A number as it is written: a digit that no float can hold is a digit all the same."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A place at which a report says something else than its ledger.

    Args:
        path: Where in the document, as a JSON Pointer (RFC 6901): ``"/totals/energy_j"``.
        in_report: What the report says there, as JSON; ``None`` if it has nothing there.
        from_ledger: What follows from the ledger; ``None`` if nothing does.
    """

    path: str
    in_report: str | None
    from_ledger: str | None

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{shown(self.path, 200)}: the report has {self.in_report or 'nothing'}, and "
            f"{self.from_ledger or 'nothing'} follows from the ledger"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What checking a report found.

    Args:
        differences: What does not follow, in the order of the document's keys.
        failures: What does not follow in the ledgers themselves, as they were when the report was
            written.
        rows: Rows that the report rests on.
        later: Rows that were appended since, and have no part in it.
    """

    differences: tuple[Difference, ...]
    failures: tuple[str, ...]
    rows: int
    later: int

    @property
    def ok(self) -> bool:
        """Whether everything follows."""
        return not (self.differences or self.failures)


def check(text: str, ledgers: Sequence[Ledger]) -> Checked:
    """Form a report anew from its ledgers as they were, and compare the two.

    What was appended after the heads that stand in the report is left out. Numbers are compared
    digit by digit, texts letter by letter; how the file is broken into lines does not matter. What
    was given by the user is in no ledger: it is taken from the report, and what was worked out from
    it is compared.

    Args:
        text: The ``report.json``.
        ledgers: Its ledgers. If their names are not those in the report, they are in its order.

    Raises:
        ConfigurationError: If the text is no report, one of another form, or of another number of
            ledgers.
        LedgerError: If a ledger cannot be read.
    """
    told = _load(text)
    names, heads = _heads(told)
    ledgers = _in_order(ledgers, names)
    try:
        given = Given(**_values(told.get("given")))
        scope = Scope.of(_values(told.get("scope")))
        read = reading.read(ledgers, names=names, as_of=heads)
        found = document(read, scope, given)
    except (ConfigurationError, TypeError) as error:
        lost = Difference(path="", in_report="what cannot be formed anew", from_ledger=str(error))
        return Checked(differences=(lost,), failures=(), rows=0, later=0)
    verification = found["verification"]
    rows = verification["rows"]
    there = sum(head["count"] for ledger in ledgers for head in ledger.heads().values())
    return Checked(
        differences=tuple(differences(told, _load(render_json(found)))),
        failures=tuple(verification["failures"]),
        rows=rows,
        later=there - rows,
    )


def check_file(path: Path, patterns: Sequence[str]) -> tuple[list[str], int]:
    """Check a file, and say what was found.

    Args:
        path: The ``report.json``.
        patterns: Its ledgers, as for :func:`greentrain.ledger.open_ledgers`.

    Returns:
        What to show, line by line, and the exit code: 0 if everything follows, otherwise 1.

    Raises:
        ConfigurationError: If the file cannot be read; and as :func:`check`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {str(path)!r}: {reason}") from None
    opened = open_ledgers(patterns)
    try:
        checked = check(text, opened)
    finally:
        close_ledgers(opened)
    return list(_lines(path, checked)), 0 if checked.ok else 1


def differences(told: Any, found: Any, path: str = "") -> Iterator[Difference]:
    """Yield where two documents differ.

    Args:
        told: What the report says.
        found: What it should say.
        path: Where both are in their documents.

    Example:
        >>> [str(one) for one in differences({"a": [1, 2]}, {"a": [1, 3]})]
        ['/a/1: the report has 2, and 3 follows from the ledger']
    """
    if isinstance(told, dict) and isinstance(found, dict):
        for key in sorted({*told, *found}):
            place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            yield from differences(told.get(key, _NOTHING), found.get(key, _NOTHING), place)
    elif isinstance(told, list) and isinstance(found, list):
        for number in range(max(len(told), len(found))):
            here, there = (one[number] if number < len(one) else _NOTHING for one in (told, found))
            yield from differences(here, there, f"{path}/{number}")
    elif type(told) is not type(found) or told != found:
        yield Difference(path=path, in_report=_text(told), from_ledger=_text(found))


def _load(text: str) -> dict[str, Any]:
    try:
        told = json.loads(
            text,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
            object_pairs_hook=_once,
        )
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"this is no report.json: {error}") from None
    version = told.get("schema_version") if isinstance(told, dict) else None
    if version != str(SCHEMA_VERSION):
        raise ConfigurationError(
            f"this is a report of form {_text(version)}, or none; this greentrain checks those of "
            f"form {SCHEMA_VERSION}, so check it with the one that wrote it"
        )
    return dict(told)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) != len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"it has the key {shown(twice, 80)!r} twice in one place")
    return held


def _heads(told: Mapping[str, Any]) -> tuple[list[str], list[dict[str, dict[str, Any]]]]:
    try:
        ledgers = told["verification"]["ledgers"]
        return [str(one["name"]) for one in ledgers], [
            {
                str(chain): {"count": int(head["count"]), "head": str(head["head"])}
                for chain, head in one["heads"].items()
            }
            for one in ledgers
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigurationError(
            "the report holds no heads of its ledgers, so nobody knows as of when it was written"
        ) from None


def _in_order(ledgers: Sequence[Ledger], names: Sequence[str]) -> list[Ledger]:
    if len(ledgers) != len(names):
        raise ConfigurationError(
            f"the report is of {len(names)} ledger(s), {', '.join(names) or 'none'}, and "
            f"{len(ledgers)} were given"
        )
    by_name = dict(zip(reading.names_of(ledgers), ledgers, strict=True))
    return [by_name[name] for name in names] if set(by_name) == set(names) else list(ledgers)


def _values(told: Any) -> Any:
    """Return a part of the document with its numbers as numbers."""
    if isinstance(told, dict):
        return {key: _values(held) for key, held in told.items()}
    if isinstance(told, _Number):
        return int(told) if told.lstrip("-").isdigit() else float(told)
    return told


def _text(value: Any) -> str | None:
    if value is _NOTHING:
        return None
    return str(value) if isinstance(value, _Number) else shown(json.dumps(value), 80)


def _lines(path: Path, checked: Checked) -> Iterator[str]:
    yield f"report {path}"
    for failure in checked.failures[:_SHOWN]:
        yield f"FAILED: the ledger: {failure}"
    for difference in checked.differences[:_SHOWN]:
        yield f"FAILED: {difference}"
    more = len(checked.differences[_SHOWN:]) + len(checked.failures[_SHOWN:])
    if more:
        yield f"FAILED: {more} more"
    if checked.later:
        yield f"{checked.later} row(s) were appended to the ledger since, and have no part in it"
    if checked.ok:
        yield f"everything in it follows from {checked.rows} rows"
    else:
        found = len(checked.differences) + len(checked.failures)
        yield f"{found} thing(s) do not follow"
