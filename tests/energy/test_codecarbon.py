"""The contract with CodeCarbon, tried with the real one: what is used of it exists and behaves."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from greentrain.energy import CodeCarbonMeter, Reading, Source
from greentrain.energy import codecarbon as adapter
from greentrain.errors import MeterError

J_PER_KWH = 3.6e6
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """CodeCarbon's own hardware objects, as the adapter has them set up."""
    return adapter._set_up()[0]


@pytest.fixture
def meter(seconds: list[float]) -> Iterator[CodeCarbonMeter]:
    started = CodeCarbonMeter(clock=lambda: seconds[0])
    started.start()
    yield started
    started.close()


def by_name(meter: CodeCarbonMeter) -> dict[str, Source]:
    return {source.name: source for source in meter.sources}


def power_w(part: Any) -> float:
    return float(part.measure_power_and_energy(1.0)[0].W)


@pytest.mark.parametrize("name", ["cpu", "ram"])
def test_codecarbon_gives_the_energy_of_a_duration_in_kwh(parts: dict[str, Any], name: str) -> None:
    parts[name].start()
    power, energy = parts[name].measure_power_and_energy(36.0)
    assert energy.kWh * J_PER_KWH == pytest.approx(36.0 * power.W)
    assert power.W > 0


def test_codecarbons_cpu_load_mode_cubes_the_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codecarbon.external.hardware import CPU, MODE_CPU_LOAD

    assert MODE_CPU_LOAD == "cpu_load"
    cpu = CPU.from_utils(str(tmp_path), MODE_CPU_LOAD, "a CPU", 100, tracking_mode="machine")
    cpu.start()
    assert 10.0 <= power_w(cpu) <= 100.0
    monkeypatch.setattr(cpu._cpu_load_meter, "percent", lambda: 50.0)
    cpu.start()
    # A tenth of 100 W when idle, and the rest with the cube of the load: 10 + 90 / 8 W.
    assert power_w(cpu) == pytest.approx(21.25)


def test_codecarbons_count_of_packages_is_one_or_more() -> None:
    assert adapter._cpu_packages() >= 1


def test_labels_say_how_each_figure_comes_about(meter: CodeCarbonMeter) -> None:
    sources = by_name(meter)
    cpu, ram = sources["cpu"], sources["ram"]
    assert list(sources) == ["cpu", "ram"]
    assert "whole machine" in cpu.note
    assert "whole machine" in ram.note
    assert cpu.device
    assert cpu.reference
    assert (cpu.relative_uncertainty or 0) > 0
    assert (ram.method, ram.relative_uncertainty) == ("estimated", 0.5)
    if Path("/sys/class/powercap/intel-rapl").exists():
        assert cpu.method in ("counter", "estimated")
    else:
        assert (cpu.method, cpu.relative_uncertainty) == ("estimated", 0.2)


def write_counter(folder: Path, joules: float) -> None:
    (folder / "energy_uj").write_text(f"{joules * 1e6:.0f}\n")


@pytest.fixture
def rapl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A CPU package's counter, laid out as the Linux kernel does, that CodeCarbon finds."""
    from codecarbon.core import cpu
    from codecarbon.external import hardware

    if not sys.platform.startswith("linux"):
        pytest.skip("RAPL counters are read on Linux only")
    tree = tmp_path / "powercap"
    package = tree / "intel-rapl" / "intel-rapl:0"
    package.mkdir(parents=True)
    (package / "name").write_text("package-0\n")
    (package / "max_energy_range_uj").write_text("262143328850\n")
    write_counter(package, 1000.0)
    available, interface = cpu.is_rapl_available, cpu.IntelRAPL
    monkeypatch.setattr(cpu, "_get_candidate_bases", lambda rapl_dir: [str(tree)])
    monkeypatch.setattr(cpu, "is_rapl_available", functools.partial(available, str(tree)))
    monkeypatch.setattr(
        hardware,
        "IntelRAPL",
        lambda rapl_dir, **options: interface(rapl_dir=str(tree), **options),
    )
    return package


def test_a_readable_rapl_counter_is_a_counter(rapl: Path, seconds: list[float]) -> None:
    meter = CodeCarbonMeter(clock=lambda: seconds[0])
    meter.start()
    cpu = by_name(meter)["cpu"]
    assert (cpu.method, cpu.relative_uncertainty) == ("counter", 0.05)
    assert cpu.note == "whole machine; CodeCarbon: RAPL"
    meter.read()
    write_counter(rapl, 4600.0)
    seconds[0] = 36.0
    # The counter went from 1000 J to 4600 J. CodeCarbon's joule is a millionth off.
    assert meter.read().energy_j["cpu"] == pytest.approx(3600.0, rel=2e-6)
    meter.close()


@pytest.mark.parametrize("label", sorted(adapter._CPU_METHODS))
def test_the_labels_are_codecarbons(label: str) -> None:
    import inspect

    from codecarbon.core.resource_tracker import ResourceTracker

    assert f'cpu_tracker = "{label}"' in inspect.getsource(ResourceTracker)


def test_ram_draws_a_constant_power(
    meter: CodeCarbonMeter, seconds: list[float], parts: dict[str, Any]
) -> None:
    first = meter.read()
    seconds[0] = 36.0
    window = meter.read() - first
    assert window.duration_s == 36.0
    assert window.energy_j["ram"] == pytest.approx(36.0 * power_w(parts["ram"]))


def test_the_time_until_the_first_read_is_charged(
    meter: CodeCarbonMeter, seconds: list[float], parts: dict[str, Any]
) -> None:
    seconds[0] = 36.0
    reading = meter.read()
    assert reading.duration_s == 36.0
    assert reading.energy_j["ram"] == pytest.approx(36.0 * power_w(parts["ram"]))
    assert (reading.energy_j["cpu"] or 0.0) > 0


def test_a_thousand_quick_reads_never_go_back_and_sum_up(
    meter: CodeCarbonMeter, seconds: list[float]
) -> None:
    readings: list[Reading] = []
    for _ in range(1000):
        seconds[0] += 0.003
        readings.append(meter.read())
    windows = [later - earlier for earlier, later in pairwise(readings)]
    whole = readings[-1] - readings[0]
    for name in ("cpu", "ram"):
        parts_j = [window.energy_j[name] for window in windows]
        assert all(joules is not None and joules >= 0 for joules in parts_j)
        assert sum(joules or 0.0 for joules in parts_j) == pytest.approx(whole.energy_j[name])
    assert (whole.energy_j["ram"] or 0.0) > 0
    assert whole.duration_s == pytest.approx(999 * 0.003)


def test_quick_reads_come_to_the_same_as_slow_ones(
    meter: CodeCarbonMeter, seconds: list[float], parts: dict[str, Any]
) -> None:
    for _ in range(100):
        seconds[0] += 0.036
        reading = meter.read()
    assert reading.energy_j["ram"] == pytest.approx(3.6 * power_w(parts["ram"]))


def test_start_does_not_wait_for_the_hardware_to_be_identified(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_up, may_go_on = adapter._set_up, threading.Event()
    began = threading.Event()

    def slow() -> Any:
        began.set()
        may_go_on.wait()
        return set_up()

    monkeypatch.setattr(adapter, "_set_up", slow)
    meter = CodeCarbonMeter()
    meter.start()  # would never return if it waited
    assert began.wait(timeout=60)
    may_go_on.set()
    assert len(meter.sources) == 2
    meter.close()


def test_starting_again_while_it_runs_is_harmless(
    meter: CodeCarbonMeter, seconds: list[float]
) -> None:
    meter.read()
    seconds[0] = 10.0
    before = meter.read()
    meter.start()
    assert meter.read() == before


def test_after_closing_it_starts_at_zero(meter: CodeCarbonMeter, seconds: list[float]) -> None:
    seconds[0] = 10.0
    meter.read()
    meter.close()
    meter.close()
    meter.start()
    assert meter.read() == Reading(duration_s=0.0, energy_j={"cpu": 0.0, "ram": 0.0})


def test_nothing_is_known_before_the_start() -> None:
    assert CodeCarbonMeter().sources == ()


def test_a_set_up_that_fails_is_told_by_the_first_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("no /proc here")

    meter = CodeCarbonMeter()
    with monkeypatch.context() as patch:
        patch.setattr(adapter, "_set_up", broken)
        meter.start()
        for _ in range(2):
            with pytest.raises(MeterError, match="could not be set up: no /proc here"):
                meter.read()
        assert meter.sources == ()
        meter.close()
    meter.start()
    assert set(meter.read().energy_j) == {"cpu", "ram"}
    meter.close()


# What the process does about a meter, from its cold start to its end, with every way out watched.
_WATCHED = """
import socket
calls = []
def refuse(*arguments, **options):
    calls.append(arguments)
    raise OSError("no network here")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
from greentrain.energy import CodeCarbonMeter
meter = CodeCarbonMeter()
meter.start()
assert meter.read().complete
assert meter.read().complete
meter.close()
assert not calls, calls
"""


def test_it_writes_nothing_prints_nothing_and_asks_no_network(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("home", "here", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    environment = {
        **os.environ,
        "HOME": str(folders["home"]),
        "TMPDIR": str(folders["temporary"]),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _WATCHED],
        cwd=folders["here"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []
