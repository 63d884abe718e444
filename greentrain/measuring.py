"""Measure what is no training: preparing data, searching, whole commands, into the same ledger."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Any

from greentrain.carbon import UNKNOWN, CarbonAccount, Emissions, IntensityProvider
from greentrain.energy import NOTHING, Meter, Reading, Source, Window, WindowRecorder, detect
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import DEFAULT_URL, Ledger, RunLog, environment
from greentrain.units import format_energy

_log = logging.getLogger(__name__)

HEARTBEAT_S = 10.0
"""What a block that is killed may lose, in seconds."""

# What may be over when the block ends; anything else that is wrong with a ledger is there to stay.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")

_around: ContextVar[WindowRecorder | None] = ContextVar("greentrain_measure", default=None)


class Measurement:
    """What one use of :func:`measure` found.

    Args:
        name: What was measured.

    Attributes:
        reading: Seconds and joules by source; nothing until the block has ended.
        emissions: Grams of it; unknown until then, and where no zone was given.
        sources: The metered things; none until the block has ended.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reading: Reading = NOTHING
        self.emissions: Emissions = UNKNOWN
        self.sources: tuple[Source, ...] = ()

    def __str__(self) -> str:
        """Return one line for people: watt-hours, grams, seconds, and each source's method."""
        reading = self.reading
        drawn = format_energy(reading.total_j)
        if reading.total_j is None:
            drawn = "an unknown energy"
        elif not reading.complete:
            drawn = f"at least {drawn}"
        if self.emissions.grams is not None:
            drawn += f" and {self.emissions.grams:.3g} g CO2e"
        parts = ", ".join(
            f"{source.name} {format_energy(reading.energy_j.get(source.name))} ({source.method})"
            for source in self.sources
        )
        return f"{self.name} drew {drawn} in {reading.duration_s:.2f} s: {parts or 'no source'}"


@contextlib.contextmanager
def measure(
    name: str,
    *,
    ledger: str = DEFAULT_URL,
    meter: Meter | None = None,
    zone: str | None = None,
    intensity: IntensityProvider | None = None,
    pue: float | None = None,
    pue_source: str | None = None,
) -> Iterator[Measurement]:
    """Measure a block, or each call of a function, as a run of its own in the ledger.

    One use is one run of kind ``"measure"`` with one window, closed as completed, or as failed if
    the block raises. A use inside another interrupts it: the joules of the inner one are in its own
    run only, so the runs add up. Whatever else measures meanwhile (an ``EnergyMonitor`` in the
    block, another thread, another process) counts the whole machine again.

    A meter or a ledger that fails is warned of and never stops the block. The database is not held
    open meanwhile, so the block may fork. What was drawn so far is written every ten seconds: no
    more is lost if the process is killed.

    Args:
        name: What people call it.
        ledger: URL of the ledger; a missing one is created.
        meter: Where joules come from. It stays the caller's: it is started if it does not run, and
            left running. By default that of the use around this one, else the best that this
            machine has, closed at the end.
        zone: Where this machine gets its power, such as ``"DE"``; without it no grams are claimed.
        intensity: A provider of carbon intensities, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        pue_source: Where the PUE comes from.

    Yields:
        A :class:`Measurement`, whose ``reading`` is there after the block.

    Raises:
        ConfigurationError: If the ledger's URL, zone, intensity or PUE cannot be used, or the meter
            asks for what is not there; before the block starts.
        LedgerError: If the file is no ledger or cannot be written; before the block starts.

    Example:
        >>> import tempfile
        >>> from greentrain.energy import ConstantMeter
        >>> url = f"sqlite:///{tempfile.mkdtemp()}/greentrain.db"
        >>> seconds = [0.0]
        >>> meter = ConstantMeter(100.0, clock=lambda: seconds[0])
        >>> with measure("prepare data", ledger=url, meter=meter) as measured:
        ...     seconds[0] = 36.0
        >>> print(measured)  # 100 W for 36 s
        prepare data drew 1 Wh in 36.00 s: constant 1 Wh (given)
    """
    measured = Measurement(name)
    carbon = CarbonAccount(zone=zone, intensity=intensity, pue=pue, pue_source=pue_source)
    record = _Record(name, ledger)
    try:
        with _recorder(meter) as recorder:
            depth = recorder.depth
            record.open(
                carbon,
                sources=lambda: recorder.meter.sources,
                beat=lambda: recorder.open_windows()[depth : depth + 1],
            )
            recorder.enter("measure")
            try:
                yield measured
                record.status = "completed"
            finally:
                window = recorder.leave()
                measured.reading = window.reading
                measured.sources = _sources(recorder.meter)
                measured.emissions = record.window(window, carbon)
    finally:
        record.close()


def run_command(
    command: Sequence[str],
    *,
    name: str | None = None,
    **options: Any,
) -> tuple[Measurement, int]:
    """Run a command with this process's input and output, and measure it.

    SIGTERM and SIGINT are handed on to the command, and its end is waited for. A command that does
    not return 0 is a failed run.

    Args:
        command: The command and its arguments.
        name: What people call it; by default the command's file name alone.
        **options: As for :func:`measure`.

    Returns:
        What was measured, and the exit code: 128 plus its number for a command that a signal ended.

    Raises:
        OSError: If the command cannot be started.
        ConfigurationError: As for :func:`measure`.
        LedgerError: As for :func:`measure`.
    """
    if shutil.which(command[0]) is None:  # a slip of the pen leaves no run behind
        raise FileNotFoundError("no such command, or it is not executable")
    code = 0
    with (
        # A code other than 0 is no error of ours: it only has to reach the ledger.
        contextlib.suppress(subprocess.CalledProcessError),
        measure(name or Path(command[0]).name, **options) as measured,
    ):
        with _Relay() as relay:
            process = subprocess.Popen(command)
            relay.begin(process)
            code = process.wait()
        if code != 0:
            raise subprocess.CalledProcessError(code, command[0])
    return measured, code if code >= 0 else 128 - code


class _Record:
    """A run in the ledger; what goes wrong once it is open is warned of, once, and stops nothing.

    Args:
        name: The run's name.
        url: The ledger's URL.
    """

    def __init__(self, name: str, url: str) -> None:
        self.status = "failed"
        self._name = name
        self._ledger: Ledger | None = None
        self._run: RunLog | None = None
        self._warned = False
        try:
            self._ledger = Ledger(url, keep_open=False)
        except LedgerError as error:
            trouble = getattr(error.__cause__, "orig", None)
            if not getattr(trouble, "sqlite_errorname", "").startswith(_PASSING):
                raise
            self._warn(error)

    def open(
        self,
        carbon: CarbonAccount,
        *,
        sources: Callable[[], Iterable[Source]],
        beat: Callable[[], Iterable[Window]],
    ) -> None:
        with self._trying():
            if self._ledger is not None:
                self._run = self._ledger.open_run(
                    "measure",
                    self._name,
                    environment={**environment(), "carbon": carbon.as_dict()},
                    sources=sources,
                    beat=beat,
                    emissions=carbon.of,
                    heartbeat_s=HEARTBEAT_S,
                )

    def window(self, window: Window, carbon: CarbonAccount) -> Emissions:
        emissions = UNKNOWN
        with self._trying():
            emissions = carbon.of(window)
        with self._trying():
            if self._run is not None:
                self._run.record(window, emissions)
        return emissions

    def close(self) -> None:
        with self._trying():
            if self._run is not None:
                self._run.close(self.status)
        with self._trying():
            if self._ledger is not None:
                self._ledger.close()

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whoever measures must not stop what is measured
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("the run %r is not recorded as it should be: %s", self._name, error)


class _NoMeter:
    """Stands in where no meter can be started: seconds are known, joules are not."""

    sources: tuple[Source, ...] = ()

    def __init__(self) -> None:
        self._started_s = time.monotonic()

    def start(self) -> None:
        pass

    def read(self) -> Reading:
        elapsed_s = time.monotonic() - self._started_s
        return Reading(duration_s=elapsed_s, energy_j={"unknown": None})

    def close(self) -> None:
        pass


@contextlib.contextmanager
def _recorder(given: Meter | None) -> Iterator[WindowRecorder]:
    """Give the recorder of the use around this one if the meter is the same, else a new one."""
    around = _around.get()
    if around is not None and (given is None or given is around.meter):
        yield around
        return
    recorder = WindowRecorder(_started(given))
    _around.set(recorder)
    try:
        yield recorder
    finally:
        _around.set(around)
        if given is None:
            try:
                recorder.meter.close()
            except Exception as error:  # the block's own outcome stands
                _log.warning("the meter could not be closed: %s", error)


def _sources(meter: Meter) -> tuple[Source, ...]:
    try:
        return meter.sources
    except Exception as error:  # the block's own outcome stands
        _log.warning("the sources of the meter are not known: %s", error)
        return ()


def _started(given: Meter | None) -> Meter:
    try:
        if given is None:
            return detect()
        given.start()
        return given
    except ConfigurationError:
        raise
    except Exception as error:  # a failing meter never stops the block
        _log.warning("nothing is measured, because the meter cannot be started: %s", error)
        return _NoMeter()


class _Relay:
    """Hands SIGTERM and SIGINT on to a process; one that comes before it has one, once it has."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[Any] | None = None
        self._early: list[int] = []
        self._previous: dict[int, Any] = {}

    def begin(self, process: subprocess.Popen[Any]) -> None:
        self._process = process
        for number in self._early:
            process.send_signal(number)

    def __enter__(self) -> _Relay:
        for number in (signal.SIGINT, signal.SIGTERM):
            if (
                signal.getsignal(number) != signal.SIG_IGN
            ):  # as under nohup: the command inherits it
                self._previous[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self._process is None:
            self._early.append(number)
        elif number != signal.SIGINT or not _at_the_terminal():
            self._process.send_signal(number)


def _at_the_terminal() -> bool:
    """Tell whether Ctrl-C reaches this process's group, and so the command, by itself."""
    try:
        with Path("/dev/tty").open("rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:  # there is no terminal
        return False
