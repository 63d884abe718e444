"""Windows shorter than the tick of a card's counter, against a simulated driver of known truth."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from greentrain.energy import NvmlMeter, Window, WindowRecorder
from greentrain.energy.windows import total
from tests.nvml import simulation
from tests.nvml.simulation import NOT_SUPPORTED, Node

nvml_library, nvml_node = simulation.nvml_library, simulation.nvml_node

TICK_S, LIMIT_W = 0.1, 400.0


def make_meter(node: Node) -> NvmlMeter:
    meter = NvmlMeter(
        clock=node.clock,
        synchronize=lambda index: None,
        wait=lambda stop, seconds: stop.wait(),  # its thread takes no sample
    )
    meter.start()
    return meter


@pytest.fixture
def meter(nvml_node: Node) -> Iterator[NvmlMeter]:
    """A meter of one card of 300 W with a limit of 400 W, started in the middle of a tick."""
    nvml_node.advance(5.03)
    meter = make_meter(nvml_node)
    yield meter
    meter.close()


@pytest.mark.parametrize("length_s", [0.001, 0.02, 0.099, 0.11, 0.3])
def test_a_window_shorter_than_a_tick_has_its_own_joules(
    nvml_node: Node, meter: NvmlMeter, length_s: float
) -> None:
    windows: list[Window] = []
    recorder = WindowRecorder(meter, windows.append)
    for _ in range(200):
        with recorder.phase("window"):
            nvml_node.advance(length_s)
    # The counter alone shows nothing or whole ticks of 30 J.
    for window in windows:
        assert window.total_j == pytest.approx(300.0 * length_s, abs=0.002)  # it counts in mJ


def test_a_short_window_after_a_long_idle_time_has_its_own_joules(
    nvml_node: Node, meter: NvmlMeter
) -> None:
    card = nvml_node.cards[0]
    card.square(50.0, 300.0, period_s=20.0, duty=0.5, phase_s=19.5)  # high from second 20.5 on
    nvml_node.advance(15.0)
    meter.read()
    nvml_node.advance(5.5)
    before = meter.read()
    nvml_node.advance(0.02)
    assert (meter.read() - before).total_j == pytest.approx(300.0 * 0.02)


@pytest.mark.parametrize("seed", range(40))
def test_no_window_exceeds_the_limit_and_no_joule_is_lost(nvml_node: Node, seed: int) -> None:
    chance = random.Random(seed)
    card = nvml_node.cards[0]
    card.tick_s = chance.choice([0.02, 0.05, TICK_S])
    card.tick_phase_s = chance.uniform(0.0, card.tick_s)
    low_w, high_w = chance.uniform(20.0, 200.0), chance.uniform(200.0, LIMIT_W)
    card.square(low_w, high_w, 10 ** chance.uniform(-2.0, 1.0), duty=chance.uniform(0.1, 0.9))
    card.instant_result = chance.choice([0, NOT_SUPPORTED])  # the power of the last second
    card.power_result = chance.choice([0, 0, NOT_SUPPORTED])  # none: the counter's mean
    nvml_node.advance(5.0 + chance.random())
    meter = make_meter(nvml_node)
    began_s = nvml_node.now_s
    windows: list[Window] = []
    recorder = WindowRecorder(meter, windows.append)
    with recorder.phase("fit"):
        for _ in range(150):
            with recorder.phase("window"):
                nvml_node.advance(10 ** chance.uniform(-3.0, 0.3))
            truth_j = card.energy_j(began_s, nvml_node.now_s)
            assert abs((meter.read().total_j or 0.0) - truth_j) <= 2.0 * TICK_S * LIMIT_W
            nvml_node.advance(chance.choice([0.0, 0.003, 1.5]) * chance.random())
        nvml_node.advance(2.0)
    for window in windows:
        assert window.total_j is not None
        assert 0.0 <= window.total_j <= LIMIT_W * window.reading.duration_s + 1e-6
    # The windows are disjoint and cover the fit. Their sum is that of the counter, to its tick.
    truth_j = card.energy_j(began_s, nvml_node.now_s)
    total_j = total(windows).total_j
    assert total_j == pytest.approx(meter.read().total_j)
    assert abs((total_j or 0.0) - truth_j) <= card.tick_s * high_w + 0.01
    meter.close()


@pytest.mark.parametrize("seed", range(10))
def test_without_a_limit_or_a_power_joules_are_spread_by_time(nvml_node: Node, seed: int) -> None:
    chance = random.Random(seed)
    card = nvml_node.cards[0]
    card.tick_phase_s = chance.uniform(0.0, TICK_S)
    card.limit_w = -1.0  # unknown
    card.power_result = card.instant_result = NOT_SUPPORTED
    nvml_node.advance(5.0)
    meter = make_meter(nvml_node)
    windows: list[Window] = []
    recorder = WindowRecorder(meter, windows.append)
    for _ in range(300):
        with recorder.phase("window"):
            nvml_node.advance(chance.uniform(0.01, 0.05))
    # The counter alone shows up to 3,000 W. After a second, its mean power is known.
    for window in windows[100:]:
        assert 0.5 * 300.0 <= (window.reading.power_w or 0.0) <= 1.5 * 300.0
    truth_j = card.energy_j(5.0, nvml_node.now_s)
    assert total(windows).total_j == pytest.approx(truth_j, abs=2 * TICK_S * 300.0)
    meter.close()


def test_a_card_above_its_limit_loses_no_joules(nvml_node: Node, meter: NvmlMeter) -> None:
    nvml_node.cards[0].limit_w = 250.0  # lowered while it uses 300 W
    for _ in range(100):
        nvml_node.advance(0.05)
        meter.read()
    assert meter.read().total_j == pytest.approx(300.0 * 5.0, abs=3 * TICK_S * 300.0)


def test_the_limit_of_a_card_says_nothing_about_a_module(nvml_node: Node) -> None:
    card = nvml_node.cards[0]
    card.name = b"NVIDIA GH200 480GB"
    card.counter_is_module, card.cpu_w, card.module_power_result = 1, 200.0, 0
    meter = make_meter(nvml_node)
    for _ in range(50):
        nvml_node.advance(0.02)
        assert meter.read().total_j == pytest.approx(500.0 * nvml_node.now_s, abs=0.1)
    meter.close()
