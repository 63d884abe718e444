"""Read wall samples from a file that a logger appends to, or from a command."""

from __future__ import annotations

import csv
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Literal

from greentrain.errors import ConfigurationError, MeterError
from greentrain.units import J_PER_WH

Unit = Literal["J", "Wh", "kWh", "W"]
SCALES: dict[Unit, float] = {"J": 1.0, "Wh": J_PER_WH, "kWh": 1e3 * J_PER_WH, "W": 1.0}
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


def open_input(
    source: str | PathLike[str] | Sequence[str],
    *,
    unit: Unit | None,
    column: str | None,
    pattern: str | None,
    now: Callable[[], datetime],
    run: Callable[[Sequence[str]], str],
) -> FileInput | CommandInput:
    """Return the input for a source; the arguments are those of :class:`WallMeter`.

    Raises:
        ConfigurationError: If the source is neither a file nor a command, or an option is wrong or
            for the other kind of source.
    """
    if unit is not None and unit not in SCALES:
        raise ConfigurationError(
            f"unit is {unit!r}; allowed are {', '.join(SCALES)}, or None for a file whose column's "
            "name implies it"
        )
    if isinstance(source, (str, PathLike)):
        if pattern is not None:
            raise ConfigurationError(
                f"pattern is {pattern!r} and the source is the file {str(source)!r}; a pattern is "
                "for a command, give column= for a file"
            )
        return FileInput(Path(source), column=column, unit=unit)
    words = isinstance(source, Sequence) and all(isinstance(word, str) for word in source)
    if not words or not source:
        raise ConfigurationError(
            f"source is {source!r}; give the path of a CSV file, or a command as a list of texts"
        )
    if column is not None:
        raise ConfigurationError(
            f"column is {column!r} and the source is a command; a column is for a file, give "
            "pattern= for a command"
        )
    return CommandInput(source, unit=unit, pattern=pattern, now=now, run=run)


class FileInput:
    """Read what a logger has appended to a CSV file, each byte once.

    A file that was replaced or emptied is read from its header again.

    Args:
        path: The file.
        column: The column of samples; by default the one that is called ``energy_j``,
            ``energy_wh``, ``energy_kwh`` or ``power_w``.
        unit: Its unit; by default as the column's name implies.

    Attributes:
        unit: Unit of the samples; ``None`` until it is known.
        label: Name of the source for people.
        skipped: Reason why a sample was left out by the last poll; empty if none was.
    """

    def __init__(self, path: Path, *, column: str | None, unit: Unit | None) -> None:
        known = _COLUMNS.get(column.lower()) if column else None
        if column is not None and unit is None and known is None:
            raise ConfigurationError(
                f"column is {column!r} and its name implies no unit; give unit= as well, one of "
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
        """Return the samples of the rows that were appended.

        Raises:
            MeterError: If the source cannot be read now.
            ConfigurationError: If the source has another form.
        """
        first = self._file is None
        if first and not self._path.is_file():
            raise ConfigurationError(f"the file {str(self._path)!r} does not exist")
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                identity = (status.st_dev, status.st_ino)
                if identity != self._file or status.st_size < self._offset:  # it was replaced
                    self._file, self._offset, self._value = identity, 0, -1
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


class CommandInput:
    """Run a command that prints one sample; its time is the middle of the run.

    Attributes and errors are those of :class:`FileInput`.

    Args:
        arguments: The program and its arguments; no shell is involved.
        unit: The unit of the sample.
        pattern: A regular expression with one group, the number; by default the first separate
            number is read.
        now: Returns the present time in UTC.
        run: Runs the command and returns its output.
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
        self._pattern = None if pattern is None else _compiled(pattern)
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
    """Run a command without a shell, and return its output.

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


def _compiled(pattern: str) -> re.Pattern[str]:
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
