"""The GPU of an Apple chip, through CodeCarbon's class for ``powermetrics``.

Tested with a replacement for ``powermetrics`` only, not yet on a Mac.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import Any

from greentrain.energy import host_hardware
from greentrain.energy._codecarbon_hardware import APPLE_REFERENCE, quiet
from greentrain.energy.meter import Reading, Source
from greentrain.errors import MeterError
from greentrain.texts import get_logger

_log = get_logger(__name__)

_NAME = "gpu:0"
_PERMISSION_S = 3.0
_PAUSE_S = 1.0
# This call never prompts for a password on the terminal; CodeCarbon's own call would.
_COMMAND = ("sudo", "-n", "powermetrics", "--samplers", "cpu_power", "-n", "1", "-i", "1")
_FIX = (
    "allow it without a password: `sudo visudo -f /etc/sudoers.d/powermetrics` with the line "
    "`YOUR_USER ALL=(root) NOPASSWD: /usr/bin/powermetrics`"
)


class AppleGpuMeter:
    """Measure the GPU of an Apple chip.

    ``powermetrics`` runs through ``sudo`` and takes a second for each mean power. So a thread runs
    it repeatedly, and a reading uses the last result. ``start`` fails at once if ``sudo`` would
    need a password.

    Args:
        clock: Returns seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._device = ""
        self._started_s = self._last_s = 0.0
        self._energy_j: float | None = None
        self._reported_j: float | None = None
        self._power_w = 0.0

    @property
    def sources(self) -> tuple[Source, ...]:
        """The GPU, once its first power is known; empty before the start."""
        if self._thread is None and not self._device:
            return ()
        self._ready.wait()
        return (
            Source(
                name=_NAME,
                method="sampled",
                relative_uncertainty=0.1,
                device=self._device,
                note="mean power of each second or two, by powermetrics",
                reference=APPLE_REFERENCE,
            ),
        )

    def start(self) -> None:
        """Begin at zero; harmless while it runs.

        Raises:
            MeterError: If this is no Apple chip, or ``sudo`` does not permit ``powermetrics``.
        """
        if self._thread is not None:
            return
        if not host_hardware.apple_silicon():
            raise MeterError("this is no Mac with an Apple chip")
        _check_permission()
        self._started_s = self._last_s = self._clock()
        self._energy_j = self._reported_j = 0.0
        self._power_w = 0.0
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(self._stop,), name="greentrain-apple", daemon=True
        )
        self._thread.start()

    def read(self) -> Reading:
        """Return the GPU's joules since the start, up to the present estimate."""
        with self._lock:
            if self._thread is None:
                return Reading(duration_s=0.0, energy_j={_NAME: None})
            now_s = self._clock()
            if self._energy_j is None or self._reported_j is None:
                self._reported_j = None
            else:
                # Extrapolate the last power; a reported figure never falls.
                joules = self._energy_j + self._power_w * (now_s - self._last_s)
                self._reported_j = max(self._reported_j, joules)
            return Reading(duration_s=now_s - self._started_s, energy_j={_NAME: self._reported_j})

    def close(self) -> None:
        """Stop measuring, and wait a second or two for the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._thread = None

    def _run(self, stop: threading.Event) -> None:
        try:
            # CodeCarbon's class writes a log owned by root.
            with TemporaryDirectory(prefix="greentrain-", ignore_cleanup_errors=True) as folder:
                chip = _open_chip(folder)
                self._device = str(chip.get_model())
                while True:
                    power_w = _power_w(chip)
                    with self._lock:
                        now_s = self._clock()
                        self._power_w = power_w
                        self._energy_j = (self._energy_j or 0.0) + power_w * (now_s - self._last_s)
                        self._last_s = now_s
                    self._ready.set()
                    if stop.wait(_PAUSE_S):
                        return
        except Exception as error:  # a failing meter never stops training
            _log.warning("%s is unknown from here on: %s", _NAME, error)
            with self._lock:
                self._energy_j = None
        finally:
            self._ready.set()


def _check_permission() -> None:
    try:
        done = subprocess.run(
            [*_COMMAND, "-o", "/dev/null"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PERMISSION_S,
            check=False,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise MeterError(f"powermetrics cannot be run through sudo ({error}); {_FIX}") from error
    if done.returncode != 0:
        raise MeterError(f"sudo does not let this user run powermetrics; {_FIX}")


def _open_chip(folder: str) -> Any:
    with quiet():
        from codecarbon.external.hardware import AppleSiliconChip

        return AppleSiliconChip.from_utils(folder, chip_part="GPU")


def _power_w(chip: Any) -> float:
    with quiet():
        details = chip._interface.get_details()
    # CodeCarbon returns 0 W for a value it cannot read. An idle GPU may use 0 W, a running CPU not.
    if not details.get("CPU Power"):
        raise MeterError("powermetrics reported no power")
    return float(details["GPU Power"])
