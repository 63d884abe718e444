"""NVIDIA cards against a simulated driver of known truth, through the real bindings."""

from __future__ import annotations

import ctypes.util
import logging
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from greentrain.energy.meter import Meter
from greentrain.energy.nvml import NvmlMeter, synchronize_cuda
from greentrain.errors import ConfigurationError, MeterError
from tests.nvml import simulation
from tests.nvml.simulation import NO_PERMISSION, NOT_SUPPORTED, Node, Pacer, bursts

# Fixtures live with the simulated driver; pytest finds them under a test module's own names.
nvml_library, nvml_node = simulation.nvml_library, simulation.nvml_node

MakeMeter = Callable[..., NvmlMeter]


def until_closed(stop: threading.Event, seconds: float) -> bool:
    """Keep the sampling thread from taking samples."""
    return stop.wait()


@pytest.fixture
def make_meter(nvml_node: Node) -> Iterator[MakeMeter]:
    """Start meters by the node's clock; their threads sleep unless a test gives ``wait``."""
    meters: list[NvmlMeter] = []
    threads = set(threading.enumerate())

    def make(devices: list[int | str] | None = None, **options: object) -> NvmlMeter:
        given: dict[str, object] = {"clock": nvml_node.clock, "wait": until_closed, **options}
        meter = NvmlMeter(devices, **given)  # type: ignore[arg-type]
        meters.append(meter)
        meter.start()
        return meter

    yield make
    for meter in meters:
        meter.close()
    assert set(threading.enumerate()) == threads


def names(meter: NvmlMeter) -> list[str]:
    return [source.name for source in meter.sources]


def uuids(meter: NvmlMeter) -> dict[str, str]:
    return {source.name: source.uuid for source in meter.sources}


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


# --- the counter -------------------------------------------------------------------------------


def test_300_watts_for_10_seconds_are_3000_joules(nvml_node: Node, make_meter: MakeMeter) -> None:
    meter = make_meter()
    nvml_node.advance(10.0)
    reading = meter.read()
    assert reading.duration_s == 10.0
    assert reading.energy_j == {"gpu:0": 3000.0}
    assert reading.complete
    (source,) = meter.sources
    assert source.method == "counter"
    assert source.device == f"NVIDIA A100-SXM4-80GB ({nvml_node.uuid(0)})"
    assert source.relative_uncertainty == 0.05
    assert "NVML" in source.reference
    assert source.note == ""
    assert isinstance(meter, Meter)
    assert source.uuid == nvml_node.uuid(0)
    assert source.power_limit_w == 400.0
    assert not meter.covers_cpu


@pytest.mark.parametrize("cards", range(1, 9))
@pytest.mark.parametrize("shape", ["constant", "bursty"])
@pytest.mark.parametrize(("seconds", "reach"), [(10.0, 0.02), (100.0, 0.002)])
def test_the_counter_is_as_exact_as_its_tick(
    nvml_node: Node, make_meter: MakeMeter, cards: int, shape: str, seconds: float, reach: float
) -> None:
    nvml_node.resize(cards)
    for index in range(cards):
        card = nvml_node.cards[index]
        card.tick_phase_s = 0.012 * index
        if shape == "bursty":
            card.square(50.0, 350.0, period_s=0.37, phase_s=0.05 * index)
        else:
            card.constant(100.0 * (index + 1))
    nvml_node.advance(5.03)  # nothing begins on a tick
    meter = make_meter()
    nvml_node.advance(seconds)
    energy_j = meter.read().energy_j
    assert len(energy_j) == cards
    truths_j = [nvml_node.cards[index].energy_j(5.03, 5.03 + seconds) for index in range(cards)]
    if shape == "constant":
        assert truths_j[0] == pytest.approx(100.0 * seconds)
    for truth_j, joules in zip(truths_j, energy_j.values(), strict=True):
        assert joules == pytest.approx(truth_j, rel=reach)
    assert sum(v for v in energy_j.values() if v) == pytest.approx(sum(truths_j), rel=reach)


def test_windows_telescope(nvml_node: Node, make_meter: MakeMeter) -> None:
    nvml_node.cards[0].square(50.0, 350.0, period_s=0.37)
    meter = make_meter()
    first = meter.read()
    windows = []
    before = first
    for _ in range(70):  # 70 windows of 33 ms, shorter than the counter's tick
        nvml_node.advance(0.033)
        now = meter.read()
        windows.append((now - before).energy_j["gpu:0"])
        before = now
    assert sum(v for v in windows if v) == (before - first).energy_j["gpu:0"]


def test_work_is_waited_for_on_the_cards_measured_and_no_other(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.resize(3)
    waited: list[int] = []
    meter = make_meter([2, 0], synchronize=waited.append)
    assert waited == [2, 0]
    meter.read()
    assert waited == [2, 0, 2, 0]
    heartbeat = threading.Thread(target=meter.read)
    heartbeat.start()
    heartbeat.join()
    assert waited == [2, 0, 2, 0]


def test_a_failing_synchronisation_stops_nothing(nvml_node: Node, make_meter: MakeMeter) -> None:
    def fail(index: int) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    meter = make_meter(synchronize=fail)
    nvml_node.advance(10.0)
    assert meter.read().total_j == 3000.0


class FakeCuda:
    """The part of ``torch.cuda`` that :func:`synchronize_cuda` and the numbering use."""

    def __init__(self, *uuids: str, initialized: bool = True, reserved: int = 1) -> None:
        self.uuids = uuids
        self.initialized = initialized
        self.reserved = reserved
        self.capturing = False
        self.synchronized: list[int] = []

    def is_initialized(self) -> bool:
        return self.initialized

    def is_current_stream_capturing(self) -> bool:
        return self.capturing

    def memory_reserved(self, index: int) -> int:
        return self.reserved

    def synchronize(self, index: int) -> None:
        self.synchronized.append(index)

    def device_count(self) -> int:
        return len(self.uuids)

    def get_device_properties(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(uuid=self.uuids[index])


@pytest.fixture
def torch_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCuda], FakeCuda]:
    def install(cuda: FakeCuda) -> FakeCuda:
        monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
        return cuda

    return install


def test_cuda_is_synchronised_where_it_runs_only(
    torch_with: Callable[[FakeCuda], FakeCuda], monkeypatch: pytest.MonkeyPatch
) -> None:
    running = torch_with(FakeCuda())
    synchronize_cuda(3)
    assert running.synchronized == [3]
    running.capturing = True
    synchronize_cuda(3)
    assert running.synchronized == [3]
    for idle in (FakeCuda(initialized=False), FakeCuda(reserved=0)):
        torch_with(idle)
        synchronize_cuda(3)
        assert idle.synchronized == []
    monkeypatch.delitem(sys.modules, "torch")
    synchronize_cuda(3)
    assert "torch" not in sys.modules


# --- faults of the counter ---------------------------------------------------------------------


def test_a_counter_that_restarts_is_bridged_with_one_warning(
    nvml_node: Node, make_meter: MakeMeter, caplog: pytest.LogCaptureFixture
) -> None:
    nvml_node.cards[0].restart_s = 25.0
    meter = make_meter()
    joules = []
    for _ in range(5):
        nvml_node.advance(10.0)
        joules.append(meter.read().energy_j["gpu:0"])
    # The 5 s before the restart are unknown: 20 s, then 25 s, 35 s and so on at 300 W.
    assert joules == [3000.0, 6000.0, 7500.0, 10500.0, 13500.0]
    (warning,) = warnings_of(caplog)
    assert "restarted" in warning
    assert "restarted" in meter.sources[0].note


def test_a_counter_that_restarts_while_it_is_compared_is_not_suspect(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.cards[0].restart_s = 2.0
    meter = make_meter(wait=Pacer(nvml_node, until_s=20.0))
    assert meter._sampler is not None
    meter._sampler.join(timeout=30)
    nvml_node.advance(20.0 - nvml_node.now_s)
    assert not meter._sampler.is_alive()  # it was compared again, and agreed
    # The 2 s before the restart are missing of 20 s at 300 W.
    assert meter.read().total_j == pytest.approx(5400.0)
    (source,) = meter.sources
    assert "restarted" in source.note
    assert "suspect" not in source.note


def test_a_counter_may_restart_again(nvml_node: Node, make_meter: MakeMeter) -> None:
    card = nvml_node.cards[0]
    meter = make_meter()
    seen = [0.0]
    for restart_s, since_start_j in ((15.0, 1e6), (35.0, -15.0 * 300.0)):
        card.restart_s, card.base_j = restart_s, since_start_j  # the second follows the first
        for _ in range(2):
            nvml_node.advance(10.0)
            total_j = meter.read().total_j
            assert total_j is not None
            seen.append(total_j)
    # 3 kJ for each 10 s, of which those with a restart lose their first 5 s.
    assert seen == [0.0, 3000.0, 4500.0, 7500.0, 9000.0]


def test_a_modules_counter_may_restart_too(nvml_node: Node, make_meter: MakeMeter) -> None:
    card = nvml_node.cards[0]
    card.counter_result, card.module_energy_result, card.cpu_w = NOT_SUPPORTED, 0, 100.0
    card.restart_s = 15.0
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().total_j == pytest.approx(4000.0)
    nvml_node.advance(10.0)
    assert meter.read().total_j == pytest.approx(6000.0)


def test_a_counter_that_falls_without_restarting_counts_nothing(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.cards[0].base_j = 5e9
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().total_j == 3000.0
    nvml_node.cards[0].base_j = 5e9 - 1e6  # 1 MJ backwards: 5 GJ in 10 s is no restart
    nvml_node.advance(10.0)
    assert meter.read().total_j == 3000.0
    nvml_node.advance(10.0)
    assert meter.read().total_j == 6000.0


def test_a_lost_card_is_unknown_from_then_on(
    nvml_node: Node, make_meter: MakeMeter, caplog: pytest.LogCaptureFixture
) -> None:
    nvml_node.resize(2)
    nvml_node.cards[1].lost_s = 15.0
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().energy_j == {"gpu:0": 3000.0, "gpu:1": 3000.0}
    for _ in range(2):
        nvml_node.advance(10.0)
        meter.read()
    nvml_node.cards[1].lost_s = -1.0  # a card that comes back has a hole in its figure
    reading = meter.read()
    assert reading.energy_j == {"gpu:0": 9000.0, "gpu:1": None}
    assert not reading.complete
    (warning,) = warnings_of(caplog)
    assert "gpu:1" in warning
    assert "unknown from here on" in meter.sources[1].note


def test_a_passing_failure_leaves_no_hole_in_a_counter(
    nvml_node: Node, make_meter: MakeMeter, caplog: pytest.LogCaptureFixture
) -> None:
    meter = make_meter()
    nvml_node.cards[0].counter_result = 999
    nvml_node.advance(10.0)
    assert meter.read().energy_j == {"gpu:0": None}
    assert meter.read().energy_j == {"gpu:0": None}
    nvml_node.cards[0].counter_result = 0
    assert meter.read().energy_j == {"gpu:0": 3000.0}
    assert len(warnings_of(caplog)) == 1


# --- sampled power -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low_w", "high_w", "period_s", "duty"),
    [
        (300.0, 300.0, 1.0, 0.5),
        (50.0, 350.0, 7.3, 0.5),
        (50.0, 350.0, 0.5, 0.5),
        (50.0, 350.0, 0.37, 0.5),
        (50.0, 350.0, 0.2, 0.3),  # a whole number of samples at an even 10 Hz
        (50.0, 350.0, 0.1, 0.5),  # the same, and faster than the samples
    ],
)
@pytest.mark.parametrize("phase", [0.0, 0.21, 0.48, 0.77])
def test_sampled_power_is_within_3_percent_at_60_seconds(
    nvml_node: Node,
    make_meter: MakeMeter,
    low_w: float,
    high_w: float,
    period_s: float,
    duty: float,
    phase: float,
) -> None:
    card = nvml_node.cards[0]
    card.counter_result = NOT_SUPPORTED
    card.square(low_w, high_w, period_s, duty, phase * period_s)
    pacer = Pacer(nvml_node, until_s=60.0)
    meter = make_meter(wait=pacer)
    assert pacer.arrived.wait(timeout=30)
    reading = meter.read()
    assert reading.duration_s == pytest.approx(60.0)
    assert reading.total_j == pytest.approx(card.energy_j(0.0, 60.0), rel=0.03)
    assert len(pacer.waits_s) >= 6000  # 100 Hz or more
    assert max(pacer.waits_s) < 0.0121  # at random around 8 ms
    assert min(pacer.waits_s) < 0.005
    (source,) = meter.sources
    assert source.method == "sampled"
    assert source.relative_uncertainty == 0.1
    assert "no energy counter (Not Supported): instant power" in source.note


def worst_error(
    node: Node, make_meter: MakeMeter, batches: int, wait: Callable[[Node, float], Pacer]
) -> float:
    """Measure held-out bursts for 60 s, eight cards at a time; return the largest error."""
    shapes = bursts(seed=101, count=8 * batches)
    node.resize(8)
    worst = 0.0
    for start in range(0, len(shapes), 8):
        for card, shape in zip(node.cards, shapes[start : start + 8], strict=True):
            card.counter_result = NOT_SUPPORTED
            card.square(50.0, 350.0, *shape)
        node.advance(5.0)  # so that a second's average is one of this shape only
        begin_s = node.now_s
        pacer = wait(node, begin_s + 60.0)
        meter = make_meter(wait=pacer)
        assert pacer.arrived.wait(timeout=60)
        for card, joules in zip(node.cards, meter.read().energy_j.values(), strict=True):
            assert joules is not None
            worst = max(worst, abs(joules / card.energy_j(begin_s, begin_s + 60.0) - 1))
    return worst


def test_bursts_that_chose_nothing_are_sampled_within_3_percent(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    assert worst_error(nvml_node, make_meter, batches=8, wait=Pacer) <= 0.03


def test_bursts_as_a_driver_averages_them_are_within_3_percent(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    for card in nvml_node.cards:
        card.instant_result = NOT_SUPPORTED
    assert worst_error(nvml_node, make_meter, batches=16, wait=Pacer) <= 0.03


@pytest.mark.parametrize("hertz", [10.0, 25.0, 50.0, 125.0])
def test_the_held_out_bursts_would_show_a_scheme_that_keeps_step(
    nvml_node: Node, make_meter: MakeMeter, hertz: float
) -> None:
    class Even(Pacer):
        def __call__(self, stop: threading.Event, seconds: float) -> bool:
            return super().__call__(stop, 1 / hertz)

    assert worst_error(nvml_node, make_meter, batches=8, wait=Even) > 0.03


def test_a_slow_driver_is_asked_less_often(nvml_node: Node, make_meter: MakeMeter) -> None:
    nvml_node.cards[0].counter_result = NOT_SUPPORTED
    pacer = Pacer(nvml_node, until_s=60.0)

    def clock() -> float:
        nvml_node.advance(0.001)  # each sample takes 2 ms, by the thread's three looks at the clock
        return nvml_node.now_s

    make_meter(wait=pacer, clock=clock)
    assert pacer.arrived.wait(timeout=30)
    # 2 ms are a tenth of 20 ms: 10 to 30 ms at random. Each wait is followed by 3 ms of looks.
    later_s = pacer.waits_s[1:]
    assert 0.0099 <= min(later_s) < 0.012
    assert 0.028 < max(later_s) <= 0.0301

    def slower() -> float:
        nvml_node.advance(1.0)
        return nvml_node.now_s

    slow = Pacer(nvml_node, until_s=nvml_node.now_s + 300.0)
    make_meter(wait=slow, clock=slower)
    assert slow.arrived.wait(timeout=30)
    assert 0.05 <= min(slow.waits_s[1:]) < max(slow.waits_s) <= 0.15  # ten times a second remain


def test_sampling_draws_none_of_trainings_random_numbers(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.cards[0].counter_result = NOT_SUPPORTED
    state = random.getstate()
    pacer = Pacer(nvml_node, until_s=1.0)
    make_meter(wait=pacer)
    assert pacer.arrived.wait(timeout=30)
    assert random.getstate() == state


def test_power_that_cannot_be_read_for_a_while_is_bridged_and_noted(
    nvml_node: Node, make_meter: MakeMeter, caplog: pytest.LogCaptureFixture
) -> None:
    card = nvml_node.cards[0]
    card.counter_result = NOT_SUPPORTED
    meter = make_meter()
    card.instant_result = 999
    nvml_node.advance(10.0)
    assert meter.read().energy_j == {"gpu:0": None}
    card.instant_result = 0
    nvml_node.advance(10.0)
    # 300 W before and after: 300 W are taken for what lies between.
    assert meter.read().total_j == 6000.0
    assert "bridged" in meter.sources[0].note
    assert len(warnings_of(caplog)) == 1


@pytest.mark.parametrize("code", [NOT_SUPPORTED, NO_PERMISSION, 13])
def test_a_driver_without_the_instant_field_is_asked_for_its_average(
    nvml_node: Node, make_meter: MakeMeter, code: int
) -> None:
    card = nvml_node.cards[0]
    card.counter_result, card.instant_result = 13, code  # 13: a driver too old for the function
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().total_j == 3000.0
    assert "no energy counter (Function Not Found): averaged power" in meter.sources[0].note


def test_without_the_instant_field_the_averaged_power_is_sampled(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    card = nvml_node.cards[0]
    card.counter_result = card.instant_result = NOT_SUPPORTED
    card.square(50.0, 350.0, 0.5)  # 200 W on average over any second
    nvml_node.advance(5.0)
    pacer = Pacer(nvml_node, until_s=65.0)
    meter = make_meter(wait=pacer)
    assert pacer.arrived.wait(timeout=30)
    # 200 W for 60 s is 12 kJ.
    assert meter.read().total_j == pytest.approx(12_000.0, rel=1e-3)
    assert "averaged power" in meter.sources[0].note


def test_a_reading_ends_its_window_with_a_sample_of_its_own(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    card = nvml_node.cards[0]
    card.counter_result = NOT_SUPPORTED
    meter = make_meter()  # whose thread takes none
    nvml_node.advance(10.0)
    assert meter.read().total_j == 3000.0
    card.constant(100.0)
    nvml_node.advance(10.0)
    # From 300 W to 100 W in 10 s, by the trapezoidal rule: 2000 J more.
    assert meter.read().total_j == 5000.0


def test_a_sampled_card_that_is_lost_is_unknown(
    nvml_node: Node, make_meter: MakeMeter, caplog: pytest.LogCaptureFixture
) -> None:
    card = nvml_node.cards[0]
    card.counter_result = NOT_SUPPORTED
    card.lost_s = 30.0
    pacer = Pacer(nvml_node, until_s=60.0)
    meter = make_meter(wait=pacer)
    assert meter._sampler is not None
    meter._sampler.join(timeout=30)  # nothing is left to sample
    assert not meter._sampler.is_alive()
    assert meter.read().energy_j == {"gpu:0": None}
    assert len(warnings_of(caplog)) == 1


def test_a_card_with_neither_is_not_measurable_and_never_0(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    card = nvml_node.cards[0]
    card.counter_result = NO_PERMISSION
    card.instant_result = card.power_result = NOT_SUPPORTED
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().energy_j == {"gpu:0": None}
    (source,) = meter.sources
    assert "not measurable" in source.note
    assert "Insufficient Permissions" in source.note
    assert source.relative_uncertainty is None


def test_power_that_reads_0_measures_nothing(nvml_node: Node, make_meter: MakeMeter) -> None:
    card = nvml_node.cards[0]
    card.counter_result = NOT_SUPPORTED
    card.constant(0.0)
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().energy_j == {"gpu:0": None}
    assert "nor power (reads 0)" in meter.sources[0].note


def test_the_thread_ends_with_close(nvml_node: Node) -> None:
    nvml_node.cards[0].counter_result = NOT_SUPPORTED
    before = set(threading.enumerate())
    meter = NvmlMeter(clock=nvml_node.clock)  # on the real wait
    meter.start()
    (thread,) = set(threading.enumerate()) - before
    assert thread.daemon
    meter.close()
    assert not thread.is_alive()
    meter.close()


# --- counter against power ---------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "shown_w"), [(0.5, 150), (2.0, 600)])
def test_a_counter_that_contradicts_power_is_suspect(
    nvml_node: Node,
    make_meter: MakeMeter,
    caplog: pytest.LogCaptureFixture,
    gain: float,
    shown_w: int,
) -> None:
    nvml_node.cards[0].gain = gain
    pacer = Pacer(nvml_node, until_s=60.0)
    meter = make_meter(wait=pacer)
    assert meter._sampler is not None
    meter._sampler.join(timeout=30)  # the comparison takes some seconds, then no thread is left
    assert nvml_node.now_s < 10.0
    (source,) = meter.sources
    assert source.method == "counter"
    assert "suspect" in source.note
    found = re.search(r"the counter shows (\d+) W and the power reading 300 W", source.note)
    assert found is not None
    assert int(found[1]) == pytest.approx(shown_w, rel=0.02)  # a tick of 0.1 s in 5 s
    assert source.relative_uncertainty is None
    assert len(warnings_of(caplog)) == 1
    nvml_node.advance(10.0 - nvml_node.now_s)
    assert meter.read().total_j == pytest.approx(10.0 * shown_w)


def test_a_counter_that_stands_still_is_unknown(nvml_node: Node, make_meter: MakeMeter) -> None:
    nvml_node.cards[0].gain = 0.0
    meter = make_meter(wait=Pacer(nvml_node, until_s=60.0))
    assert meter._sampler is not None
    meter._sampler.join(timeout=30)
    assert meter.read().energy_j == {"gpu:0": None}


@pytest.mark.parametrize("period_s", [0.11, 0.4, 3.0, 10.0])
def test_bursts_make_no_counter_suspect(
    nvml_node: Node, make_meter: MakeMeter, caplog: pytest.LogCaptureFixture, period_s: float
) -> None:
    nvml_node.cards[0].square(50.0, 350.0, period_s)
    meter = make_meter(wait=Pacer(nvml_node, until_s=60.0))
    assert meter._sampler is not None
    meter._sampler.join(timeout=30)
    assert not meter._sampler.is_alive()
    assert meter.sources[0].note == ""
    assert warnings_of(caplog) == []


def test_a_comparison_with_too_few_samples_blames_nothing(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.cards[0].square(50.0, 350.0, 20.0, duty=0.2)
    arrived = threading.Event()

    def starved(stop: threading.Event, seconds: float) -> bool:
        """A thread that gets its turn every 4 s only."""
        if nvml_node.now_s < 40.0:
            nvml_node.advance(4.0)
            return stop.is_set()
        arrived.set()
        return stop.wait()

    meter = make_meter(wait=starved)
    assert arrived.wait(timeout=30)
    assert meter.sources[0].note == ""


# --- the power limit ---------------------------------------------------------------------------


def test_the_power_limit_is_the_one_in_force_when_asked(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    card = nvml_node.cards[0]
    meter = make_meter()
    assert meter.sources[0].power_limit_w == 400.0
    card.limit_w = 250.0
    nvml_node.advance(0.5)
    assert meter.sources[0].power_limit_w == 400.0  # asked of the driver once a second
    nvml_node.advance(0.5)
    assert meter.sources[0].power_limit_w == 250.0
    meter.close()
    card.limit_w = 100.0
    nvml_node.advance(10.0)
    assert meter.sources[0].power_limit_w == 250.0  # as it was last seen


def test_a_power_limit_that_cannot_be_read_is_unknown(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.resize(3)
    nvml_node.cards[0].limit_w = -1.0  # not supported
    nvml_node.cards[1].limit_w = 0.0
    meter = make_meter()
    assert [source.power_limit_w for source in meter.sources] == [None, None, 400.0]
    nvml_node.cards[2].lost_s = 5.0
    nvml_node.advance(10.0)
    assert meter.sources[2].power_limit_w is None


# --- which cards -------------------------------------------------------------------------------


@pytest.fixture
def eight_cards(nvml_node: Node) -> Node:
    """Eight cards, of which number i uses 100 (i + 1) watts."""
    nvml_node.resize(8)
    for index, card in enumerate(nvml_node.cards):
        card.constant(100.0 * (index + 1))
    return nvml_node


@pytest.mark.parametrize(
    ("mask", "watts"),
    [
        (None, [100, 200, 300, 400, 500, 600, 700, 800]),
        ("3", [400]),
        ("5,1", [600, 200]),
        (" 5 , 1 ", [600, 200]),
        ("0,2,-1,1", [100, 300]),
        ("0,99,1", [100]),
        ("1x,2", [200, 300]),
        ("GPU-33333333-0000-4000-8000-000000000003", [300]),
        ("GPU-3", [300]),
        ("GPU-8,GPU-2222", [800, 200]),
        ("GPU-8,GPU-nobody,GPU-1", [800]),
        # The first entry decides the kind of all.
        ("GPU-8,1", [800]),
        ("GPU-8, GPU-2", [800]),
        ("1,GPU-8", [200]),
    ],
)
def test_masks_name_the_cards_as_cuda_reads_them(
    eight_cards: Node,
    make_meter: MakeMeter,
    monkeypatch: pytest.MonkeyPatch,
    mask: str | None,
    watts: list[int],
) -> None:
    if mask is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    meter = make_meter()
    eight_cards.advance(10.0)
    assert meter.read().energy_j == {
        f"gpu:{index}": 10.0 * power for index, power in enumerate(watts)
    }


@pytest.mark.parametrize(
    "mask", ["GPU-8,1", "GPU-8, GPU-2", "GPU-8,GPU-2", "1,GPU-8", "5,1", " 5 , 1 ", "0,2,-1,1"]
)
def test_masks_show_as_many_cards_as_torch_counts(
    eight_cards: Node, make_meter: MakeMeter, monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    import torch

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    assert len(make_meter().sources) == len(torch.cuda._parse_visible_devices())


@pytest.mark.parametrize(
    "mask", ["", " GPU-8", "-1", "GPU-", "1,1", "GPU-2,GPU-22", "nonsense", "8"]
)
def test_a_mask_that_shows_no_card_says_so(
    eight_cards: Node, make_meter: MakeMeter, monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    with pytest.raises(MeterError, match="no NVIDIA card is visible") as caught:
        make_meter()
    assert repr(mask) in str(caught.value)


@pytest.mark.parametrize(
    ("devices", "energy_j"),
    [
        ([2], {"gpu:2": 5000.0}),
        ([2, 0], {"gpu:2": 5000.0, "gpu:0": 8000.0}),
        (["GPU-5"], {"gpu:2": 5000.0}),
        (["88888888-0000-4000-8000-000000000008"], {"gpu:0": 8000.0}),
        ([0, "GPU-8"], {"gpu:0": 8000.0}),
    ],
)
def test_devices_are_counted_within_the_visible_ones(
    eight_cards: Node,
    make_meter: MakeMeter,
    monkeypatch: pytest.MonkeyPatch,
    devices: list[int | str],
    energy_j: dict[str, float],
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,1,4")
    meter = make_meter(devices)
    eight_cards.advance(10.0)
    assert meter.read().energy_j == energy_j


def test_one_card_of_eight_is_the_only_one_that_is_read(
    eight_cards: Node, make_meter: MakeMeter
) -> None:
    for index in (0, 1, 3, 4, 5, 6, 7):  # faults of the others do not matter here
        eight_cards.cards[index].counter_result = eight_cards.cards[index].instant_result = 999
    meter = make_meter([2])
    before = eight_cards.reads
    eight_cards.advance(10.0)
    assert meter.read().energy_j == {"gpu:2": 3000.0}
    assert eight_cards.reads == before + 1
    assert uuids(meter) == {"gpu:2": eight_cards.uuid(2)}


@pytest.mark.parametrize("device", [3, "GPU-1", "GPU-"])
def test_a_device_that_is_not_visible_is_refused(
    eight_cards: Node,
    make_meter: MakeMeter,
    monkeypatch: pytest.MonkeyPatch,
    device: int | str,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,1,4")
    with pytest.raises(ConfigurationError, match="devices has"):
        make_meter([device])


@pytest.mark.parametrize("devices", [[], "0", 0, [-1], [True], [""], [1.0]])
def test_devices_that_cannot_be_are_refused_at_once(devices: object) -> None:
    with pytest.raises(ConfigurationError, match="devices"):
        NvmlMeter(devices)  # type: ignore[arg-type]


def test_cards_that_may_not_be_opened_are_not_counted(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.resize(3)
    nvml_node.cards[0].handle_result = NO_PERMISSION
    meter = make_meter()
    assert list(uuids(meter).values()) == [nvml_node.uuid(1), nvml_node.uuid(2)]
    assert names(meter) == ["gpu:0", "gpu:1"]


def test_cards_that_cannot_be_listed_are_a_meters_error(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.resize(-1)
    with pytest.raises(MeterError, match="cannot be listed: Unknown Error"):
        make_meter()


def test_a_card_from_before_mig_is_a_card(nvml_node: Node, make_meter: MakeMeter) -> None:
    nvml_node.cards[0].mig = -1
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().total_j == 3000.0
    assert meter.sources[0].note == ""


def test_with_no_card_that_may_be_opened_permission_is_named(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.cards[0].handle_result = NO_PERMISSION
    with pytest.raises(MeterError, match="Insufficient Permissions"):
        make_meter()


def test_a_node_without_cards_says_so(nvml_node: Node, make_meter: MakeMeter) -> None:
    nvml_node.resize(0)
    with pytest.raises(MeterError, match="finds no card"):
        make_meter()


@pytest.mark.parametrize(
    ("order", "mask", "doubtful"),
    [
        (None, None, True),
        (None, "1,0", True),
        ("FASTEST_FIRST", "0", True),
        ("PCI_BUS_ID", "1,0", False),
        (None, "GPU-2,GPU-1", False),
    ],
)
def test_the_order_of_different_cards_is_doubtful_without_cuda(
    nvml_node: Node,
    make_meter: MakeMeter,
    monkeypatch: pytest.MonkeyPatch,
    order: str | None,
    mask: str | None,
    doubtful: bool,
) -> None:
    nvml_node.resize(2)
    nvml_node.cards[1].name = b"NVIDIA T400 4GB"
    for name, value in (("CUDA_DEVICE_ORDER", order), ("CUDA_VISIBLE_DEVICES", mask)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert all(("CUDA_DEVICE_ORDER" in source.note) == doubtful for source in make_meter().sources)


def test_a_cuda_that_runs_tells_its_own_order(
    nvml_node: Node, make_meter: MakeMeter, torch_with: Callable[[FakeCuda], FakeCuda]
) -> None:
    nvml_node.resize(2)
    nvml_node.cards[0].name = b"NVIDIA T400 4GB"
    plain = [nvml_node.uuid(index).removeprefix("GPU-") for index in (1, 0)]
    torch_with(FakeCuda(*plain))
    meter = make_meter()
    assert uuids(meter) == {"gpu:0": nvml_node.uuid(1), "gpu:1": nvml_node.uuid(0)}
    assert meter.sources[0].note == ""


class FailingCuda(FakeCuda):
    """A CUDA in trouble, or a torch whose devices have no UUID."""

    def get_device_properties(self, index: int) -> SimpleNamespace:
        raise AttributeError("uuid")


@pytest.mark.parametrize("cuda", [FakeCuda("of-an-unknown-card"), FailingCuda("any")])
def test_a_cuda_that_cannot_tell_leaves_the_mask_to_speak(
    eight_cards: Node,
    make_meter: MakeMeter,
    monkeypatch: pytest.MonkeyPatch,
    torch_with: Callable[[FakeCuda], FakeCuda],
    cuda: FakeCuda,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6")
    torch_with(cuda)
    assert uuids(make_meter()) == {"gpu:0": eight_cards.uuid(6)}


# --- shared and composite cards ----------------------------------------------------------------


@pytest.mark.parametrize("old_names", [False, True])
def test_a_mig_instance_gives_its_cards_figure_labelled_shared(
    eight_cards: Node, make_meter: MakeMeter, monkeypatch: pytest.MonkeyPatch, old_names: bool
) -> None:
    eight_cards.cards[5].mig = 3
    eight_cards.cards[5].mig_old_names = old_names
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", eight_cards.mig_uuid(5, 1))
    meter = make_meter()
    eight_cards.advance(10.0)
    assert meter.read().energy_j == {"gpu:0": 6000.0}
    assert uuids(meter) == {"gpu:0": eight_cards.uuid(5)}
    assert "shared: MIG" in meter.sources[0].note


def test_the_old_form_of_a_mig_uuid_fits_a_new_driver(
    eight_cards: Node, make_meter: MakeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    eight_cards.cards[5].mig = 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", f"MIG-{eight_cards.uuid(5)}/2/0")
    assert uuids(make_meter()) == {"gpu:0": eight_cards.uuid(5)}


def test_two_instances_of_one_card_are_counted_once(
    eight_cards: Node, make_meter: MakeMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    eight_cards.cards[5].mig = 3
    both = ",".join(eight_cards.mig_uuid(5, instance) for instance in (0, 1))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", both)
    meter = make_meter()
    eight_cards.advance(10.0)
    assert meter.read().energy_j == {"gpu:0": 6000.0}


@pytest.mark.parametrize("mask", ["MIG-nobody", "MIG-GPU-6/7/0", "MIG-GPU-1/1/0"])
def test_an_instance_that_is_not_there_shows_no_card(
    eight_cards: Node, make_meter: MakeMeter, monkeypatch: pytest.MonkeyPatch, mask: str
) -> None:
    eight_cards.cards[5].mig = 3
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    with pytest.raises(MeterError, match="no NVIDIA card is visible"):
        make_meter()


def test_other_processes_are_named_and_nothing_is_divided(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    card = nvml_node.cards[0]
    card.processes(os.getpid())
    meter = make_meter()
    assert meter.sources[0].note == ""
    card.processes(os.getpid(), 4242, 4243)
    nvml_node.advance(100.0)  # looked for once a minute
    assert meter.read().total_j == 30_000.0
    assert "shared: 2 other processes" in meter.sources[0].note


_NOBODY = 2**22 + 1  # more than Linux gives out


@pytest.mark.parametrize(
    ("pids", "others"),
    [
        ((_NOBODY,), 0),  # in a container: this process by its number on the host
        ((_NOBODY, _NOBODY + 1), 1),
        ((os.getppid(),), 1),
        ((os.getpid(), _NOBODY), 1),
    ],
)
def test_in_a_container_this_process_is_not_taken_for_another(
    nvml_node: Node, make_meter: MakeMeter, pids: tuple[int, ...], others: int
) -> None:
    nvml_node.cards[0].processes(*pids)
    note = make_meter().sources[0].note
    assert ("shared: 1 other process on the card" in note) == (others == 1)
    assert ("shared" in note) == (others > 0)


def test_a_driver_that_tells_no_processes_is_no_trouble(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    nvml_node.cards[0].pid_count = -1
    meter = make_meter()
    nvml_node.advance(100.0)
    assert meter.read().total_j == 30_000.0
    assert meter.sources[0].note == ""


def test_a_gh200s_counter_covers_its_module(nvml_node: Node, make_meter: MakeMeter) -> None:
    card = nvml_node.cards[0]
    card.name = b"NVIDIA GH200 480GB"
    card.counter_is_module, card.cpu_w, card.module_power_result = 1, 100.0, 0
    pacer = Pacer(nvml_node, until_s=10.0)
    meter = make_meter(wait=pacer)
    assert meter._sampler is not None
    meter._sampler.join(timeout=30)
    nvml_node.advance(10.0 - nvml_node.now_s)
    # GPU and CPU: 300 W and 100 W for 10 s.
    assert meter.read().total_j == pytest.approx(4000.0)
    assert meter.covers_cpu
    assert meter.sources[0].note.startswith("module")  # and not suspect


@pytest.mark.parametrize(("plain_is_module", "joules"), [(0, 3000.0), (1, 4000.0)])
def test_a_superchips_own_module_counter_tells_what_the_plain_one_covers(
    nvml_node: Node, make_meter: MakeMeter, plain_is_module: int, joules: float
) -> None:
    card = nvml_node.cards[0]
    card.name = b"NVIDIA GB200"
    card.cpu_w, card.module_energy_result, card.module_power_result = 100.0, 0, 0
    card.counter_is_module = plain_is_module
    nvml_node.advance(10_000.0)
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().total_j == pytest.approx(joules)
    assert meter.covers_cpu == bool(plain_is_module)


def test_the_modules_counter_serves_where_the_card_has_none(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    card = nvml_node.cards[0]
    card.counter_result, card.module_energy_result, card.cpu_w = NOT_SUPPORTED, 0, 100.0
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().total_j == pytest.approx(4000.0)
    assert meter.covers_cpu
    assert meter.sources[0].method == "counter"


def test_the_modules_power_serves_last(nvml_node: Node, make_meter: MakeMeter) -> None:
    card = nvml_node.cards[0]
    card.counter_result = card.instant_result = card.power_result = NOT_SUPPORTED
    card.module_power_result, card.cpu_w = 0, 100.0
    meter = make_meter()
    nvml_node.advance(10.0)
    assert meter.read().total_j == pytest.approx(4000.0)
    assert meter.covers_cpu
    assert meter.sources[0].method == "sampled"


# --- life and death ----------------------------------------------------------------------------


def test_start_is_harmless_twice_and_afresh_after_close(
    nvml_node: Node, make_meter: MakeMeter
) -> None:
    meter = make_meter()
    nvml_node.advance(10.0)
    meter.start()
    assert meter.read().total_j == 3000.0
    meter.close()
    reading = meter.read()
    assert reading.energy_j == {"gpu:0": None}
    assert names(meter) == ["gpu:0"]
    meter.start()
    nvml_node.advance(1.0)
    assert meter.read().total_j == pytest.approx(300.0)


def test_before_the_start_nothing_is_known(nvml_node: Node) -> None:
    meter = NvmlMeter()
    assert meter.sources == ()
    assert meter.read().energy_j == {}
    assert meter.read().total_j is None
    meter.close()


@pytest.mark.parametrize(
    ("code", "named"),
    [
        (4, "no permission"),
        (9, "not loaded"),
        (12, "libnvidia-ml.so.1 was not found"),
        (13, "too old"),
        (18, "reboot"),
        (999, "Unknown Error"),
    ],
)
def test_an_nvml_that_refuses_is_one_clear_sentence(
    nvml_node: Node, make_meter: MakeMeter, code: int, named: str
) -> None:
    nvml_node.refuse(code)
    with pytest.raises(MeterError, match=named):
        make_meter()
    nvml_node.refuse(0)
    make_meter()


def test_missing_bindings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(MeterError, match="pip install nvidia-ml-py"):
        NvmlMeter().start()


_OTHER_PROCESS = """
import sys
from greentrain.energy.nvml import NvmlMeter
from greentrain.errors import MeterError
assert "pynvml" not in sys.modules and "torch" not in sys.modules

def refuse(event, arguments):
    if event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.fork"):
        raise RuntimeError(f"a process was started: {arguments}")

sys.addaudithook(refuse)
meter = NvmlMeter()
try:
    meter.start()
except MeterError as error:
    print(error)
else:
    meter.read()
    print([source.device for source in meter.sources])
    meter.close()
"""


def _run_elsewhere(**environment: str) -> str:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "NVML_"))}
    command = [sys.executable, "-c", _OTHER_PROCESS]
    done = subprocess.run(
        command, env=kept | environment, capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.mark.skipif(
    ctypes.util.find_library("nvidia-ml") is not None, reason="this machine has an NVIDIA driver"
)
def test_a_machine_without_nvml_says_what_is_missing() -> None:
    assert "libnvidia-ml.so.1 was not found; install the driver" in _run_elsewhere()


def test_another_process_sees_the_node_and_starts_no_process_of_its_own(
    nvml_library: Path, nvml_node: Node
) -> None:
    shown = _run_elsewhere(LD_LIBRARY_PATH=str(nvml_library.parent), **nvml_node.environment)
    assert nvml_node.uuid(0) in shown


def test_readings_from_many_threads_never_fall(nvml_node: Node, make_meter: MakeMeter) -> None:
    nvml_node.resize(2)
    nvml_node.cards[1].counter_result = NOT_SUPPORTED
    meter = make_meter()
    seen: list[list[float]] = [[] for _ in range(4)]

    def work(mine: list[float]) -> None:
        for _ in range(50):
            nvml_node.advance(0.01)
            total_j = meter.read().total_j
            assert total_j is not None
            mine.append(total_j)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(len(mine) == 50 and mine == sorted(mine) for mine in seen)
