from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentrain.energy import Meter, codecarbon, detect, host_hardware
from greentrain.energy.apple import AppleGpuMeter
from greentrain.energy.constant import ConstantMeter
from greentrain.energy.detect import find
from greentrain.errors import ConfigurationError, MeterError
from tests.energy import amdsmi_standin
from tests.energy.amdsmi_standin import Device, Machine, show_cards
from tests.nvml import simulation
from tests.nvml.simulation import Node

nvml_library, nvml_node = simulation.nvml_library, simulation.nvml_node
amd = amdsmi_standin.amd
ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_nvidia(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make NVML report a missing driver, for any cards."""
    sentence = "the NVIDIA driver is not loaded; load it"

    def refuse() -> None:
        raise MeterError(sentence)

    monkeypatch.setattr("greentrain.energy.nvml._open_nvml", refuse)


def names(meter: Meter) -> list[str]:
    return [source.name for source in meter.sources]


def test_cpu_and_ram_are_always_there(no_nvidia: None) -> None:
    meter = detect()
    try:
        assert names(meter) == ["cpu", "ram"]
        assert meter.read().complete
    finally:
        meter.close()


@pytest.mark.parametrize("cards", [1, 2])
def test_nvidia_cards_come_first(nvml_node: Node, cards: int) -> None:
    nvml_node.resize(cards)
    meter = detect()
    try:
        assert names(meter) == [*(f"gpu:{index}" for index in range(cards)), "cpu", "ram"]
        assert set(meter.read().energy_j) == set(names(meter))
    finally:
        meter.close()


def test_the_cards_that_a_process_uses_are_enough(nvml_node: Node) -> None:
    nvml_node.resize(4)
    meter = detect([2], cpu=False)
    assert names(meter) == ["gpu:2"]
    assert set(meter.read().energy_j) == {"gpu:2"}
    meter.close()


def test_for_training_on_a_cpu_no_card_is_opened(nvml_node: Node, amd: Machine) -> None:
    meter = detect(())
    assert names(meter) == ["cpu", "ram"]
    meter.close()


def test_a_card_that_is_not_visible_is_refused_before_anything_runs(nvml_node: Node) -> None:
    threads = set(threading.enumerate())
    with pytest.raises(ConfigurationError, match="devices has 7"):
        detect([7])
    assert set(threading.enumerate()) == threads


@pytest.mark.parametrize("devices", [0, "0", [-1], [0.0]])
def test_devices_that_are_none_are_refused(devices: object) -> None:
    with pytest.raises(ConfigurationError, match="devices"):
        detect(devices)  # type: ignore[arg-type]


def test_cards_that_were_asked_for_and_cannot_be_measured_are_warned_of_once(
    no_nvidia: None, caplog: pytest.LogCaptureFixture
) -> None:
    meter = detect([0])
    assert names(meter) == ["cpu", "ram"]
    meter.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "the cards [0] are not measured: the NVIDIA driver is not loaded; load it"
    )


def test_cards_that_were_not_asked_for_are_not_warned_of(
    no_nvidia: None, caplog: pytest.LogCaptureFixture
) -> None:
    detect().close()
    assert caplog.records == []


@pytest.mark.parametrize(
    ("devices", "sentence"),
    [
        ((), "CPU and RAM are left to another process; no card was requested"),
        (None, "CPU and RAM are left to another process; the NVIDIA driver is not loaded; load it"),
    ],
)
def test_nothing_to_measure_is_reported(
    no_nvidia: None, devices: tuple[int, ...] | None, sentence: str
) -> None:
    with pytest.raises(MeterError, match=f"there is nothing to measure: {sentence}"):
        detect(devices, cpu=False)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let CodeCarbon's set-up begin, and end only once this is set."""
    set_up, may_go_on = codecarbon.set_up, threading.Event()

    def slow(root: Path) -> object:
        may_go_on.wait()
        return set_up(root)

    monkeypatch.setattr(codecarbon, "set_up", slow)
    yield may_go_on
    may_go_on.set()


def test_it_does_not_wait_for_codecarbon(nvml_node: Node, held: threading.Event) -> None:
    meter = detect()  # would never return if it waited
    reading = meter.read()
    assert reading.late == {"cpu", "ram"}
    assert list(reading.energy_j) == ["gpu:0", "cpu", "ram"]
    held.set()
    assert names(meter) == ["gpu:0", "cpu", "ram"]
    meter.close()


def test_amd_cards_are_measured_where_nvidia_has_none(no_nvidia: None, amd: Machine) -> None:
    meter = detect()
    amd.devices[1].use(500.0)
    assert names(meter) == ["gpu:0", "gpu:1", "cpu", "ram"]
    assert meter.read().energy_j["gpu:1"] == pytest.approx(500.0)
    meter.close()


def test_amd_cards_are_chosen_too_and_not_warned_of(
    no_nvidia: None, amd: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    meter = detect([1], cpu=False)
    assert names(meter) == ["gpu:1"]
    meter.close()
    assert caplog.records == []


def test_beside_nvidia_cards_those_of_amd_are_left_out(nvml_node: Node, amd: Machine) -> None:
    meter = detect()
    assert names(meter) == ["gpu:0", "cpu", "ram"]
    assert "NVIDIA" in meter.sources[0].device
    meter.close()


def test_amdsmi_is_not_asked_where_the_kernel_has_no_card(
    no_nvidia: None, amd: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(host_hardware, "ROOT", tmp_path / "elsewhere")
    show_cards(tmp_path / "elsewhere", "0x8086")
    found = find()
    assert list(found.missing) == ["NVIDIA"]
    assert [name for meter in found.meters for name in names(meter)] == ["cpu", "ram"]
    for meter in found.meters:
        meter.close()


def test_why_amds_cards_are_missing_is_reported(no_nvidia: None, amd: Machine) -> None:
    amd.refusal = "AMDSMI_STATUS_NO_PERM"
    found = find()
    assert "NO_PERM" in found.missing["AMD"]
    for meter in found.meters:
        meter.close()


def test_nothing_is_added_to_a_package_with_a_cpu(no_nvidia: None, amd: Machine) -> None:
    amd.devices[:] = [Device(0, "AMD Instinct MI300A")]
    meter = detect()
    assert names(meter) == ["gpu:0"]
    meter.close()


@pytest.mark.parametrize(("cpu", "expected"), [(True, ["cpu", "ram", "gpu:0"]), (False, None)])
def test_apples_gpu_is_a_part_of_the_host(
    no_nvidia: None, monkeypatch: pytest.MonkeyPatch, cpu: bool, expected: list[str] | None
) -> None:
    monkeypatch.setattr(host_hardware, "apple_silicon", lambda: True)
    gpu = ConstantMeter({"gpu:0": 5.0})
    for name in ("start", "read", "close"):
        monkeypatch.setattr(AppleGpuMeter, name, lambda self, name=name: getattr(gpu, name)())
    monkeypatch.setattr(AppleGpuMeter, "sources", gpu.sources)
    if expected is None:
        with pytest.raises(MeterError):
            detect((), cpu=cpu)
        return
    meter = detect((), cpu=cpu)  # its GPU is no card
    assert names(meter) == expected
    meter.close()


def test_why_apples_gpu_is_missing_is_reported(
    no_nvidia: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: AppleGpuMeter) -> None:
        raise MeterError("sudo does not let this user run powermetrics")

    monkeypatch.setattr(host_hardware, "apple_silicon", lambda: True)
    monkeypatch.setattr(AppleGpuMeter, "start", refuse)
    found = find()
    assert "powermetrics" in found.missing["Apple"]
    for meter in found.meters:
        meter.close()


def test_it_is_started_and_leaves_nothing_when_closed(nvml_node: Node) -> None:
    threads = set(threading.enumerate())
    meter = detect()
    first = meter.read()
    assert (meter.read() - first).duration_s >= 0
    meter.close()
    meter.close()
    assert set(threading.enumerate()) == threads


# In a separate process, where CodeCarbon imports amdsmi itself.
_WITH_AMDSMI = """
from pathlib import Path
from greentrain.energy import host_hardware, detect
host_hardware.ROOT = Path("root")
meter = detect()
print(*(source.name for source in meter.sources))
meter.close()
"""
_AMDSMI = """
import sys
from tests.energy.amdsmi_standin import Device, Machine
sys.modules["amdsmi"] = Machine(Device(0, "AMD Instinct MI210"))
"""


def test_codecarbon_finds_the_amdsmi_that_is_installed(tmp_path: Path) -> None:
    (tmp_path / "amdsmi.py").write_text(_AMDSMI)
    show_cards(tmp_path / "root", "0x1002")
    done = subprocess.run(
        [sys.executable, "-c", _WITH_AMDSMI],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)]),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stdout.startswith("gpu:0 gpu:") or "nvidia" in done.stderr.lower():
        pytest.skip("this machine has NVIDIA cards")
    assert (done.returncode, done.stdout, done.stderr) == (0, "gpu:0 cpu ram\n", "")
