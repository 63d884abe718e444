from __future__ import annotations

import math
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from greentrain.energy import ConstantMeter, Reading, WallMeter, idle_power, source_power_w
from greentrain.errors import ConfigurationError


def test_idle_power_is_that_of_the_time_waited(seconds: list[float]) -> None:
    def wait(waited_s: float) -> None:
        seconds[0] += waited_s

    meter = ConstantMeter({"gpu:0": 70.0, "cpu": 30.0}, clock=lambda: seconds[0])
    meter.start()
    seconds[0] = 1000.0  # energy used before is not in it
    idle = idle_power(meter, 36.0, wait=wait)
    assert idle == Reading(duration_s=36.0, energy_j={"gpu:0": 2520.0, "cpu": 1080.0})
    assert idle.power_w == 100.0  # 1 Wh in 36 s
    assert source_power_w(idle) == {"gpu:0": 70.0, "cpu": 30.0}


def test_a_wall_that_lags_is_measured_from_reading_to_reading(
    tmp_path: Path, seconds: list[float]
) -> None:
    path = tmp_path / "wall.csv"
    path.write_text("unix_s,energy_j\n0,0\n10,900\n")
    seconds[0] = 12.0
    wall = WallMeter(
        path,
        now=lambda: datetime.fromtimestamp(seconds[0], UTC),
        wait=lambda event, _: event.wait(),
    )

    def wait(waited_s: float) -> None:
        seconds[0] += waited_s
        with path.open("a") as file:
            file.write("20,1800\n30,2700\n40,3600\n")
        wall.poll()

    wall.start()
    idle = idle_power(wall, 36.0, wait=wait)
    wall.close()
    assert idle == Reading(duration_s=30.0, energy_j={"node": 2700.0})
    assert idle.power_w == 90.0


def test_what_is_not_known_stays_unknown() -> None:
    unknown = Reading(duration_s=2.0, energy_j={"cpu": None, "ram": 10.0})
    assert source_power_w(unknown) == {"cpu": None, "ram": 5.0}
    assert source_power_w(Reading(duration_s=0.0, energy_j={"cpu": 0.0})) == {"cpu": None}


@pytest.mark.parametrize("seconds_", [0.0, -1.0, math.nan, math.inf])
def test_the_time_is_finite_and_above_0(seconds_: float) -> None:
    waited = threading.Event()
    with pytest.raises(ConfigurationError, match="a time to measure for, above 0"):
        idle_power(ConstantMeter(1.0), seconds_, wait=lambda _: waited.set())
    assert not waited.is_set()
