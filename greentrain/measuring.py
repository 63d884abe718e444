"""Measure work other than training, such as data preparation or a command, into the ledger."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from greentrain.carbon import UNKNOWN, CarbonAccount, Emissions, IntensityProvider
from greentrain.energy import (
    NOTHING,
    EnergyTotal,
    Meter,
    Reading,
    Source,
    WindowRecorder,
    check_meter,
    close_meter,
    energy_html,
    start_meter,
)
from greentrain.errors import LedgerError
from greentrain.ledger import DEFAULT_URL, Ledger, RunLog, environment
from greentrain.naming import check_name, check_tag
from greentrain.texts import get_logger
from greentrain.units import format_carbon, format_energy

_log = get_logger(__name__)

HEARTBEAT_S = 10.0
"""Most seconds of measurement that a killed block loses."""

# Faults that may be over when the block ends. Any other fault of a ledger is permanent.
_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR")

_outer: ContextVar[WindowRecorder | None] = ContextVar("greentrain_measure", default=None)


class Measurement(EnergyTotal):
    """The result of one use of :func:`measure`.

    Args:
        name: Name of the measured work.

    Attributes:
        reading: Seconds, and joules by source; empty until the block has ended.
        emissions: Grams of CO2 equivalent; unknown until then, and without a zone.
        sources: The metered devices; empty until the block has ended.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.reading: Reading = NOTHING
        self.emissions: Emissions = UNKNOWN
        self.sources: tuple[Source, ...] = ()

    @property
    def total_j(self) -> float | None:
        """Joules of all measured sources; ``None`` if there is none."""
        return self.reading.total_j

    @property
    def emissions_g(self) -> float | None:
        """Grams of CO2 equivalent; ``None`` if unknown."""
        return self.emissions.grams

    def _repr_html_(self) -> str:
        methods = {source.name: source.method for source in self.sources}
        title = f"{self.name}: {self.reading}"
        grams = self.emissions_g
        return energy_html(title, self.reading.energy_j, methods=methods, grams=grams)

    def __str__(self) -> str:
        """Return one line with energies, grams, seconds and the method of each source."""
        reading = self.reading
        used = format_energy(reading.total_j)
        if reading.total_j is None:
            used = "an unknown energy"
        elif not reading.complete:
            used = f"at least {used}"
        if self.emissions.grams is not None:
            used += f" and emitted {format_carbon(self.emissions.grams)}"
        parts = ", ".join(
            f"{source.name} {format_energy(reading.energy_j.get(source.name))} ({source.method})"
            for source in self.sources
        )
        return f"{self.name} used {used} in {reading.duration_s:.2f} s: {parts or 'no source'}"


@contextmanager
def measure(
    name: str,
    *,
    ledger: str = DEFAULT_URL,
    meter: Meter | None = None,
    zone: str | None = None,
    intensity: IntensityProvider | str | None = None,
    pue: float | None = None,
    pue_source: str | None = None,
    market_intensity: float | IntensityProvider | None = None,
    team: str | None = None,
    project: str | None = None,
) -> Iterator[Measurement]:
    """Measure a block, or each call of a function, as a separate run in the ledger.

    One use is one run of kind ``"measure"`` with one window, closed as completed, or as failed if
    the block raises. A use inside another interrupts it: the joules of the inner use are in its
    run only, so the runs add up. Other measurements at the same time (an ``EnergyMonitor`` in the
    block, another thread, another process) count the whole machine again.

    A failing meter or ledger logs a warning and never stops the block. The database is not held
    open during the block, so the block may fork. The energy used so far is written every ten
    seconds: a killed process loses no more than that.

    Args:
        name: Name of the run.
        ledger: URL of the ledger; a missing one is created.
        meter: The source of joules. It remains the caller's: it is started if necessary and left
            running. By default the meter of the use around this one, else the best meter of this
            machine, which is closed at the end.
        zone: Zone of this machine's power, such as ``"DE"``; without it no grams are reported.
        intensity: A provider of carbon intensities or its name, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        pue_source: Where the PUE was published.
        market_intensity: Market-based intensity of the electricity contract in g/kWh, or a provider
            of it; its grams are recorded next to the location-based ones.
        team: Tag of the team in the ledger.
        project: Tag of the project in the ledger.

    Yields:
        A :class:`Measurement`, whose ``reading`` is set after the block.

    Raises:
        ConfigurationError: If the name, a tag, the ledger's URL, zone, intensity or PUE cannot be
            used, or the meter requests a missing device; before the block starts.
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
        prepare data used 1 Wh in 36.00 s: constant 1 Wh (given)
    """
    name = check_name(name, "name", "prepare data")
    team, project = check_tag(team, "team"), check_tag(project, "project")
    check_meter(meter, "meter")
    measured = Measurement(name)
    carbon = CarbonAccount(
        zone=zone,
        intensity=intensity,
        pue=pue,
        pue_source=pue_source,
        market_intensity=market_intensity,
    )
    warn = _warn_once(f"the run {name!r} is not fully recorded")
    opened = _open_ledger(ledger, warn)
    run: RunLog | None = None
    status = "failed"
    try:
        with _recorder(meter) as recorder:
            depth = recorder.depth
            with _attempt(warn):
                if opened is not None:
                    run = opened.open_run(
                        "measure",
                        name,
                        environment={**environment(), "carbon": carbon.as_dict()},
                        sources=lambda: recorder.sources,
                        beat=lambda: recorder.open_windows()[depth : depth + 1],
                        emissions=carbon.of,
                        heartbeat_s=HEARTBEAT_S,
                        team=team,
                        project=project,
                    )
            _ = recorder.sources  # a meter that is being set up would be measured with the block
            recorder.enter("measure")
            try:
                yield measured
                status = "completed"
            finally:
                window = recorder.leave()
                measured.reading = window.reading
                measured.sources = recorder.sources
                with _attempt(warn):
                    measured.emissions = carbon.of(window)
                with _attempt(warn):
                    if run is not None:
                        run.record(window, measured.emissions)
    finally:
        with _attempt(warn):
            if run is not None:
                run.close(status)
        with _attempt(warn):
            if opened is not None:
                opened.close()


def run_command(
    command: Sequence[str],
    *,
    name: str | None = None,
    **options: Any,
) -> tuple[Measurement, int]:
    """Run a command with this process's input and output, and measure it.

    SIGTERM and SIGINT are forwarded to the command, and its end is awaited. A command that does not
    return 0 is a failed run.

    Args:
        command: The command and its arguments.
        name: Name of the run; by default the command's file name alone.
        **options: As for :func:`measure`.

    Returns:
        The measurement, and the exit code: 128 plus its number for a command that a signal ended.

    Raises:
        OSError: If the command cannot be started.
        ConfigurationError: As for :func:`measure`.
        LedgerError: As for :func:`measure`.
    """
    if shutil.which(command[0]) is None:  # a mistyped command leaves no run behind
        raise FileNotFoundError("no such command, or it is not executable")
    code = 0
    with (
        # Another code than 0 is no error of ours; it only makes the run in the ledger a failed one.
        suppress(subprocess.CalledProcessError),
        measure(name or Path(command[0]).name, **options) as measured,
    ):
        with _forwarded_signals() as forward_to:
            process = subprocess.Popen(command)
            forward_to(process)
            code = process.wait()
        if code != 0:
            raise subprocess.CalledProcessError(code, command[0])
    return measured, code if code >= 0 else 128 - code


@contextmanager
def _attempt(warn: Callable[[Exception], object]) -> Iterator[None]:
    """Warn of an exception and continue: a measurement must not stop the measured work."""
    try:
        yield
    except Exception as error:
        warn(error)


def _warn_once(message: str) -> Callable[[Exception], None]:
    """Return a function that logs the first exception that it is given."""
    warned = False

    def warn(error: Exception) -> None:
        nonlocal warned
        if not warned:
            _log.warning("%s: %s", message, error)
        warned = True

    return warn


def _open_ledger(url: str, warn: Callable[[Exception], object]) -> Ledger | None:
    """Open the ledger; warn and return ``None`` where a passing fault prevents it."""
    try:
        return Ledger(url, keep_open=False)
    except LedgerError as error:
        cause = getattr(error.__cause__, "orig", None)
        if not getattr(cause, "sqlite_errorname", "").startswith(_PASSING):
            raise
        warn(error)
    return None


@contextmanager
def _recorder(given: Meter | None) -> Iterator[WindowRecorder]:
    """Give the recorder of the use around this one if the meter is the same, else a new one."""
    outer = _outer.get()
    if outer is not None and (given is None or given is outer.meter):
        yield outer
        return
    recorder = WindowRecorder(start_meter(given))
    _outer.set(recorder)
    try:
        yield recorder
    finally:
        _outer.set(outer)
        if given is None:
            close_meter(recorder.meter)


@contextmanager
def _forwarded_signals() -> Iterator[Callable[[subprocess.Popen[Any]], None]]:
    """Forward SIGTERM and SIGINT to the process that is given to the yielded function.

    A signal that arrives before that is sent to the process once it is given.
    """
    process: subprocess.Popen[Any] | None = None
    early: list[int] = []

    def forward_to(started: subprocess.Popen[Any]) -> None:
        nonlocal process
        process = started
        for number in early:
            started.send_signal(number)

    def handle(number: int, _frame: object) -> None:
        if process is None:
            early.append(number)
        elif number != signal.SIGINT or not _is_at_terminal():
            process.send_signal(number)

    previous = {
        number: signal.signal(number, handle)
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) != signal.SIG_IGN  # as under nohup, and so for the command
    }
    try:
        yield forward_to
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_at_terminal() -> bool:
    """Return whether the terminal sends Ctrl-C to this process's group, and so to the command."""
    try:
        with Path("/dev/tty").open("rb", buffering=0) as terminal:
            return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    except OSError:  # there is no terminal
        return False
