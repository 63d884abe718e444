"""An Apple chip's GPU against a stand-in for ``powermetrics``, under CodeCarbon's real class."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greentrain.energy import host_hardware
from greentrain.energy.apple import AppleGpuMeter
from greentrain.errors import MeterError

# As powermetrics prints it: CodeCarbon takes the mean of the samples, here 5 W and 30 W.
LOG = """
*** Sampled system activity (100.10ms elapsed) ***
CPU Power: 4000 mW
GPU Power: {} mW
Combined Power (CPU + GPU + ANE): 24000 mW
CPU Power: 6000 mW
GPU Power: {} mW
"""
SUDO = """#!/bin/sh
[ "$1" = "-n" ] && exit {refusal}
while [ "$1" != "-o" ]; do shift; done
cat {log} > "$2"
"""


@pytest.fixture
def mac(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Simulate a Mac whose powermetrics reports a GPU's power."""
    from codecarbon.core import powermetrics
    from codecarbon.external import hardware

    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setattr(host_hardware, "apple_silicon", lambda: True)
    for module in (powermetrics, hardware):
        monkeypatch.setattr(module, "detect_cpu_model", lambda: "Apple M2 Pro")
    setup = powermetrics.ApplePowermetrics._setup_cli

    def on_a_mac(self: object) -> None:
        self._system = "darwin"  # type: ignore[attr-defined]
        setup(self)

    monkeypatch.setattr(powermetrics.ApplePowermetrics, "_setup_cli", on_a_mac)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")

    def make(*power_mw: int, refusal: int = 0) -> None:
        log = tools / "log"
        log.write_text(LOG.format(*power_mw) if power_mw else "Unable to get a thing\n")
        for name in ("sudo", "powermetrics"):
            (tools / name).write_text(SUDO.format(refusal=refusal, log=log))
            (tools / name).chmod(0o755)

    return make


def test_the_power_of_the_gpu_is_integrated(mac: Callable[..., None], seconds: list[float]) -> None:
    mac(20000, 40000)
    meter = AppleGpuMeter(clock=lambda: seconds[0])
    meter.start()
    (source,) = meter.sources  # by now the first power is known
    assert (source.name, source.method, source.relative_uncertainty) == ("gpu:0", "sampled", 0.1)
    assert source.device == "Apple M2 Pro"
    seconds[0] = 36.0
    reading = meter.read()
    assert reading.duration_s == 36.0
    assert reading.energy_j == {"gpu:0": pytest.approx(36.0 * 30.0)}
    meter.close()


def test_an_idle_gpu_uses_nothing_and_is_known(
    mac: Callable[..., None], seconds: list[float]
) -> None:
    mac(0, 0)
    meter = AppleGpuMeter(clock=lambda: seconds[0])
    meter.start()
    assert meter.sources
    seconds[0] = 1.0
    assert meter.read().energy_j == {"gpu:0": 0.0}
    meter.close()


def test_before_the_first_power_a_reading_does_not_wait(
    mac: Callable[..., None], seconds: list[float]
) -> None:
    mac(20000, 40000)
    meter = AppleGpuMeter(clock=lambda: seconds[0])
    assert meter.sources == ()
    assert meter.read().energy_j == {"gpu:0": None}
    meter.start()
    assert meter.read().energy_j == {"gpu:0": 0.0}
    meter.start()  # harmless
    meter.close()
    assert meter.read().energy_j == {"gpu:0": None}


def test_what_powermetrics_does_not_tell_is_unknown_and_not_zero(
    mac: Callable[..., None], seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    mac()
    meter = AppleGpuMeter(clock=lambda: seconds[0])
    meter.start()
    assert meter.sources
    assert meter.read().energy_j == {"gpu:0": None}
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    meter.close()


def test_a_sudo_that_wants_a_password_is_reported_with_the_fix(mac: Callable[..., None]) -> None:
    mac(20000, 40000, refusal=1)
    with pytest.raises(MeterError, match=r"does not let this user .*NOPASSWD"):
        AppleGpuMeter().start()


def test_without_sudo_it_says_so(mac: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    mac(20000, 40000)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MeterError, match="cannot be run through sudo"):
        AppleGpuMeter().start()


@pytest.mark.skipif(sys.platform == "darwin", reason="this is a Mac")
def test_elsewhere_there_is_none() -> None:
    with pytest.raises(MeterError, match="no Mac"):
        AppleGpuMeter().start()
