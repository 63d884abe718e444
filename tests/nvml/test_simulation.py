"""The known truth is itself held to what can be worked out by hand."""

from __future__ import annotations

import pynvml
import pytest

from tests.nvml.simulation import NOT_SUPPORTED, Node, bursts


@pytest.fixture
def handle(nvml_node: Node):
    pynvml.nvmlInit()
    yield pynvml.nvmlDeviceGetHandleByIndex(0)
    pynvml.nvmlShutdown()


def test_constant_power_is_its_product_with_time(nvml_node: Node, handle) -> None:
    start_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    nvml_node.advance(10.0)
    # 300 W for 10 s is 3000 J.
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - start_mj == 3_000_000
    assert nvml_node.cards[0].energy_j(0.0, 10.0) == 3000.0
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 300_000


def test_a_square_wave_has_its_exact_integral(nvml_node: Node, handle) -> None:
    card = nvml_node.cards[0]
    card.square(50.0, 350.0, period_s=2.0, duty=0.25)
    card.tick_s = 0.0  # the counter as a continuous one
    start_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    # Each period is 0.5 s at 350 W and 1.5 s at 50 W: 175 + 75 = 250 J. After two and a quarter of
    # them, 4.5 s: 500 J and the 175 J of another burst.
    nvml_node.advance(4.5)
    counted_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - start_mj
    assert counted_mj == pytest.approx(675_000, abs=1)
    assert card.energy_j(0.0, 4.5) == pytest.approx(675.0)
    # The last second: half low, half high.
    assert pynvml.nvmlDeviceGetPowerUsage(handle) == 200_000


def test_the_counter_stands_between_its_ticks(nvml_node: Node, handle) -> None:
    start_mj = pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    nvml_node.advance(0.09)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) == start_mj
    nvml_node.advance(0.02)
    # 300 W for one tick of 0.1 s is 30 J.
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - start_mj == 30_000


def test_without_a_node_the_driver_is_not_loaded(
    nvml_node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NVML_SIMULATION")
    with pytest.raises(pynvml.NVMLError_DriverNotLoaded):
        pynvml.nvmlInit()


def test_it_answers_what_other_tools_ask(nvml_node: Node, handle) -> None:
    card = nvml_node.cards[0]
    card.processes(4242)
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    assert (memory.total, memory.used) == (80 << 30, 1 << 30)
    assert memory.free == memory.total - memory.used
    assert pynvml.nvmlDeviceGetUtilizationRates(handle).gpu == 100
    assert pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU) == 55
    assert pynvml.nvmlDeviceGetTemperatureV(handle, pynvml.NVML_TEMPERATURE_GPU) == 55
    assert pynvml.nvmlDeviceGetPowerManagementLimitConstraints(handle) == [100_000, 400_000]
    assert pynvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) == 400_000
    assert pynvml.nvmlDeviceGetComputeMode(handle) == 0
    assert pynvml.nvmlDeviceGetPersistenceMode(handle) == 1
    assert pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle) == []
    assert pynvml.nvmlDeviceGetArchitecture(handle) == pynvml.NVML_DEVICE_ARCH_AMPERE
    card.counter_result = NOT_SUPPORTED
    assert pynvml.nvmlDeviceGetArchitecture(handle) == pynvml.NVML_DEVICE_ARCH_PASCAL
    with pytest.raises(pynvml.NVMLError_NotSupported):
        pynvml.nvmlDeviceGetC2cModeInfoV(handle)


def test_held_out_bursts_are_the_same_each_time() -> None:
    shapes = bursts(101, 200)
    assert shapes == bursts(101, 200) != bursts(102, 200)
    for period_s, duty, phase_s in shapes:
        assert 0.02 <= period_s <= 10.0
        assert 0.1 <= duty <= 0.9
        assert 0.0 <= phase_s <= period_s
    assert {0.02, 0.04, 0.1, 1.0, 10.0} <= {period_s for period_s, _, _ in shapes[::2]}
