from __future__ import annotations

import threading

import pytest

from greentrain.energy import Meter, detect
from tests.nvml import simulation
from tests.nvml.simulation import Node

nvml_library, nvml_node = simulation.nvml_library, simulation.nvml_node


def names(meter: Meter) -> list[str]:
    return [source.name for source in meter.sources]


def test_cpu_and_ram_are_always_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hides whatever cards there are
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


def test_it_is_started_and_leaves_nothing_when_closed(nvml_node: Node) -> None:
    threads = set(threading.enumerate())
    meter = detect()
    first = meter.read()
    assert (meter.read() - first).duration_s >= 0
    meter.close()
    meter.close()
    assert set(threading.enumerate()) == threads
