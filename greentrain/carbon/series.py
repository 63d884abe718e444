"""Read a time series of intensity from a CSV file."""

from __future__ import annotations

import bisect
import csv
import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path

from greentrain.carbon.intensity import Basis, Interval, Provenance, Signal
from greentrain.errors import ConfigurationError

_TIME_COLUMNS = ("datetime_utc", "utc time", "datetime (utc)", "time", "datetime")
_VALUE_COLUMNS = (
    "carbon_intensity_g_per_kwh",
    "carbon_intensity",
    "carbon intensity",
    "carbon intensity gco₂eq/kwh (life cycle)",
    "carbon intensity gco₂eq/kwh (lca)",
    "carbon intensity gco₂eq/kwh (direct)",
)


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
        basis: ``"life-cycle"`` or ``"direct"``.

    Raises:
        ConfigurationError: If the file is missing or has another form.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        zone: str,
        source: str | None = None,
        signal: Signal = "average",
        basis: Basis = "life-cycle",
    ) -> None:
        self._path = Path(path)
        self._intervals = _load(self._path)
        self._starts = [one.start for one in self._intervals]
        self._provenance = Provenance(
            source=source or self._path.name, zone=zone, data_year=None, signal=signal, basis=basis
        )

    @property
    def provenance(self) -> Provenance:
        """Origin of the values: the file, and the arguments that describe it."""
        return self._provenance

    def history(self, start: datetime, end: datetime) -> Sequence[Interval]:
        """Return the intervals that overlap ``[start, end)``; none outside the file."""
        if start.tzinfo is None or end.tzinfo is None:
            raise ConfigurationError("a history of intensity got a naive time; give it a zone")
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        last = max(bisect.bisect_left(self._starts, end), first + 1)
        return [one for one in self._intervals[first:last] if one.end > start]


def _load(path: Path) -> list[Interval]:
    if not path.is_file():
        raise ConfigurationError(f"the intensity file {str(path)!r} does not exist")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
        columns = {name.strip().lower(): name for name in (rows[0] if rows else {})}
        time = next((columns[name] for name in _TIME_COLUMNS if name in columns), None)
        value = next((columns[name] for name in _VALUE_COLUMNS if name in columns), None)
        if time is None or value is None or len(rows) < 2:
            raise ConfigurationError(
                f"the intensity file {str(path)!r} needs a column 'datetime_utc', a column "
                f"'carbon_intensity' in g/kWh, and two or more rows; it has {sorted(columns)}"
            )
        points = [(_utc(row[time]), float(row[value])) for row in rows]
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(
            f"the intensity file {str(path)!r} holds something else: {error}"
        ) from None
    if any(later[0] <= earlier[0] for earlier, later in itertools.pairwise(points)):
        raise ConfigurationError(f"the intensity file {str(path)!r} has times that do not increase")
    step: timedelta = points[-1][0] - points[-2][0]
    ends = [*(moment for moment, _ in points[1:]), points[-1][0] + step]
    return [
        Interval(start=moment, end=end, g_per_kwh=intensity)
        for (moment, intensity), end in zip(points, ends, strict=True)
    ]


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text.strip())
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
