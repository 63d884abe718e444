"""AMD cards against a stand-in for ``amdsmi``, under CodeCarbon's real class."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from greentrain.energy.amd import AmdMeter
from greentrain.errors import ConfigurationError, MeterError
from tests.energy import amdsmi_standin
from tests.energy.amdsmi_standin import Device, Machine

amd = amdsmi_standin.amd
MI250 = "AMD Instinct MI250X"


class Clock:
    """A fake clock, which moves only when it is set."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def no_thread(stop: threading.Event, seconds: float) -> bool:
    """Let the sampling thread end at once; :func:`sample` replaces it."""
    return True


def sample(meter: AmdMeter, clock: Clock, seconds: float) -> bool:
    """Let some time go by, and take one sample; return ``True`` if another is wanted."""
    clock.now_s += seconds
    return meter._sample()


@pytest.fixture
def make(amd: Machine, clock: Clock) -> Iterator[Callable[..., AmdMeter]]:
    meters: list[AmdMeter] = []

    def make(devices: Any = None) -> AmdMeter:
        meter = AmdMeter(devices, clock=clock, wait=no_thread)
        meters.append(meter)
        meter.start()
        return meter

    yield make
    for meter in meters:
        meter.close()


def names(meter: AmdMeter) -> list[str]:
    return [source.name for source in meter.sources]


def test_a_cards_accumulator_is_its_joules(
    amd: Machine, make: Callable[..., AmdMeter], clock: Clock
) -> None:
    meter = make()
    first = meter.read()
    for device, joules in zip(amd.devices, (3600.0, 1800.0), strict=True):
        device.use(joules)
    clock.now_s = 36.0
    window = meter.read() - first
    assert window.duration_s == 36.0
    assert window.energy_j == pytest.approx({"gpu:0": 3600.0, "gpu:1": 1800.0})


def test_a_source_says_what_the_card_is(amd: Machine, make: Callable[..., AmdMeter]) -> None:
    source = make().sources[1]
    assert (source.name, source.method, source.relative_uncertainty) == ("gpu:1", "counter", 0.1)
    assert source.device == "AMD Instinct MI210"
    assert source.uuid == "cfff740c-0000-1000-8011-82f2988c0a41"
    assert source.power_limit_w == 560.0
    assert source.note == ""
    assert source.reference


@pytest.mark.parametrize("counter", [None, 0])
def test_without_an_accumulator_power_is_integrated(
    amd: Machine, make: Callable[..., AmdMeter], clock: Clock, counter: int | None
) -> None:
    del amd.devices[1]
    amd.devices[0].counter = counter
    meter = make()
    (source,) = meter.sources
    assert (source.method, source.relative_uncertainty) == ("sampled", 0.2)
    assert "no energy accumulator" in source.note
    assert sample(meter, clock, 1.0)
    amd.devices[0].power_w = 100.0
    assert sample(meter, clock, 1.0)
    clock.now_s = 3.0
    # 300 W for a second, from there to 100 W over the next, and 100 W for another.
    assert meter.read().energy_j == {"gpu:0": pytest.approx(300.0 + 200.0 + 100.0)}


def test_a_card_that_tells_nothing_is_unknown(
    amd: Machine, make: Callable[..., AmdMeter], caplog: pytest.LogCaptureFixture
) -> None:
    amd.devices[1].counter, amd.devices[1].power_w = None, amdsmi_standin.UNKNOWN
    meter = make()
    assert meter.read().energy_j["gpu:1"] is None
    source = meter.sources[1]
    assert source.relative_uncertainty is None
    assert "not measurable" in source.note
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_card_that_fails_for_a_moment_is_unknown_while_it_does(
    amd: Machine, make: Callable[..., AmdMeter], clock: Clock
) -> None:
    meter = make()
    amd.devices[0].broken = True
    reading = meter.read()
    assert reading.energy_j["gpu:0"] is None
    assert reading.energy_j["gpu:1"] == 0.0
    amd.devices[0].broken = False
    amd.devices[0].use(100.0)
    clock.now_s += 1.0
    assert meter.read().energy_j["gpu:0"] == pytest.approx(100.0)
    assert "unknown while" in meter.sources[0].note


def test_an_accumulator_that_falls_never_takes_joules_back(
    amd: Machine, make: Callable[..., AmdMeter], clock: Clock
) -> None:
    meter = make()
    amd.devices[0].use(500.0)
    clock.now_s = 1.0
    assert meter.read().energy_j["gpu:0"] == pytest.approx(500.0)
    amd.devices[0].counter = 0
    amd.devices[0].use(100.0)
    clock.now_s = 2.0
    assert meter.read().energy_j["gpu:0"] == pytest.approx(600.0)
    assert "the accumulator restarted" in meter.sources[0].note


@pytest.mark.parametrize(
    ("counter_w", "suspect", "known"),
    [(300.0, False, True), (600.0, True, True), (0.0, True, False)],
)
def test_an_accumulator_is_held_against_the_power(
    amd: Machine,
    make: Callable[..., AmdMeter],
    clock: Clock,
    counter_w: float,
    suspect: bool,
    known: bool,
) -> None:
    del amd.devices[1]
    meter = make()
    wanted = []
    for _ in range(13):
        amd.devices[0].use(0.4 * counter_w)
        wanted.append(sample(meter, clock, 0.4))
    assert wanted == [True] * 12 + [False]  # 5.2 s are enough
    assert ("suspect" in meter.sources[0].note) == suspect
    assert (meter.sources[0].relative_uncertainty is None) == suspect
    assert (meter.read().energy_j["gpu:0"] is not None) == known


def test_an_accumulator_that_restarts_while_it_is_compared_is_compared_again(
    amd: Machine, make: Callable[..., AmdMeter], clock: Clock
) -> None:
    del amd.devices[1]
    meter = make()
    amd.devices[0].counter = 1
    wanted = [sample(meter, clock, 0.4) for _ in range(13)]
    assert all(wanted)  # it fell on the way: the 5 s begin again
    for _ in range(13):
        amd.devices[0].use(0.4 * 300.0)
        wanted.append(sample(meter, clock, 0.4))
    assert wanted == [True] * 25 + [False]
    assert "suspect" not in meter.sources[0].note


def test_a_comparison_with_too_few_samples_begins_again(
    amd: Machine, make: Callable[..., AmdMeter], clock: Clock
) -> None:
    meter = make([0])  # whose accumulator does not move at 300 W
    assert all(sample(meter, clock, 4.0) for _ in range(10))
    assert "suspect" not in meter.sources[0].note


def test_power_that_fails_while_it_is_compared_blames_nothing(
    amd: Machine, make: Callable[..., AmdMeter], clock: Clock
) -> None:
    meter = make([0])
    amd.devices[0].power_w = amdsmi_standin.UNKNOWN
    assert not sample(meter, clock, 0.4)
    assert meter.read().energy_j == {"gpu:0": 0.0}
    assert meter.sources[0].note == "numbered in amdsmi's order, which ROCm may not follow"


def test_a_card_that_falls_silent_between_two_looks_is_a_meters_error(
    amd: Machine, make: Callable[..., AmdMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two cards are read twice each to list them, and the first once more to find its counter.
    counted_mj = iter([1e9] * 5)
    monkeypatch.setattr(
        "codecarbon.core.gpu_amd.AMDGPUDevice._get_total_energy_consumption",
        lambda device: next(counted_mj, None),
    )
    with pytest.raises(MeterError, match="gpu:0, AMD Instinct MI210, cannot be read: amdsmi repor"):
        make()


def test_two_dies_with_one_figure_are_one_source(
    amd: Machine, make: Callable[..., AmdMeter]
) -> None:
    amd.devices[:] = [Device(number, MI250) for number in range(4)]
    for odd in (1, 3):
        amd.devices[odd].counter, amd.devices[odd].power_w = 0, 0.0
    meter = make()
    assert names(meter) == ["gpu:0", "gpu:2"]
    assert all("all dies of the card" in source.note for source in meter.sources)
    assert len({source.uuid for source in meter.sources}) == 2


def test_a_die_without_a_figure_has_that_of_its_card(
    amd: Machine, make: Callable[..., AmdMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    amd.devices[:] = [Device(number, MI250) for number in range(2)]
    amd.devices[1].counter, amd.devices[1].power_w = 0, 0.0
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "1")
    meter = make()
    amd.devices[0].use(250.0)
    assert meter.read().energy_j == {"gpu:0": pytest.approx(250.0)}
    assert "all dies of the card" in meter.sources[0].note


def test_a_package_with_a_cpu_says_so(amd: Machine, make: Callable[..., AmdMeter]) -> None:
    assert not make().covers_cpu
    amd.devices[:] = [Device(0, "AMD Instinct MI300A")]
    meter = make()
    assert meter.covers_cpu
    assert "no CPU is to be added" in meter.sources[0].note


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ({}, "0123"),
        ({"ROCR_VISIBLE_DEVICES": "2,0"}, "20"),
        ({"HIP_VISIBLE_DEVICES": "3"}, "3"),
        ({"CUDA_VISIBLE_DEVICES": "1,2"}, "12"),
        ({"HIP_VISIBLE_DEVICES": "1", "CUDA_VISIBLE_DEVICES": "2"}, "1"),
        ({"HIP_VISIBLE_DEVICES": ""}, "0123"),
        ({"ROCR_VISIBLE_DEVICES": "1,2,3", "HIP_VISIBLE_DEVICES": "2"}, "3"),
        ({"ROCR_VISIBLE_DEVICES": "GPU-cf1182f2988c0a42,0"}, "20"),
        ({"HIP_VISIBLE_DEVICES": "1,-1,2"}, "1"),
        ({"HIP_VISIBLE_DEVICES": "1,1,2"}, "12"),
    ],
)
def test_masks_are_read_as_rocm_reads_them(
    amd: Machine,
    make: Callable[..., AmdMeter],
    monkeypatch: pytest.MonkeyPatch,
    masks: dict[str, str],
    expected: str,
) -> None:
    amd.devices[:] = [Device(number, "AMD Instinct MI210") for number in range(4)]
    for name, mask in masks.items():
        monkeypatch.setenv(name, mask)
    sources = make().sources
    assert "".join(source.uuid[-1] for source in sources) == expected
    assert [source.name for source in sources] == [f"gpu:{i}" for i in range(len(expected))]
    assert all(("which ROCm may not follow" in s.note) == (len(expected) < 4) for s in sources)


def test_where_amdsmi_knows_rocms_order_it_is_taken(
    amd: Machine, make: Callable[..., AmdMeter]
) -> None:
    amd.devices[0].hip_id, amd.devices[1].hip_id = 1, 0
    (source,) = make([0]).sources
    assert source.uuid[-1] == "1"
    assert source.note == ""


def test_a_mask_that_cannot_be_followed_counts_all_and_says_so(
    amd: Machine, make: Callable[..., AmdMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "GPU-deadbeefdeadbeef")
    sources = make().sources
    assert [source.name for source in sources] == ["gpu:0", "gpu:1"]
    assert all("all cards of the machine" in source.note for source in sources)


def test_a_mask_that_hides_all_says_what_it_hides(
    amd: Machine, make: Callable[..., AmdMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "")
    with pytest.raises(MeterError, match="ROCR_VISIBLE_DEVICES='' shows none of the machine's 2"):
        make()


def test_cards_can_be_chosen(amd: Machine, make: Callable[..., AmdMeter]) -> None:
    meter = make([1])
    assert names(meter) == ["gpu:1"]
    assert meter.sources[0].uuid[-1] == "1"
    with pytest.raises(ConfigurationError, match=r"devices has 2, which is none .* 0, 1"):
        make([2])
    with pytest.raises(ConfigurationError, match="devices has 'GPU-1'"):
        make(["GPU-1"])


@pytest.mark.parametrize("devices", [[], "0", [-1], [True]])
def test_devices_that_cannot_be_are_refused_at_once(devices: Any) -> None:
    with pytest.raises(ConfigurationError, match="devices"):
        AmdMeter(devices)


def test_what_amdsmi_refuses_is_reported_with_the_fix(
    amd: Machine, make: Callable[..., AmdMeter]
) -> None:
    amd.refusal = "AMDSMI_STATUS_DRIVER_NOT_LOADED"
    with pytest.raises(MeterError, match=r"DRIVER_NOT_LOADED.*/dev/kfd"):
        make()


def test_without_a_card_it_says_so(amd: Machine, make: Callable[..., AmdMeter]) -> None:
    amd.devices.clear()
    with pytest.raises(MeterError, match="finds no AMD card"):
        make()


def test_without_amdsmi_it_says_how_to_get_it(
    amd: Machine, make: Callable[..., AmdMeter], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from codecarbon.core import gpu_amd

    monkeypatch.setattr(gpu_amd, "AMDSMI_AVAILABLE", False)
    with pytest.raises(MeterError, match="does not find the library"):
        make()
    monkeypatch.delitem(sys.modules, "amdsmi")
    with pytest.raises(MeterError, match="amdsmi is not installed"):
        make()


def test_it_begins_at_zero_each_time_and_leaves_no_thread(amd: Machine, clock: Clock) -> None:
    meter = AmdMeter(clock=clock, wait=no_thread)
    assert meter.sources == ()
    meter.start()
    amd.devices[0].use(100.0)
    clock.now_s += 1.0
    assert meter.read().energy_j["gpu:0"] == pytest.approx(100.0)
    meter.start()  # harmless
    assert meter.read().energy_j["gpu:0"] == pytest.approx(100.0)
    meter.close()
    meter.close()
    assert meter.read().energy_j == {"gpu:0": None, "gpu:1": None}
    meter.start()
    assert meter.read().energy_j == {"gpu:0": 0.0, "gpu:1": 0.0}
    meter.close()


def test_a_thread_takes_the_samples(amd: Machine) -> None:
    asked = threading.Semaphore(0)

    def wait(stop: threading.Event, seconds: float) -> bool:
        asked.release()
        return stop.wait(0.001)

    amd.devices[0].counter = None
    meter = AmdMeter([0], wait=wait)
    meter.start()
    for _ in range(3):
        assert asked.acquire(timeout=60)
    assert (meter.read().energy_j["gpu:0"] or 0.0) > 0
    meter.close()
    assert "greentrain-amd" not in [thread.name for thread in threading.enumerate()]


def test_samples_are_at_random_around_8_ms(amd: Machine, clock: Clock) -> None:
    waits_s: list[float] = []

    def wait(stop: threading.Event, seconds: float) -> bool:
        waits_s.append(seconds)
        clock.now_s += seconds
        return len(waits_s) > 1000

    amd.devices[0].counter = None
    meter = AmdMeter([0], clock=clock, wait=wait)
    meter.start()
    assert meter._sampler is not None
    meter._sampler.join(timeout=60)
    meter.close()
    assert 0.004 <= min(waits_s) < 0.005
    assert 0.011 < max(waits_s) <= 0.012


def test_queued_work_is_waited_for_by_the_thread_that_trains(amd: Machine, clock: Clock) -> None:
    waited: list[int] = []

    def synchronize(index: int) -> None:
        waited.append(index)
        raise RuntimeError("the training's own failure")

    meter = AmdMeter(clock=clock, synchronize=synchronize, wait=no_thread)
    meter.start()
    assert waited == [0, 1]
    meter.read()
    assert waited == [0, 1, 0, 1]
    other = threading.Thread(target=meter.read)
    other.start()
    other.join()
    assert waited == [0, 1, 0, 1]
    meter.close()
    meter.read()
    assert waited == [0, 1, 0, 1]
