"""A meter that replays recorded energy, so that a GPU's recording can be used without a GPU."""

from __future__ import annotations

import bisect
import csv
import itertools
import math
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path

from greentrain.energy.meter import Meter, Reading, Source
from greentrain.errors import ConfigurationError

TIME_COLUMN = "duration_s"


class ReplayMeter:
    r"""Replay a recorded CSV of cumulative joules.

    The file has a column ``duration_s`` and one column of cumulative joules per source; an empty
    cell is unknown. Between rows the joules are interpolated linearly; after the last row they are
    unknown.

    Args:
        path: The CSV file, as :func:`record` writes it.
        clock: Returns seconds.

    Raises:
        ConfigurationError: If the file is missing, or is no such recording.

    Example:
        >>> import tempfile, pathlib
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "trace.csv"
        >>> _ = path.write_text("duration_s,gpu:0\n0,0\n10,3000\n")
        >>> seconds = [0.0]
        >>> meter = ReplayMeter(path, clock=lambda: seconds[0])
        >>> meter.start()
        >>> seconds[0] = 5.0
        >>> meter.read().energy_j  # half of 3000 J
        {'gpu:0': 1500.0}
    """

    def __init__(
        self, path: str | PathLike[str], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._path = Path(path)
        self._times_s, self._energy_j = _load(self._path)
        self._clock = clock
        self._started_s: float | None = None

    @property
    def sources(self) -> tuple[Source, ...]:
        """One source of method ``"given"`` for each recorded column."""
        return tuple(
            Source(
                name=name,
                method="given",
                relative_uncertainty=None,
                note=f"replayed from {self._path.name}",
            )
            for name in self._energy_j
        )

    def start(self) -> None:
        """Begin at the recording's first row; harmless while it runs."""
        if self._started_s is None:
            self._started_s = self._clock()

    def read(self) -> Reading:
        """Return the recorded joules at this time."""
        elapsed_s = 0.0 if self._started_s is None else self._clock() - self._started_s
        at_s = self._times_s[0] + elapsed_s
        energy_j = {
            name: _difference(_interpolate(self._times_s, column, at_s), column[0])
            for name, column in self._energy_j.items()
        }
        return Reading(duration_s=elapsed_s, energy_j=energy_j)

    def close(self) -> None:
        """Stop; the next ``start`` begins at the first row."""
        self._started_s = None


def record(meter: Meter, path: str | PathLike[str], ticks: Callable[[], bool]) -> int:
    """Record a running meter into a CSV that :class:`ReplayMeter` replays.

    Args:
        meter: A started meter.
        path: The file to write.
        ticks: Called before each row; waits as long as wanted and returns ``True`` to continue.

    Returns:
        The number of rows written.
    """
    rows = 0
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        names = [source.name for source in meter.sources]
        writer.writerow([TIME_COLUMN, *names])
        while ticks():
            reading = meter.read()
            cells = [reading.energy_j.get(name) for name in names]
            writer.writerow([reading.duration_s, *("" if cell is None else cell for cell in cells)])
            rows += 1
    return rows


def _load(path: Path) -> tuple[list[float], dict[str, list[float | None]]]:
    if not path.is_file():
        raise ConfigurationError(f"the recording {str(path)!r} does not exist")
    try:
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = list(csv.reader(file)) or [[]]
        table = [[float(cell) if cell else None for cell in row] for row in rows]
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ConfigurationError(
            f"the recording {str(path)!r} holds something other than numbers: {error}"
        ) from None
    problem = _problem(header, table)
    if problem:
        raise ConfigurationError(f"the recording {str(path)!r} cannot be replayed: {problem}")
    times_s = [row[0] for row in table if row[0] is not None]
    return times_s, {name: [row[i] for row in table] for i, name in enumerate(header) if i > 0}


def _problem(header: list[str], table: list[list[float | None]]) -> str:
    """Return the problem of a recording in words; empty if there is none."""
    if header[:1] != [TIME_COLUMN] or len(header) < 2 or len(table) < 2:
        return (
            f"its header is {header}, and it needs a column {TIME_COLUMN!r}, one or more of "
            "joules, and two or more rows"
        )
    if "" in header or len(set(header)) < len(header):
        return "each column needs a unique name"
    if any(len(row) != len(header) for row in table):
        return "its rows are of unequal length"
    if not all(cell is None or math.isfinite(cell) for row in table for cell in row):
        return "it holds a number that is not finite"
    times_s, *columns = zip(*table, strict=True)
    if None in times_s or any(later <= earlier for earlier, later in itertools.pairwise(times_s)):
        return "its time does not always increase"
    for column in columns:
        known = [cell for cell in column if cell is not None]
        if any(later < earlier for earlier, later in itertools.pairwise(known)):
            return "its cumulative joules decrease"
    return ""


def _interpolate(times_s: list[float], column: list[float | None], at_s: float) -> float | None:
    after = bisect.bisect_left(times_s, at_s)
    if after >= len(times_s):
        return None
    if times_s[after] == at_s or after == 0:
        return column[after]
    low, high = column[after - 1], column[after]
    if low is None or high is None:
        return None
    share = (at_s - times_s[after - 1]) / (times_s[after] - times_s[after - 1])
    return low + share * (high - low)


def _difference(value: float | None, start: float | None) -> float | None:
    return None if value is None or start is None else value - start
