"""Read emission factors that were published after the fact: a dated table, or a time series."""

from __future__ import annotations

import bisect
import csv
import io
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from greentrain.carbon.intensity import Interval
from greentrain.carbon.series import CsvIntensity
from greentrain.errors import ConfigurationError
from greentrain.units import in_utc

COLUMNS = ("applies_to", "from_utc", "until_utc", "g_per_kwh", "kind", "source")
KINDS = ("direct", "life-cycle", "upstream")
EVERYTHING = "*"
_EVER = (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC))


class DatedFactors:
    """The factors of one kind for one zone, run or name; times without one are unknown.

    Args:
        intervals: Its intervals, in any order.
        title: Its name in errors.

    Raises:
        ConfigurationError: If two intervals overlap.
    """

    def __init__(self, intervals: Iterable[Interval], title: str) -> None:
        self._intervals = sorted(intervals, key=lambda one: one.start)
        self._starts = [one.start for one in self._intervals]
        for one, following in pairwise(self._intervals):
            if following.start < one.end:
                raise ConfigurationError(
                    f"two factors of {title} hold at {following.start:%Y-%m-%d %H:%M} UTC; end the "
                    "first where the second begins"
                )

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the intervals that overlap ``[start, end)``."""
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        last = max(bisect.bisect_left(self._starts, end), first + 1)
        return [one for one in self._intervals[first:last] if one.end > start]


Factors = Mapping[str, Mapping[str, DatedFactors | CsvIntensity]]
"""Factors by kind, then by what they apply to."""


def read_factors(path: Path) -> Factors:
    """Read a table of factors with the columns :data:`COLUMNS`, or a file of `CsvIntensity`.

    ``applies_to`` is a zone, the name of a run or stream, the id of a run, or ``*``. ``from_utc``
    and ``until_utc`` are dates (midnight UTC) or times; an empty one is open. ``kind`` is one of
    :data:`KINDS`. A file without ``applies_to`` is a time series for everything.

    Raises:
        ConfigurationError: If the file cannot be read, or a row is not valid.
    """
    return parse_factors(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """Return the content of a file of factors.

    Raises:
        ConfigurationError: If it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"cannot read the factors {str(path)!r}: {error.strerror}"
        ) from None


def parse_factors(content: bytes, path: Path) -> Factors:
    """Read the bytes of a file as :func:`read_factors` does; the path is for errors."""
    try:
        text = content.decode("utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"cannot read the factors {str(path)!r}: {error}") from None
    header = [name.strip().lower() for name in (rows[0][1] if rows else [])]
    if len(header) == 1 and header[0].startswith("applies_to;"):
        raise ConfigurationError(
            f"the factors {str(path)!r} are separated by semicolons; separate them by commas, with "
            "a point in numbers"
        )
    if "applies_to" not in header:
        series = CsvIntensity(path, zone=EVERYTHING, content=content)
        return {series.provenance.basis: {EVERYTHING: series}}
    if sorted(header) != sorted(COLUMNS) or len(rows) < 2:
        raise ConfigurationError(
            f"the factors {str(path)!r} need the columns {', '.join(COLUMNS)}, separated by "
            f"commas, and a row or more; they have {', '.join(header)}"
        )
    found: dict[str, dict[str, list[Interval]]] = defaultdict(lambda: defaultdict(list))
    for line, row in rows[1:]:
        title = f"line {line} of {str(path)!r}"
        if len(row) != len(header):
            raise ConfigurationError(f"{title} has {len(row)} cells and its header {len(header)}")
        one = {name: cell.strip() for name, cell in zip(header, row, strict=True)}
        kind, about = one["kind"], one["applies_to"]
        if kind not in KINDS or not about or not one["source"]:
            raise ConfigurationError(
                f"{title}: kind is {kind!r} (allowed: {', '.join(KINDS)}), applies_to is "
                f"{about!r} and source {one['source']!r}; none of them may be empty"
            )
        found[kind][about].append(_interval(one, title))
    return {
        kind: {about: DatedFactors(held, f"{about!r} ({kind})") for about, held in by.items()}
        for kind, by in found.items()
    }


def _interval(one: Mapping[str, str], title: str) -> Interval:
    try:
        value = float(one["g_per_kwh"])
        start, end = (
            _utc(one[name]) if one[name] else ever
            for name, ever in zip(("from_utc", "until_utc"), _EVER, strict=True)
        )
    except ValueError as error:
        raise ConfigurationError(f"{title} holds something else: {error}") from None
    if not math.isfinite(value):
        raise ConfigurationError(f"{title}: g_per_kwh is {value}; give a number, 0 or more")
    try:
        return Interval(start=start, end=end, g_per_kwh=value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{title}: {error}") from None


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else in_utc(moment)
