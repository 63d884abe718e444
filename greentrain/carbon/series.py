"""Read a time series of intensity from a CSV file."""

from __future__ import annotations

import bisect
import csv
import io
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path

from greentrain.carbon.intensity import Basis, Interval, Provenance, Signal
from greentrain.errors import ConfigurationError
from greentrain.units import in_utc

_TIME_COLUMNS = ("datetime_utc", "utc time", "datetime (utc)", "time", "datetime")
_VALUE_COLUMNS: dict[str, Basis | None] = {
    "carbon_intensity_g_per_kwh": None,
    "carbon_intensity": None,
    "carbon intensity": None,
    "carbon intensity gco2eq/kwh (life cycle)": "life-cycle",
    "carbon intensity gco2eq/kwh (lca)": "life-cycle",
    "carbon intensity gco2eq/kwh (direct)": "direct",
}
"""Columns of values, and the basis that a column's name states."""


class CsvIntensity:
    """Intensities from a CSV file, each held until the next one (no interpolation).

    The time is in UTC, in a column ``datetime_utc``, ``UTC time``, ``Datetime (UTC)`` or ``Time``;
    the value in g/kWh, in a column ``carbon_intensity`` or as Electricity Maps names it. The last
    value holds as long as the one before it did.

    Args:
        path: The file.
        zone: Zone of the intensity.
        source: Publisher of the data; by default the file's name.
        signal: ``"average"`` or ``"marginal"``.
        basis: ``"life-cycle"`` or ``"direct"``. By default as the name of the column says, and
            ``"life-cycle"`` if it says nothing. Of two columns, the one of this basis is read.
        text: The contents of the file, if they were read already.

    Raises:
        ConfigurationError: If the file is missing or has another form, or its column is of another
            basis than the given one.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        zone: str,
        source: str | None = None,
        signal: Signal = "average",
        basis: Basis | None = None,
        text: str | None = None,
    ) -> None:
        self._path = Path(path)
        text = _text(self._path) if text is None else text
        self._intervals, basis = _load(self._path, text, basis)
        self._starts = [one.start for one in self._intervals]
        self._provenance = Provenance(
            source=source or self._path.name, zone=zone, data_year=None, signal=signal, basis=basis
        )

    def __eq__(self, other: object) -> bool:
        """Return whether both have the same values and description."""
        return isinstance(other, CsvIntensity) and (self._intervals, self._provenance) == (
            other._intervals,
            other._provenance,
        )

    def __hash__(self) -> int:
        return hash(self._provenance)

    @property
    def provenance(self) -> Provenance:
        """Origin of the values: the file, and the arguments that describe it."""
        return self._provenance

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the intervals that overlap ``[start, end)``; none outside the file."""
        if start.tzinfo is None or end.tzinfo is None:
            raise ConfigurationError("a history of intensity got a naive time; give it a zone")
        start, end = start.astimezone(UTC), end.astimezone(UTC)
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        last = max(bisect.bisect_left(self._starts, end), first + 1)
        return [one for one in self._intervals[first:last] if one.end > start]


def _text(path: Path) -> str:
    if not path.is_file():
        raise ConfigurationError(f"the intensity file {str(path)!r} does not exist")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"the intensity file {str(path)!r} holds something else: {error}"
        ) from None


def _load(path: Path, text: str, basis: Basis | None) -> tuple[list[Interval], Basis]:
    title = f"the intensity file {str(path)!r}"
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ConfigurationError(f"{title} holds something else: {error}") from None
    header = [name.strip().lower().replace("₂", "2") for name in (rows[0][1] if rows else [])]
    time = next((header.index(name) for name in _TIME_COLUMNS if name in header), None)
    values = [name for name in _VALUE_COLUMNS if name in header]
    if time is None or not values or len(rows) < 3:
        raise ConfigurationError(
            f"{title} needs a column 'datetime_utc', a column 'carbon_intensity' in g/kWh, "
            f"separated by commas, and two or more rows; it has {sorted(header)}"
        )
    fitting = [name for name in values if basis in (None, _VALUE_COLUMNS[name] or basis)]
    # A column that names the basis is before one that names none.
    fitting.sort(key=lambda name: basis is not None and _VALUE_COLUMNS[name] is None)
    if not fitting:
        raise ConfigurationError(
            f"basis is {basis!r}, and {title} has only the column {values[0]!r}; omit basis or "
            "give another file"
        )
    value = header.index(fitting[0])
    points = [_point(title, header, line, row, time, value) for line, row in rows[1:]]
    if any(later[0] <= earlier[0] for earlier, later in itertools.pairwise(points)):
        raise ConfigurationError(f"{title} has times that do not increase")
    step: timedelta = points[-1][0] - points[-2][0]
    ends = [*(moment for moment, _ in points[1:]), points[-1][0] + step]
    try:
        intervals = [
            Interval(start=moment, end=end, g_per_kwh=intensity)
            for (moment, intensity), end in zip(points, ends, strict=True)
        ]
    except ConfigurationError as error:
        raise ConfigurationError(f"{title} holds something else: {error}") from None
    return intervals, basis or _VALUE_COLUMNS[fitting[0]] or "life-cycle"


def _point(
    title: str, header: list[str], line: int, row: list[str], time: int, value: int
) -> tuple[datetime, float]:
    """Read the time and the value of a row."""
    if len(row) != len(header):
        raise ConfigurationError(
            f"line {line} of {title} has {len(row)} cell(s) and its header {len(header)}; write "
            "one value for each column, without a comma at the end"
        )
    try:
        return _utc(row[time]), float(row[value])
    except ValueError as error:
        raise ConfigurationError(f"line {line} of {title} holds something else: {error}") from None


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else in_utc(moment)
