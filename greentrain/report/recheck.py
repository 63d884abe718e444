"""Check a report against its ledgers: build it again, and list every value that differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError
from greentrain.ledger import Head, Ledger, close_ledgers, open_ledgers
from greentrain.report.disclosures import Disclosures
from greentrain.report.document import Report
from greentrain.report.formats import shown
from greentrain.report.ledger_reading import names_of, read
from greentrain.report.limits import NO_SINK, Sink
from greentrain.report.model import SCHEMA_VERSION, document
from greentrain.report.overview import NOT_CHECKED
from greentrain.report.restatement import Restatement
from greentrain.report.scope import Scope
from greentrain.report.write import render_json

_SHOWN = 50
_NOTHING = object()


class _LostError(ConfigurationError):
    """The values that say how a report was made are invalid."""


class _Number(str):
    """A number as it is written, including digits that a float cannot hold."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A value of a report that differs from the ledger.

    Args:
        path: Its place in the document, as a JSON Pointer (RFC 6901): ``"/totals/energy_j"``.
        in_report: The value in the report, as JSON; ``None`` if it has none.
        from_ledger: The value computed from the ledger; ``None`` if there is none.
    """

    path: str
    in_report: str | None
    from_ledger: str | None

    def __str__(self) -> str:
        """Describe the difference in one line."""
        return (
            f"{shown(self.path, 200)}: the report has {self.in_report or 'nothing'}, and "
            f"the ledger gives {self.from_ledger or 'nothing'}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """The result of checking a report.

    Args:
        differences: Values that differ from the ledger, in the order of the document's keys.
        failures: Failures in the verification of the ledgers, as they were when the report was
            written.
        rows: Ledger rows that the report was built from.
        later: Rows that were appended since, which the check ignores.
    """

    differences: tuple[Difference, ...]
    failures: tuple[str, ...]
    rows: int
    later: int

    @property
    def ok(self) -> bool:
        """``True`` if there is no difference and no failure."""
        return not (self.differences or self.failures)


def check(text: str, ledgers: Sequence[Ledger], factors: Path | None = None) -> CheckResult:
    """Build a report again from its ledgers as they were, and compare the two.

    Rows that were appended after the heads in the report are left out. Numbers are compared digit
    by digit and texts letter by letter; line breaks and indentation do not matter. Disclosures are
    in no ledger: they are taken from the report, and the figures computed from them are compared.

    Args:
        text: The contents of ``report.json``.
        ledgers: Its ledgers. If their names are not those in the report, they are in its order.
        factors: The file of factors of a restated report.

    Raises:
        ConfigurationError: If the text is not a report of this version, or is about another number
            of ledgers.
        LedgerError: If a ledger cannot be read.
    """
    report = load(text)
    try:
        found = build_again(report, ledgers, factors)
    except _LostError as error:
        lost = Difference(path="", in_report="invalid values", from_ledger=f"an error: {error}")
        return CheckResult(differences=(lost,), failures=(), rows=0, later=0)
    verification = found["verification"]
    rows = verification["rows"]
    present = sum(head["count"] for ledger in ledgers for head in ledger.heads().values())
    return CheckResult(
        differences=tuple(differences(report, load(render_json(found)))),
        failures=tuple(verification["failures"]),
        rows=rows,
        later=present - rows,
    )


def build_again(
    report: Mapping[str, Any],
    ledgers: Sequence[Ledger],
    factors: Path | None = None,
    sink: Sink = NO_SINK,
) -> Report:
    """Build a report again from the rows that its ledgers held when it was written.

    Args:
        report: The document.
        ledgers: Its ledgers, as for :func:`check`.
        factors: The file of factors of a restated report.
        sink: Takes each window and each experience.

    Raises:
        ConfigurationError: If the document is not about these ledgers, or says in an invalid way
            how it was made.
    """
    names, heads = _heads(report)
    ledgers = _in_order(ledgers, names)
    restatement = Restatement.of(report.get("restated"), factors)
    try:
        disclosures = Disclosures(**_values(report.get("disclosures")))
        scope = Scope.of(_values(report.get("scope")))
        with read(ledgers, names=names, as_of=heads, restatement=restatement) as contents:
            wanted = report.get("equivalents") is not None
            return document(contents, scope, disclosures, equivalents=wanted, sink=sink)
    except (ConfigurationError, TypeError) as error:
        raise _LostError(str(error)) from None


def check_file(
    path: Path, patterns: Sequence[str], factors: Path | None = None
) -> tuple[list[str], int]:
    """Check a file, and describe the result.

    Args:
        path: The ``report.json``.
        patterns: Its ledgers, as for :func:`greentrain.ledger.open_ledgers`.
        factors: The file of factors of a restated report.

    Returns:
        Lines of text, and the exit code: 0 if there is no difference and no failure, otherwise 1.

    Raises:
        ConfigurationError: If the file cannot be read, or :func:`check` refuses it.
    """
    text = read_text(path)
    opened = open_ledgers(patterns)
    try:
        result = check(text, opened, factors)
    finally:
        close_ledgers(opened)
    return list(_lines(path, result)), 0 if result.ok else 1


def read_text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        ConfigurationError: If the file cannot be read, or is not UTF-8.
    """
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"cannot read {str(path)!r}: {reason}") from None


def differences(report: Any, found: Any, path: str = "") -> Iterator[Difference]:
    """Yield the differences between two documents.

    Args:
        report: The report.
        found: The document that was built again.
        path: The place of both in their documents.

    Example:
        >>> [str(one) for one in differences({"a": [1, 2]}, {"a": [1, 3]})]
        ['/a/1: the report has 2, and the ledger gives 3']
    """
    if isinstance(report, dict) and isinstance(found, dict):
        for key in sorted({*report, *found}):
            place = f"{path}/{key.replace('~', '~0').replace('/', '~1')}"
            yield from differences(report.get(key, _NOTHING), found.get(key, _NOTHING), place)
    elif isinstance(report, list) and isinstance(found, list):
        pairs = zip_longest(report, found, fillvalue=_NOTHING)
        for number, (here, there) in enumerate(pairs):
            yield from differences(here, there, f"{path}/{number}")
    elif type(report) is not type(found) or report != found:
        yield Difference(path=path, in_report=_text(report), from_ledger=_text(found))


def exact(text: str) -> Any:
    """Read JSON with every digit of its numbers, and refuse keys that occur twice.

    Raises:
        ConfigurationError: If the text is not such JSON.
    """
    try:
        return json.loads(
            text,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_Number,
            object_pairs_hook=_without_repeats,
        )
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"this is not JSON that greentrain wrote: {error}") from None


def load(text: str) -> dict[str, Any]:
    """Read a report.json as :func:`exact` does.

    Raises:
        ConfigurationError: If the text is not a report of this version.
    """
    try:
        report = exact(text)
    except ConfigurationError as error:
        raise ConfigurationError(f"this is not a report.json: {error}") from None
    if isinstance(report, dict) and "overview_version" in report:
        raise ConfigurationError(NOT_CHECKED)
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != str(SCHEMA_VERSION):
        raise ConfigurationError(
            f"the report has schema version {_text(version)}, and this greentrain checks version "
            f"{SCHEMA_VERSION}; use the version of greentrain that wrote the report"
        )
    return dict(report)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) != len(pairs):
        twice = next(key for place, (key, _) in enumerate(pairs) if key in dict(pairs[:place]))
        raise ValueError(f"the key {shown(twice, 80)!r} occurs twice in one object")
    return held


def _heads(report: Mapping[str, Any]) -> tuple[list[str], list[dict[str, Head]]]:
    try:
        ledgers = report["verification"]["ledgers"]
        return [str(one["name"]) for one in ledgers], [
            {
                str(chain): {"count": int(head["count"]), "head": str(head["head"])}
                for chain, head in one["heads"].items()
            }
            for one in ledgers
        ]
    except (AttributeError, KeyError, TypeError, ValueError):
        raise ConfigurationError(
            "the report holds no heads of its ledgers, so the rows that it was built from cannot "
            "be found"
        ) from None


def _in_order(ledgers: Sequence[Ledger], names: Sequence[str]) -> list[Ledger]:
    if len(ledgers) != len(names):
        raise ConfigurationError(
            f"the report is about {len(names)} ledger(s), {', '.join(names) or 'none'}, and "
            f"{len(ledgers)} were given"
        )
    by_name = dict(zip(names_of(ledgers), ledgers, strict=True))
    return [by_name[name] for name in names] if set(by_name) == set(names) else list(ledgers)


def _values(held: Any) -> Any:
    """Return a part of the document with its numbers as numbers."""
    if isinstance(held, dict):
        return {key: _values(one) for key, one in held.items()}
    if isinstance(held, _Number):
        return int(held) if held.lstrip("-").isdigit() else float(held)
    return held


def _text(value: Any) -> str | None:
    if value is _NOTHING:
        return None
    return str(value) if isinstance(value, _Number) else shown(json.dumps(value), 80)


def _lines(path: Path, result: CheckResult) -> Iterator[str]:
    failed = [f"the ledger: {failure}" for failure in result.failures[:_SHOWN]]
    failed += [str(difference) for difference in result.differences[:_SHOWN]]
    found = len(result.differences) + len(result.failures)
    if found > len(failed):
        failed.append(f"{found - len(failed)} more")
    yield f"report {path}"
    yield from (f"FAILED: {line}" for line in failed)
    if result.later:
        yield f"{result.later} row(s) were appended to the ledger since, and are not in the report"
    if result.ok:
        yield f"the report is correct: every value follows from {result.rows} ledger rows"
    else:
        yield f"the report is not correct: {found} value(s) or row(s) do not match"
