from __future__ import annotations

from typing import Any

import pytest

from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError


def test_a_hundred_watts_for_36_seconds_are_one_watt_hour(seconds: list[float]) -> None:
    seconds[0] = 1000.0
    meter = ConstantMeter(100.0, clock=lambda: seconds[0])
    meter.start()
    seconds[0] += 36.0
    reading = meter.read()
    assert (reading.duration_s, reading.energy_j) == (36.0, {"constant": 3600.0})


def test_each_source_has_its_power(seconds: list[float]) -> None:
    meter = ConstantMeter({"cpu": 20.0, "gpu:0": 250.0}, clock=lambda: seconds[0])
    meter.start()
    seconds[0] = 2.0
    assert meter.read().energy_j == {"cpu": 40.0, "gpu:0": 500.0}
    assert [(source.name, source.method) for source in meter.sources] == [
        ("cpu", "given"),
        ("gpu:0", "given"),
    ]


def test_starting_again_while_it_runs_is_harmless(seconds: list[float]) -> None:
    meter = ConstantMeter(10.0, clock=lambda: seconds[0])
    meter.start()
    seconds[0] = 3.0
    meter.start()
    assert meter.read().total_j == 30.0


def test_after_closing_it_starts_at_zero(seconds: list[float]) -> None:
    meter = ConstantMeter(10.0, clock=lambda: seconds[0])
    meter.start()
    seconds[0] = 3.0
    meter.close()
    meter.close()
    meter.start()
    seconds[0] = 4.0
    assert meter.read().total_j == 10.0


def test_nothing_is_used_before_the_start(seconds: list[float]) -> None:
    seconds[0] = 5.0
    assert ConstantMeter(10.0, clock=lambda: seconds[0]).read().total_j == 0.0


@pytest.mark.parametrize("power_w", [-1.0, float("nan"), float("inf"), {"cpu": 1.0, "ram": -2.0}])
def test_a_power_is_finite_and_not_negative(power_w: Any) -> None:
    with pytest.raises(ConfigurationError, match="it must be in watts, finite, 0 or more"):
        ConstantMeter(power_w)
