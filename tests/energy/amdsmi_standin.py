"""Replace AMD's library ``amdsmi`` (as of 7.0.2) on a machine without an AMD card."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

RESOLUTION_UJ = 15.259
UNKNOWN = "N/A"


class AmdSmiLibraryException(Exception):
    """As amdsmi's own: no child of anything but ``Exception``."""


class Device:
    """One device as amdsmi lists it; power in W, and a counter that its use moves.

    Args:
        number: Its number; the serial is made of it.
        name: What its maker calls it.
    """

    def __init__(self, number: int, name: str) -> None:
        self.number = number
        self.name = name
        self.serial = f"0x{0xCF1182F2988C0A40 + number:016X}"
        self.power_w: float | str = 300.0
        self.counter: int | None = 10**9
        self.limit_w = 560
        self.hip_id: int | None = None
        self.broken = False

    def use(self, joules: float) -> None:
        """Move the counter."""
        assert self.counter is not None
        self.counter += round(joules * 1e6 / RESOLUTION_UJ)


class Machine(ModuleType):
    """The module, and the machine that it reports."""

    def __init__(self, *devices: Device) -> None:
        super().__init__("amdsmi")
        self.__spec__ = ModuleSpec("amdsmi", None)
        self.devices = list(devices)
        self.refusal = ""
        self.amdsmi_exception = SimpleNamespace(AmdSmiLibraryException=AmdSmiLibraryException)
        self.AmdSmiException = AmdSmiLibraryException

    def amdsmi_init(self) -> None:
        if self.refusal:
            raise AmdSmiLibraryException(self.refusal)

    def amdsmi_get_processor_handles(self) -> list[Device]:
        return list(self.devices)

    def amdsmi_get_gpu_asic_info(self, device: Device) -> dict[str, Any]:
        return {"market_name": device.name, "asic_serial": device.serial}

    def amdsmi_get_gpu_device_uuid(self, device: Device) -> str:
        return f"cfff740c-0000-1000-8011-82f2988c0a4{device.number}"

    def amdsmi_get_gpu_vram_usage(self, device: Device) -> dict[str, int]:
        return {"vram_total": 65520, "vram_used": 10}

    def amdsmi_get_power_cap_info(self, device: Device) -> dict[str, int]:
        return {"power_cap": device.limit_w * 1_000_000}

    def amdsmi_get_energy_count(self, device: Device) -> dict[str, Any]:
        if device.broken or device.counter is None:
            raise AmdSmiLibraryException("AMDSMI_STATUS_NOT_SUPPORTED")
        return {"energy_accumulator": device.counter, "counter_resolution": RESOLUTION_UJ}

    def amdsmi_get_gpu_metrics_info(self, device: Device) -> dict[str, Any]:
        return {"energy_accumulator": device.counter, "average_socket_power": device.power_w}

    def amdsmi_get_power_info(self, device: Device) -> dict[str, Any]:
        if device.broken:
            raise AmdSmiLibraryException("AMDSMI_STATUS_NOT_FOUND")
        return {"average_socket_power": device.power_w}

    def amdsmi_get_gpu_enumeration_info(self, device: Device) -> dict[str, Any]:
        return {"hip_id": UNKNOWN if device.hip_id is None else device.hip_id}


@pytest.fixture
def amd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Machine]:
    """A machine with two AMD cards, which the kernel shows as well."""
    import sys

    from codecarbon.core import gpu_amd

    from greentrain.energy import host_hardware

    machine = Machine(Device(0, "AMD Instinct MI210"), Device(1, "AMD Instinct MI210"))
    monkeypatch.setitem(sys.modules, "amdsmi", machine)
    monkeypatch.setattr(gpu_amd, "amdsmi", machine)
    monkeypatch.setattr(gpu_amd, "AMDSMI_AVAILABLE", True)
    for name in ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    show_cards(tmp_path, "0x1002", "0x1002")
    monkeypatch.setattr(host_hardware, "ROOT", tmp_path)
    yield machine


def show_cards(root: Path, *vendors: str) -> None:
    """Let the kernel show cards of these makers, with their connectors."""
    for index, vendor in enumerate(vendors):
        card = root / f"sys/class/drm/card{index}"
        (card / "device").mkdir(parents=True)
        (card / "device/vendor").write_text(f"{vendor}\n")
        (root / f"sys/class/drm/card{index}-DP-1").mkdir()
