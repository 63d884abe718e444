"""A real NVIDIA GPU against its own counter: ``pytest -m gpu tests/energy/test_gpu.py``."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from greentrain.energy import NvmlMeter, ReplayMeter
from greentrain.energy.replay import record
from greentrain.errors import MeterError

pytestmark = pytest.mark.gpu

SECONDS = 5.0


@pytest.fixture
def meter() -> Iterator[NvmlMeter]:
    """A meter of the first card; its tests are skipped where there is none with a counter."""
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here: torch sees none")
    meter = NvmlMeter([0])
    try:
        meter.start()
    except MeterError as error:  # as where an earlier test has loaded the simulated driver
        pytest.skip(f"no NVIDIA GPU here: {error}")
    if meter.sources[0].method != "counter":
        meter.close()
        pytest.skip("this GPU has no energy counter to compare with")
    yield meter
    meter.close()


def work(seconds: float) -> None:
    """Multiply matrices."""
    matrix = torch.randn(4096, 4096, device="cuda:0")
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        torch.mm(matrix, matrix)
        torch.cuda.synchronize()


def test_the_meter_counts_what_the_card_counts(meter: NvmlMeter) -> None:
    import pynvml

    (source,) = meter.sources
    handle = pynvml.nvmlDeviceGetHandleByUUID(source.uuid)
    before, before_mj = meter.read(), pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    work(SECONDS)
    window = meter.read() - before
    own_j = (pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) - before_mj) / 1e3
    assert window.total_j == pytest.approx(own_j, rel=0.02)


def test_the_card_is_the_one_that_torch_calls_0(meter: NvmlMeter) -> None:
    assert meter.sources[0].uuid.endswith(str(torch.cuda.get_device_properties(0).uuid))


def test_counter_and_power_agree_and_stay_below_the_limit(meter: NvmlMeter) -> None:
    begin = meter.read()
    work(6.0)  # the comparison takes five
    window = meter.read() - begin
    (source,) = meter.sources
    assert "suspect" not in source.note
    assert window.power_w is not None
    assert source.power_limit_w is not None
    assert 10.0 < window.power_w < 1.1 * source.power_limit_w


def test_more_work_uses_more(meter: NvmlMeter) -> None:
    def drawn_w(seconds: float, *, busy: bool) -> float:
        begin = meter.read()
        if busy:
            work(seconds)
        else:
            time.sleep(seconds)
        return (meter.read() - begin).power_w or math.nan

    work(1.0)
    busy_w = drawn_w(3.0, busy=True)
    time.sleep(2.0)
    assert drawn_w(3.0, busy=False) < 0.8 * busy_w


def test_what_was_recorded_replays(meter: NvmlMeter, tmp_path: Path) -> None:
    left = iter(range(20))

    def tick() -> bool:
        work(0.1)
        return next(left, None) is not None

    rows = record(meter, tmp_path / "trace.csv", tick)
    assert rows == 20
    last_s, last_j = (tmp_path / "trace.csv").read_text().splitlines()[-1].split(",")
    first_s, first_j = (tmp_path / "trace.csv").read_text().splitlines()[1].split(",")
    seconds = [0.0]
    replay = ReplayMeter(tmp_path / "trace.csv", clock=lambda: seconds[0])
    replay.start()
    seconds[0] = float(last_s) - float(first_s)
    assert replay.read().total_j == pytest.approx(float(last_j) - float(first_j))
    replay.close()
