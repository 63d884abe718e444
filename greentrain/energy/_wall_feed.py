"""Where readings at the wall come from: a file that a logger appends to, or a command."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal, Protocol

from greentrain.errors import ConfigurationError, MeterError
from greentrain.units import J_PER_WH

Unit = Literal["J", "Wh", "kWh", "W"]
SCALES: dict[str, float] = {"J": 1.0, "Wh": J_PER_WH, "kWh": 1e3 * J_PER_WH, "W": 1.0}
"""Joules in one of each unit of energy; watts stay watts."""
TIMEOUT_S = 10.0
"""Seconds after which a command counts as failed."""

_COLUMNS: dict[str, Unit] = {
    "energy_j": "J",
    "energy_wh": "Wh",
    "energy_kwh": "kWh",
    "power_w": "W",
}
_TIMES = ("datetime_utc", "unix_s")
# A number that begins a word, and what follows without a space: a unit, or more of a date.
_NUMBER = re.compile(
    r"(?<![\w.,:/-])([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)([.,:/-]\d.*|[A-Za-z%]*)(?!\w)"
)

Sample = tuple[float, float]
"""Seconds since 1970 in UTC, and joules of a counter or watts."""


class Feed(Protocol):
    """Gives the readings that came since it was last asked.

    Attributes:
        unit: What the readings are in; ``None`` until it is known.
        label: Where they come from, for people.
        skipped: What was wrong with a reading that was left out just now; empty if none was.
    """

    unit: Unit | None
    label: str
    skipped: str

    def poll(self) -> list[Sample]:
        """Return the new readings.

        Raises:
            MeterError: If the source cannot be read now.
            ConfigurationError: If what it gives is of another form.
        """
        ...


class FileFeed:
    """Read what a logger has appended to a CSV file, each byte once.

    A file that was replaced or emptied is read from its header again.

    Args:
        path: The file.
        column: The column of readings; by default the one that is called ``energy_j``,
            ``energy_wh``, ``energy_kwh`` or ``power_w``.
        unit: Its unit; by default as the column's name says.
    """

    def __init__(self, path: Path, *, column: str | None, unit: Unit | None) -> None:
        known = _COLUMNS.get(column.lower()) if column else None
        if column is not None and unit is None and known is None:
            raise ConfigurationError(
                f"column is {column!r} and its name tells no unit; give unit= as well, one of "
                f"{', '.join(SCALES)}"
            )
        self.unit = unit or known
        self.label = path.name
        self.skipped = ""
        self._path = path
        self._column = column
        self._file: tuple[int, int] | None = None
        self._offset = 0
        self._time = self._value = -1
        self._in_seconds = False

    def poll(self) -> list[Sample]:
        """Return the readings of the rows that were appended."""
        first = self._file is None
        if first and not self._path.is_file():
            raise ConfigurationError(f"the file {str(self._path)!r} does not exist")
        try:
            with self._path.open("rb") as file:
                self._begin_again_if_replaced(os.fstat(file.fileno()))
                file.seek(self._offset)
                data = file.read()
        except OSError as error:
            raise MeterError(f"the file {str(self._path)!r} cannot be read: {error}") from None
        data = data[: data.rfind(b"\n") + 1]  # a row counts once its line has ended
        self._offset += len(data)
        self.skipped = ""
        lines = data.decode("utf-8", errors="replace").splitlines()
        if lines and self._value < 0:
            self._read_header(lines.pop(0))
        if first and self._value < 0:
            raise ConfigurationError(f"the file {str(self._path)!r} has no header yet")
        return list(self._samples(lines))

    def _begin_again_if_replaced(self, status: os.stat_result) -> None:
        file = (status.st_dev, status.st_ino)
        if file != self._file or status.st_size < self._offset:
            self._file, self._offset, self._value = file, 0, -1

    def _read_header(self, line: str) -> None:
        names = [name.strip().lower() for name in next(csv.reader([line.lstrip("\ufeff")]), [])]
        times = [name for name in _TIMES if name in names]
        if self._column is not None:
            values = [name for name in names if name == self._column.lower()]
        else:
            units = {self.unit} if self.unit else {*SCALES}
            values = [name for name in names if _COLUMNS.get(name) in units]
        if not times or len(values) != 1:
            wanted = repr(self._column) if self._column else f"one of {', '.join(_COLUMNS)}"
            raise ConfigurationError(
                f"the file {str(self._path)!r} has the columns {names}; it needs "
                f"{' or '.join(_TIMES)}, and {wanted}: name the column of readings with column= "
                "where there are several"
            )
        self._time, self._in_seconds = names.index(times[0]), times[0] == "unix_s"
        self.unit = self.unit or _COLUMNS[values[0]]
        self._value = names.index(values[0])

    def _samples(self, lines: list[str]) -> Iterator[Sample]:
        scale = SCALES[self.unit or "J"]
        for line in lines:
            try:
                row = next(csv.reader([line]), [])
                if row and row[self._value].strip():
                    at_s, value = self._seconds(row[self._time]), float(row[self._value])
                    yield _checked(at_s, value * scale)
            except (IndexError, ValueError, csv.Error) as error:
                self.skipped = f"a row of {str(self._path)!r} was left out, {line[:80]!r}: {error}"

    def _seconds(self, text: str) -> float:
        if self._in_seconds:
            return float(text)
        moment = datetime.fromisoformat(text.strip())
        if moment.tzinfo is None:
            raise ValueError("its time is naive; write it with a zone, such as +00:00 or Z")
        return moment.timestamp()


class CommandFeed:
    """Run a command that prints a reading; its time is the middle of the run.

    Args:
        arguments: The program and its arguments; no shell is involved.
        unit: The unit of the reading.
        pattern: A regular expression with one group, the number; by default the first number that
            stands by itself.
        now: Gives the present time in UTC.
        run: Runs the command and returns what it printed.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        unit: Unit | None,
        pattern: str | None,
        now: Callable[[], datetime],
        run: Callable[[Sequence[str]], str],
    ) -> None:
        if unit is None:
            raise ConfigurationError(
                f"a command's reading needs a unit; allowed are {', '.join(SCALES)}"
            )
        self.unit: Unit | None = unit
        self.label = Path(arguments[0]).name  # what follows it may hold a password
        self.skipped = ""
        self._arguments = list(arguments)
        self._pattern = _compiled(pattern)
        self._scale = SCALES[unit]
        self._now = now
        self._run = run

    def poll(self) -> list[Sample]:
        """Run the command once."""
        before_s = self._now().timestamp()
        text = self._run(self._arguments)
        at_s = 0.5 * (before_s + self._now().timestamp())
        try:
            return [_checked(at_s, self._number(text) * self._scale)]
        except ValueError as error:
            raise MeterError(f"{self.label} printed {text.strip()[:80]!r}: {error}") from None

    def _number(self, text: str) -> float:
        if self._pattern is not None:
            found = self._pattern.search(text)
            if found is None:
                raise ValueError(f"nothing matches the pattern {self._pattern.pattern!r}")
            return float(found[1])
        found = _NUMBER.search(text)
        if found is None:
            raise ValueError("there is no number in it")
        if found[2] and found[2].lower() != str(self.unit).lower():
            raise ValueError(
                f"the first number is followed by {found[2][:20]!r}; say with pattern= which "
                f"number is in {self.unit}"
            )
        return float(found[1])


def run_command(arguments: Sequence[str]) -> str:
    """Run a command without a shell, and return what it printed.

    Raises:
        MeterError: If it cannot be started, fails, or takes more than ten seconds.
    """
    name = Path(arguments[0]).name
    try:
        done = subprocess.run(
            arguments,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MeterError(f"{name} took longer than {TIMEOUT_S:g} s") from None
    except OSError as error:
        raise MeterError(f"{name} cannot be started: {error.strerror}") from None
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["and said nothing"]
        raise MeterError(f"{name} failed with exit code {done.returncode}: {said[-1][:200]}")
    return done.stdout


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ConfigurationError(
            f"pattern is {pattern!r}, which is no regular expression: {error}"
        ) from None
    if compiled.groups != 1:
        raise ConfigurationError(
            f"pattern is {pattern!r} with {compiled.groups} groups; it needs one, the number"
        )
    return compiled


def _checked(at_s: float, value: float) -> Sample:
    if not (math.isfinite(at_s) and math.isfinite(value) and value >= 0):
        raise ValueError("time and reading have to be finite, the reading 0 or more")
    return at_s, value
