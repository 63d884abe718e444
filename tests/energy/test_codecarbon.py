"""The contract with CodeCarbon, tried with the real one: what is used of it exists and behaves."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from greentrain.energy import CodeCarbonMeter, Reading, Source, Window, WindowRecorder
from greentrain.energy import _codecarbon_hardware as adapter
from greentrain.energy import codecarbon as metering
from greentrain.errors import MeterError

J_PER_KWH = 3.6e6
ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="for Linux only")


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    """CodeCarbon's own hardware objects, as the adapter has them set up."""
    return {name: part.hardware for name, part in adapter.set_up().items()}


@pytest.fixture
def meter(seconds: list[float]) -> Iterator[CodeCarbonMeter]:
    started = CodeCarbonMeter(clock=lambda: seconds[0])
    started.start()
    assert len(started.sources) == 2  # it is set up
    yield started
    started.close()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let set-ups begin, and end only once this is set."""
    set_up, may_go_on = metering.set_up, threading.Event()

    def slow(root: Path) -> Any:
        may_go_on.wait()
        return set_up(root)

    monkeypatch.setattr(metering, "set_up", slow)
    yield may_go_on
    may_go_on.set()


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


@LINUX
def test_name_and_packages_are_those_that_codecarbon_finds() -> None:
    from codecarbon.core.util import count_physical_cpus, detect_cpu_model

    assert adapter.cpu_model() in (detect_cpu_model(), None)
    assert adapter.cpu_packages() == count_physical_cpus()


def test_name_and_packages_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    core = "processor\t: {}\nmodel name\t: AMD EPYC 7763 64-Core Processor\nphysical id\t: {}\n\n"
    (tmp_path / "proc/cpuinfo").write_text("".join(core.format(i, i // 2) for i in range(4)))
    assert adapter.cpu_model(tmp_path) == "AMD EPYC 7763 64-Core Processor"
    assert adapter.cpu_packages(tmp_path) == 2


def test_without_a_name_in_proc_codecarbon_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codecarbon.core import util

    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor\t: 0\nCPU architecture: 8\n")
    monkeypatch.setattr(util, "detect_cpu_model", lambda: "Neoverse-N1")
    assert adapter.cpu_model(tmp_path) is None
    assert adapter._linux_cpu("cpu_load", 1, tmp_path)[2] == "Neoverse-N1"


def test_each_package_uses_the_rated_power(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name\t: AMD EPYC 7763 64-Core Processor\n")
    cpu, _, model, rating = adapter._linux_cpu("cpu_load", 2, tmp_path)
    assert model == "AMD EPYC 7763 64-Core Processor"
    assert cpu._tdp == 2 * (adapter.rated_power_w(model)[0] or 0.0) > 0
    assert rating.endswith("times 2 packages")


@pytest.mark.parametrize(
    ("model", "packages", "flags", "watts", "said"),
    [
        # A virtual machine of 16 threads, shown as 16 packages of one.
        ("QEMU Virtual CPU version 2.5+", 16, "", 64.0, "not in CodeCarbon's table, so 4 W for"),
        ("AMD EPYC 7763 64-Core Processor", 16, "", 64.0, "would be AMD EPYC 7763 in CodeCarbon's"),
        (
            "AMD EPYC 7763 64-Core Processor",
            1,
            "fpu hypervisor",
            64.0,
            "4 W for each of 16 threads",
        ),
        # And real machines: two packages of eight threads, and a small one.
        ("AMD EPYC 7763 64-Core Processor", 2, "fpu", 560.0, "times 2 packages"),
        (
            "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz",
            1,
            "hypervisor",
            15.0,
            "in CodeCarbon's table",
        ),
        ("", 1, "fpu", 64.0, "without a name, so 4 W for each of 16 threads"),
    ],
)
def test_a_machine_is_never_rated_beyond_its_cores(
    model: str,
    packages: int,
    flags: str,
    watts: float,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from codecarbon.core import cpu, util

    (tmp_path / "proc").mkdir()
    core = f"processor\t: {{}}\nmodel name\t: {model}\nphysical id\t: {{}}\nflags\t\t: {flags}\n\n"
    (tmp_path / "proc/cpuinfo").write_text("".join(core.format(i, i % packages) for i in range(16)))
    for place in (cpu, util):
        monkeypatch.setattr(place, "count_cpus", lambda: 16)
    adapter.rated_power_w.cache_clear()
    assert adapter.cpu_packages(tmp_path) == packages
    rated_w, origin = adapter.machine_power_w(model, packages, tmp_path)
    adapter.rated_power_w.cache_clear()
    assert rated_w == watts
    assert said in origin


def codecarbons_rating(model: str, monkeypatch: pytest.MonkeyPatch) -> float | None:
    """Rate a CPU's name with CodeCarbon's own class, with pandas."""
    from codecarbon.core import cpu

    monkeypatch.setattr(cpu, "detect_cpu_model", lambda: model)
    watts = cpu.TDP().tdp
    return None if watts is None else float(watts)


# As kernels write them; and a dozen from all over the table follow.
NAMES = (
    "Intel(R) Xeon(R) Processor",
    "Intel(R) Xeon(R) Platinum 8259CL CPU @ 2.50GHz",
    "Intel(R) Xeon(R) Gold 6338 CPU @ 2.00GHz",
    "Intel(R) Core(TM) i7-8550U CPU @ 1.80GHz",
    "13th Gen Intel(R) Core(TM) i9-13900K",
    "AMD EPYC 7763 64-Core Processor",
    "AMD EPYC",
    "AMD Ryzen 9 5950X 16-Core Processor",
    "AMD Ryzen Threadripper 3990X 64-Core Processor",
    "Neoverse-N1",
    "no such CPU",
    "",
)


@pytest.mark.parametrize("model", NAMES)
def test_a_cpu_is_rated_as_codecarbon_rates_it(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert adapter.rated_power_w(model)[0] == codecarbons_rating(model, monkeypatch)


def test_a_dozen_of_the_table_are_rated_as_codecarbon_rates_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = adapter.cpu_table()
    for name, watts in table[7 :: len(table) // 12]:
        rated_w, origin = adapter.rated_power_w(name)
        assert rated_w == codecarbons_rating(name, monkeypatch)
        assert origin != f"{name} in CodeCarbon's table" or rated_w == float(watts)


@LINUX
def test_this_machine_is_rated_as_codecarbon_rates_it(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if parts["cpu"]._mode != "cpu_load":
        pytest.skip("this machine has a counter")
    rated_w = codecarbons_rating(parts["cpu"].get_model(), monkeypatch)
    assert rated_w is not None
    rated_w = min(rated_w * adapter.cpu_packages(), max(rated_w, 4.0 * (os.cpu_count() or 0)))
    assert parts["cpu"]._tdp == rated_w


def test_the_table_is_read_as_pandas_reads_it() -> None:
    from codecarbon.input import DataSource

    table = DataSource().get_cpu_power_data()
    assert [name for name, _ in adapter.cpu_table()] == list(table["Name"])
    assert [watts for _, watts in adapter.cpu_table()] == [str(watts) for watts in table["TDP"]]


def test_a_row_without_a_number_is_as_if_it_was_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from codecarbon.core.cpu import DEFAULT_POWER_PER_CORE
    from codecarbon.core.util import count_cpus

    broken = [name for name, watts in adapter.cpu_table() if adapter._number(watts) is None]
    assert broken  # once there is none, the guard can go
    for name in broken:
        with pytest.raises(ValueError, match="could not convert"):
            codecarbons_rating(name, monkeypatch)
        rated_w, origin = adapter.rated_power_w(name)
        assert rated_w == DEFAULT_POWER_PER_CORE * count_cpus()
        assert "not in CodeCarbon's table" in origin


def test_a_slurm_job_does_not_make_the_machine_smaller(
    parts: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from codecarbon.core import util
    from codecarbon.external import ram

    for place in (util, ram):
        monkeypatch.setattr(place, "SLURM_JOB_ID", "42")
    monkeypatch.setenv("PATH", "/nowhere")  # as in a container, where there is no scontrol
    adapter.rated_power_w.cache_clear()
    machine = adapter.set_up()
    assert machine["cpu"].hardware._tdp == parts["cpu"]._tdp
    assert "whole machine" in machine["ram"].source.note
    assert (util.SLURM_JOB_ID, ram.SLURM_JOB_ID) == ("42", "42")
    assert power_w(machine["ram"].hardware) == power_w(parts["ram"])


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


@pytest.fixture
def counting(rapl: Path, seconds: list[float]) -> Iterator[CodeCarbonMeter]:
    """A meter of a CPU with a counter, set up."""
    meter = CodeCarbonMeter(clock=lambda: seconds[0])
    meter.start()
    assert meter.sources
    yield meter
    meter.close()


def test_a_readable_rapl_counter_is_a_counter(
    rapl: Path, counting: CodeCarbonMeter, seconds: list[float]
) -> None:
    cpu = by_name(counting)["cpu"]
    assert (cpu.method, cpu.relative_uncertainty) == ("counter", 0.05)
    assert cpu.note.startswith("whole machine; CodeCarbon: RAPL")
    write_counter(rapl, 4600.0)
    seconds[0] = 36.0
    # The counter went from 1000 J to 4600 J. CodeCarbon's joule is a millionth off.
    assert counting.read().energy_j["cpu"] == pytest.approx(3600.0, rel=2e-6)


def test_what_a_counter_was_set_up_too_late_for_is_charged_with_its_first_power(
    rapl: Path, seconds: list[float], held: threading.Event
) -> None:
    meter = CodeCarbonMeter(clock=lambda: seconds[0])
    meter.start()
    seconds[0] = 10.0
    held.set()
    assert meter.sources
    write_counter(rapl, 4600.0)
    seconds[0] = 46.0
    # 3600 J in the 36 s since it was set up are 100 W, over all of the 46 s.
    assert meter.read().energy_j["cpu"] == pytest.approx(4600.0, rel=2e-6)
    write_counter(rapl, 4700.0)
    seconds[0] = 47.0
    assert meter.read().energy_j["cpu"] == pytest.approx(4700.0, rel=2e-6)
    meter.close()


def test_a_counters_first_power_is_taken_over_some_time(rapl: Path) -> None:
    meter = CodeCarbonMeter()
    meter.start()
    assert meter.sources
    write_counter(rapl, 1001.0)
    reading = meter.read()
    # 1 J came after the set-up: over a moment that would be any power.
    assert 0 < (reading.energy_j["cpu"] or 0.0) <= 1.001 * reading.duration_s / 0.1
    meter.close()


def test_a_counter_goes_on_while_it_cannot_be_read(
    rapl: Path,
    counting: CodeCarbonMeter,
    seconds: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_counter(rapl, 1100.0)
    seconds[0] = 1.0
    before = counting.read()  # 100 J in a second
    (rapl / "energy_uj").unlink()
    for seconds[0] in (1.25, 1.5):
        assert (counting.read() - before).energy_j["cpu"] == pytest.approx(
            100.0 * (seconds[0] - 1.0), rel=2e-6
        )
    write_counter(rapl, 1300.0)
    seconds[0] = 2.0
    # The counter has gone on to 300 J since the start: nothing is lost, and nothing is unknown.
    assert counting.read().energy_j["cpu"] == pytest.approx(300.0, rel=2e-6)
    assert "its counter could not be read for 1.0 s" in by_name(counting)["cpu"].note
    (rapl / "energy_uj").unlink()
    seconds[0] = 3.0
    counting.read()
    assert [record.name for record in caplog.records] == ["greentrain.energy.codecarbon"]
    assert "energy counter cannot be read" in caplog.text


def test_a_counter_that_stays_away_is_unknown_and_comes_back_exact(
    rapl: Path, counting: CodeCarbonMeter, seconds: list[float]
) -> None:
    write_counter(rapl, 1100.0)
    seconds[0] = 1.0
    assert counting.read().complete
    (rapl / "energy_uj").unlink()
    for seconds[0] in (20.0, 21.0):
        reading = counting.read()
        assert reading.energy_j["cpu"] is None
        assert reading.energy_j["ram"] is not None
    write_counter(rapl, 4600.0)
    seconds[0] = 36.0
    assert counting.read().energy_j["cpu"] == pytest.approx(3600.0, rel=2e-6)


def test_a_counter_that_wraps_goes_on(
    rapl: Path, counting: CodeCarbonMeter, seconds: list[float]
) -> None:
    write_counter(rapl, 262_100.0)
    seconds[0] = 1000.0
    before = counting.read()
    write_counter(rapl, 56.67115)  # 100 J later, past its range of 262,143.32885 J
    seconds[0] = 1001.0
    assert (counting.read() - before).energy_j["cpu"] == pytest.approx(100.0, rel=1e-4)
    assert "reset" not in by_name(counting)["cpu"].note


def test_a_counter_that_was_reset_has_no_joules_of_a_wrap(
    rapl: Path,
    counting: CodeCarbonMeter,
    seconds: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    write_counter(rapl, 1100.0)
    seconds[0] = 1.0
    counting.read()  # 100 J in a second
    write_counter(rapl, 5.0)  # as a wrap it would be 261,048 J
    seconds[0] = 2.0
    assert counting.read().energy_j["cpu"] == pytest.approx(200.0, rel=2e-6)
    write_counter(rapl, 55.0)
    seconds[0] = 3.0
    assert counting.read().energy_j["cpu"] == pytest.approx(250.0, rel=2e-6)
    assert "its counter was reset, which lost 1.0 s" in by_name(counting)["cpu"].note
    assert "energy counter was reset" in caplog.text


def test_a_counter_that_was_reset_in_a_long_gap_is_unknown(
    rapl: Path, counting: CodeCarbonMeter, seconds: list[float]
) -> None:
    write_counter(rapl, 1100.0)
    seconds[0] = 1.0
    counting.read()
    write_counter(rapl, 5.0)
    for seconds[0] in (21.0, 22.0):
        assert counting.read().energy_j["cpu"] is None
    assert "unknown since then" in by_name(counting)["cpu"].note


def test_a_counter_that_cannot_be_read_from_the_first_reading_on_is_unknown(
    rapl: Path, counting: CodeCarbonMeter, seconds: list[float]
) -> None:
    (rapl / "energy_uj").unlink()
    recorder = WindowRecorder(counting)

    def window(end_s: float) -> Reading:
        with recorder.phase("fit"):
            seconds[0] = end_s
        return windows.pop().reading

    windows: list[Window] = []
    recorder.sinks.append(windows.append)
    first = window(5.0)
    assert first.energy_j["cpu"] is None
    assert not first.complete
    with recorder.phase("fit"):
        write_counter(rapl, 1900.0)
        seconds[0] = 9.0
    # 900 J in 9 s, spread evenly: 4 s of them are in this window.
    assert windows.pop().reading.energy_j["cpu"] == pytest.approx(400.0, rel=2e-6)
    assert counting.read().energy_j["cpu"] == pytest.approx(900.0, rel=2e-6)
    write_counter(rapl, 2000.0)
    assert window(10.0).energy_j["cpu"] == pytest.approx(100.0, rel=2e-6)


@pytest.mark.parametrize("quiet_s", [0.03, 0.05, 0.09])
def test_a_window_shorter_than_a_tenth_of_a_second_has_at_most_the_rated_power(
    quiet_s: float, monkeypatch: pytest.MonkeyPatch, seconds: list[float]
) -> None:
    import psutil

    if adapter._mode(Path("/")) != "cpu_load":
        pytest.skip("this machine has a counter")
    real = psutil.cpu_times()
    spent = {"user": 0.0, "idle": 0.0}
    monkeypatch.setattr(
        psutil,
        "cpu_times",
        lambda: real._replace(**{**dict.fromkeys(real._fields, 0.0), **spent}),
    )
    meter = CodeCarbonMeter(clock=lambda: seconds[0])
    meter.start()
    assert meter.sources
    rated_w = meter._parts["cpu"].hardware._tdp
    spent["idle"], seconds[0] = 1.0, 1.0
    meter.read()  # idle up to here, so the last power is the least
    spent["idle"], seconds[0] = 1.0 + quiet_s, 1.0 + quiet_s
    edge = meter.read()
    spent["user"], seconds[0] = 0.11 - quiet_s, 1.11
    window = meter.read() - edge
    assert (window.power_w or 0.0) > 0.0
    assert (window.energy_j["cpu"] or 0.0) <= 1.000001 * rated_w * window.duration_s
    meter.close()


def test_a_counter_is_read_without_asking_for_the_cpu_again(
    rapl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from codecarbon.external import hardware

    def refuse() -> None:
        raise AssertionError("py-cpuinfo was asked")

    monkeypatch.setattr(hardware, "detect_cpu_model", refuse)
    assert adapter.set_up()["cpu"].source.device == (adapter.cpu_model() or "unknown CPU")


@pytest.mark.parametrize("label", sorted(adapter.CPU_METHODS))
def test_the_labels_are_codecarbons(label: str) -> None:
    from codecarbon.core.resource_tracker import ResourceTracker

    assert f'cpu_tracker = "{label}"' in inspect.getsource(ResourceTracker)


def test_where_codecarbon_knows_better_it_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "_mode", lambda root: None)
    parts = adapter.set_up()
    assert parts["cpu"].source.device
    assert {name: part.source.name for name, part in parts.items()} == {"cpu": "cpu", "ram": "ram"}


def test_ram_uses_a_constant_power(
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


@LINUX
def test_the_first_load_covers_the_set_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import psutil

    real = psutil.cpu_times()
    before = real._replace(**dict.fromkeys(real._fields, 0.0))
    after = before._replace(user=50.0, idle=50.0, nice=1e-6)
    told = iter([before])  # when the set-up begins, and all later ones
    monkeypatch.setattr(adapter, "_mode", lambda root: "cpu_load")
    monkeypatch.setattr(psutil, "cpu_times", lambda: next(told, after))
    cpu = adapter.set_up()["cpu"].hardware
    # 50 of 100 CPU seconds were busy since the set-up began; since it ended there were none.
    assert power_w(cpu) == pytest.approx(cpu._tdp * (0.1 + 0.9 * 0.5**3))


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


def test_neither_start_nor_read_waits_and_nothing_is_lost(
    seconds: list[float], held: threading.Event, parts: dict[str, Any]
) -> None:
    meter = CodeCarbonMeter(clock=lambda: seconds[0])
    meter.start()  # would never return if it waited
    for seconds[0] in (0.0, 10.0):
        early = meter.read()
        assert (early.duration_s, early.energy_j) == (seconds[0], {"cpu": 0.0, "ram": 0.0})
        assert early.late == {"cpu", "ram"}
    held.set()
    assert len(meter.sources) == 2
    seconds[0] = 36.0
    reading = meter.read()
    assert reading.energy_j["ram"] == pytest.approx(36.0 * power_w(parts["ram"]))
    assert (reading.energy_j["cpu"] or 0.0) > 0
    assert not reading.late
    # The window from 10 s on has 26 s of power, and not that of the 10 s before it.
    assert (reading - early).energy_j["ram"] == pytest.approx(26.0 * power_w(parts["ram"]))
    meter.close()


def test_once_the_sources_are_known_so_is_the_energy_since_the_start() -> None:
    meter = CodeCarbonMeter()
    meter.start()
    assert meter.sources
    assert all((joules or 0.0) > 0 for joules in meter.read().energy_j.values())
    meter.close()


def test_closing_while_it_is_being_set_up_waits_and_leaves_no_thread(
    held: threading.Event,
) -> None:
    meter = CodeCarbonMeter()
    meter.start()
    threading.Timer(0.05, held.set).start()
    meter.close()
    assert "greentrain-codecarbon" not in [thread.name for thread in threading.enumerate()]


def test_the_models_are_asked_every_second_even_if_nobody_reads(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, Any]
) -> None:
    asked = threading.Semaphore(0)

    def measure(duration_s: float) -> Any:
        asked.release()
        return None, SimpleNamespace(kWh=duration_s / J_PER_KWH)

    source = Source(name="cpu", method="estimated", relative_uncertainty=None)
    part = adapter.HardwarePart(
        hardware=SimpleNamespace(measure_power_and_energy=measure), source=source, quick=True
    )
    monkeypatch.setattr(metering, "set_up", lambda root: {"cpu": part})
    monkeypatch.setattr(metering, "_INTERVAL_S", 0.001)
    meter = CodeCarbonMeter()
    meter.start()
    for _ in range(3):
        assert asked.acquire(timeout=60)
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
    reading = meter.read()
    assert (reading.duration_s, reading.energy_j) == (0.0, {"cpu": 0.0, "ram": 0.0})


def test_nothing_is_known_before_the_start_and_after_the_end(meter: CodeCarbonMeter) -> None:
    nothing = Reading(duration_s=0.0, energy_j={"cpu": None, "ram": None})
    assert CodeCarbonMeter().sources == ()
    assert CodeCarbonMeter().read() == nothing
    assert CodeCarbonMeter().cgroup_share is None
    meter.close()
    assert meter.read() == nothing


def test_a_set_up_that_fails_is_reported_by_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path) -> Any:
        raise OSError("no /proc here")

    meter = CodeCarbonMeter()
    with monkeypatch.context() as patch:
        patch.setattr(metering, "set_up", broken)
        meter.start()
        assert meter.sources == ()
        for _ in range(2):
            with pytest.raises(MeterError, match="could not be set up: no /proc here"):
                meter.read()
        meter.close()
        assert meter.read().energy_j == {"cpu": None, "ram": None}
    meter.start()
    assert len(meter.sources) == 2
    assert meter.read().complete
    meter.close()


def session(root: Path) -> Callable[[float, float], None]:
    """A host on which this process is in one of several cgroups; gives what lets it work."""
    folder = root / "sys/fs/cgroup/job"
    for each in (folder, root / "proc/self"):
        each.mkdir(parents=True)
    (folder / "cgroup.events").touch()
    (root / "proc/self/cgroup").write_text("0::/job\n")
    (root / "proc/self/mountinfo").write_text(
        "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    )
    (root / "proc/cpuinfo").write_text("model name\t: AMD EPYC 7763 64-Core Processor\n")

    def work(busy_s: float, cgroup_s: float) -> None:
        ticks = round(busy_s * os.sysconf("SC_CLK_TCK"))
        (root / "proc/stat").write_text(f"cpu  {ticks} 0 0 9999 0 0 0 0 0 0\n")
        (folder / "cpu.stat").write_text(f"usage_usec {cgroup_s * 1e6:.0f}\n")

    return work


@LINUX
def test_on_a_shared_host_the_note_says_so_and_estimates_the_share(tmp_path: Path) -> None:
    work = session(tmp_path)
    work(1000.0, 100.0)
    meter = CodeCarbonMeter(root=tmp_path)
    meter.start()
    before = by_name(meter)["cpu"]
    assert before.note.endswith("shared: others on the host are included")
    assert before.device == "AMD EPYC 7763 64-Core Processor"
    assert meter.cgroup_share is None
    work(1040.0, 110.0)
    assert meter.cgroup_share == pytest.approx(0.25)
    after = by_name(meter)
    assert "an estimated 25% of the host's busy CPU time" in after["cpu"].note
    assert "shared" not in after["ram"].note
    meter.close()


def test_a_tracker_of_the_users_logs_on_at_its_level(
    meter: CodeCarbonMeter, seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("codecarbon")
    level = log.level
    log.setLevel(logging.WARNING)
    log.addHandler(caplog.handler)
    handlers = log.handlers[:]
    try:
        with adapter.quiet():
            log.warning("of this thread")
            other = threading.Thread(target=log.warning, args=("of the user's tracker",))
            other.start()
            other.join()
        seconds[0] = 10.0
        meter.read()
        assert (log.level, log.filters) == (logging.WARNING, [])
        assert log.handlers == handlers
        assert caplog.messages == ["of the user's tracker"]
    finally:
        log.setLevel(level)
        log.removeHandler(caplog.handler)


_LEVEL = """
import logging
log = logging.getLogger("codecarbon")
handler = logging.NullHandler()
log.addHandler(handler)
log.setLevel("ERROR")
from greentrain.energy import CodeCarbonMeter
meter = CodeCarbonMeter()
meter.start()
assert len(meter.sources) == 2
meter.close()
assert (log.level, log.handlers, log.propagate) == (logging.ERROR, [handler], True)
"""


def test_a_level_that_was_set_before_codecarbon_is_imported_stays(tmp_path: Path) -> None:
    done = run(_LEVEL, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


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
assert len(meter.sources) == 2
assert meter.read().complete
assert meter.read().complete
meter.close()
assert not calls, calls
"""


def run(code: str, cwd: Path, *paths: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, *paths))),
            "PYTHONDONTWRITEBYTECODE": "1",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )


def test_it_writes_nothing_prints_nothing_and_asks_no_network(tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("home", "here", "temporary")}
    for folder in folders.values():
        folder.mkdir()
    home, here, temporary = folders.values()
    done = run(_WATCHED, here, HOME=str(home), TMPDIR=str(temporary))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path for folder in folders.values() for path in folder.rglob("*")] == []


def test_an_amdsmi_that_does_not_work_is_no_news(tmp_path: Path) -> None:
    (tmp_path / "amdsmi.py").write_text("raise KeyError('libamd_smi.so')\n")
    done = run(_WATCHED, tmp_path, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@LINUX
def test_the_set_up_loads_neither_pandas_nor_cpuinfo(tmp_path: Path) -> None:
    names = "import sys; print(*sorted({'pandas', 'cpuinfo'} & {*sys.modules}), 'end')"
    done = run(f"{_WATCHED}\n{names}", tmp_path)
    if adapter.cpu_model() is None:
        pytest.skip("this machine's kernel does not name the CPU")
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
