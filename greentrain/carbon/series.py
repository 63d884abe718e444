"""Read a time series of intensity from a CSV file."""

from __future__ import annotations

import bisect
import csv
import hashlib
import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import TypeVar

from greentrain.carbon.intensity import (
    Basis,
    Interval,
    Kind,
    Provenance,
    Signal,
    overlapping,
    utc_span,
)
from greentrain.errors import ConfigurationError
from greentrain.texts import short_repr
from greentrain.units import in_utc

T = TypeVar("T")
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
_FORECAST_COLUMNS = ("day_ahead_forecast_g_per_kwh", "forecast_g_per_kwh", "forecast")
_BOUNDS = ("low_g_per_kwh", "high_g_per_kwh")
_ISSUED = "issued_utc"
_ESTIMATED = "data estimated"
_NOTHING = ("", "nan", "none", "null")


class CsvIntensity:
    """Intensities from a CSV file, each held until the next one (no interpolation).

    The time is in UTC, in a column ``datetime_utc``, ``UTC time``, ``Datetime (UTC)`` or ``Time``;
    the value in g/kWh, in a column ``carbon_intensity`` or as Electricity Maps names it. The last
    value holds as long as the one before it did.

    A column ``forecast`` or ``day_ahead_forecast_g_per_kwh`` has the forecasts. Each counts as
    known from the time in a column ``issued_utc`` on, or else from the beginning of its UTC day.
    With forecasts, an empty value is unknown, such as one that is still to come.
    Columns ``low_g_per_kwh`` and ``high_g_per_kwh`` have bounds: of the forecast if there is one,
    or else of the value. ``Data Estimated`` of Electricity Maps says which values are estimated.

    Args:
        path: The file.
        zone: Zone of the intensity.
        source: Publisher of the data; by default the file's name.
        signal: ``"average"`` or ``"marginal"``.
        basis: ``"life-cycle"`` or ``"direct"``. By default as the name of the column says, and
            ``"life-cycle"`` if it says nothing. Of two columns, the one of this basis is read.
        licence: Licence of the data, if you want to record it.
        content: Bytes of the file, if they were read already.

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
        licence: str | None = None,
        content: bytes | None = None,
    ) -> None:
        self._path = Path(path)
        table = _Table(self._path, basis, content)
        self._provenance = Provenance(
            source=source or self._path.name,
            zone=zone,
            data_year=None,
            signal=signal,
            basis=table.basis,
            licence=licence,
            sha256=table.sha256,
        )
        self._intervals = table.values(self._provenance)
        self._forecasts = table.forecasts(self._provenance)
        self._starts = [one.start for one in self._intervals]

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
        start, end = utc_span(start, end)
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        last = max(bisect.bisect_left(self._starts, end), first + 1)
        return [one for one in self._intervals[first:last] if one.end > start]

    def forecast(self, as_of: datetime, horizon: timedelta) -> Sequence[Interval]:
        """Return the forecasts that were known at ``as_of``; none without a column of forecasts."""
        start, end = utc_span(as_of, as_of + horizon, "a forecast")
        known = [one for issued, one in self._forecasts if issued <= start]
        return overlapping(known, start, end)


class _Table:
    """The rows of a file, and the columns that are used.

    Attributes:
        basis: The basis of the values.
        sha256: SHA-256 of the file's bytes.
    """

    basis: Basis

    def __init__(self, path: Path, basis: Basis | None, content: bytes | None = None) -> None:
        title = self._title = f"the intensity file {str(path)!r}"
        if content is None:
            if not path.is_file():
                raise ConfigurationError(f"{title} does not exist")
            content = path.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            text = content.decode("utf-8-sig")
            reader = csv.reader(io.StringIO(text, newline=""))
            rows = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
        except (UnicodeDecodeError, csv.Error) as error:
            raise ConfigurationError(
                f"{title} is no CSV file in UTF-8 ({error}); save it as one"
            ) from None
        header = [name.strip().lower().replace("₂", "2") for name in (rows[0][1] if rows else [])]
        time = next((name for name in _TIME_COLUMNS if name in header), None)
        named = [name for name in _VALUE_COLUMNS if name in header]
        if time is None or not named or len(rows) < 3:
            raise ConfigurationError(
                f"{title} needs a column 'datetime_utc', a column 'carbon_intensity' in g/kWh, "
                f"separated by commas, and two or more rows; it has {sorted(header)}"
            )
        fitting = [name for name in named if basis in (None, _VALUE_COLUMNS[name] or basis)]
        # A column that names the basis is before one that names none.
        fitting.sort(key=lambda name: basis is not None and _VALUE_COLUMNS[name] is None)
        if not fitting:
            raise ConfigurationError(
                f"basis is {basis!r}, and {title} has only the column {named[0]!r}; omit basis or "
                "give another file"
            )
        self._value = fitting[0]
        self.basis = basis or _VALUE_COLUMNS[self._value] or "life-cycle"
        self._forecast = next((name for name in _FORECAST_COLUMNS if name in header), None)
        self._rows = [self._row(header, line, row) for line, row in rows[1:]]
        self._times = [self._cell(row, time, _utc) for row in self._rows]
        if any(later <= earlier for earlier, later in itertools.pairwise(self._times)):
            number = next(
                n for n, (one, two) in enumerate(itertools.pairwise(self._times), 1) if two <= one
            )
            raise ConfigurationError(
                f"{title} has times that do not increase, at line {self._rows[number]['']}; write "
                "each time once, in order and in UTC"
            )
        try:
            last = self._times[-1] + (self._times[-1] - self._times[-2])
        except OverflowError:
            raise ConfigurationError(
                f"{title} ends at {self._times[-1]}, and its end is beyond the year 9999; "
                "write the times of its values"
            ) from None
        self._ends = [*self._times[1:], last]

    def values(self, provenance: Provenance) -> list[Interval]:
        """Return the known values, each with its origin if the file says that it is estimated."""
        return [
            self._interval(number, value, provenance, bounds=self._forecast is None)
            for number, value in self._numbers(self._value)
        ]

    def forecasts(self, provenance: Provenance) -> list[tuple[datetime, Interval]]:
        """Return the forecasts, each with the time from which it counts as known."""
        found = []
        for number, value in self._numbers(self._forecast) if self._forecast is not None else ():
            row, start = self._rows[number], self._times[number]
            issued = (
                self._cell(row, _ISSUED, _utc)
                if row.get(_ISSUED, "").strip()
                else start.replace(hour=0, minute=0, second=0, microsecond=0)
            )
            origin = replace(provenance, kind="forecast", issued_utc=issued.isoformat())
            found.append((issued, self._interval(number, value, origin, bounds=True)))
        return found

    def _numbers(self, column: str) -> list[tuple[int, float]]:
        """Return the number of each row that has a value in a column, and the value."""
        optional = self._forecast is not None or column != self._value
        return [
            (number, self._cell(row, column, float))
            for number, row in enumerate(self._rows)
            if not (optional and row[column].strip().lower() in _NOTHING)
        ]

    def _interval(
        self, number: int, value: float, provenance: Provenance, *, bounds: bool
    ) -> Interval:
        row = self._rows[number]
        low, high = (
            self._cell(row, name, float) if bounds and row.get(name, "").strip() else None
            for name in _BOUNDS
        )
        estimated = row.get(_ESTIMATED, "").strip().lower()
        if provenance.kind is None and estimated in ("true", "false"):
            kind: Kind = "estimated" if estimated == "true" else "measured"
            provenance = replace(provenance, kind=kind)
        try:
            return Interval(
                start=self._times[number],
                end=self._ends[number],
                g_per_kwh=value,
                low_g_per_kwh=low,
                high_g_per_kwh=high,
                provenance=None if provenance.kind is None else provenance,
            )
        except ConfigurationError as error:
            raise ConfigurationError(
                f"line {row['']} of {self._title} has no intensity: {error}"
            ) from None

    def _row(self, header: list[str], line: int, row: list[str]) -> dict[str, str]:
        if len(row) != len(header):
            raise ConfigurationError(
                f"line {line} of {self._title} has {len(row)} cell(s) and its header "
                f"{len(header)}; write one value for each column, without a comma at the end"
            )
        return {**dict(zip(header, row, strict=True)), "": str(line)}

    def _cell(self, row: dict[str, str], column: str, read: Callable[[str], T]) -> T:
        text = row[column]
        try:
            return read(text)
        except ValueError as error:
            what = "a time in UTC such as 2026-12-01T08:00" if read is _utc else "a number in g/kWh"
            more = f" ({error})" if isinstance(error, ConfigurationError) else ""
            raise ConfigurationError(
                f"line {row['']} of {self._title} has {short_repr(text)} in the column {column!r}"
                f"{more}; write {what}"
            ) from None


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else in_utc(moment)
