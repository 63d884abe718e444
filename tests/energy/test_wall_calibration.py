from __future__ import annotations

import json
import math
import random
import threading
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.energy import (
    Calibration,
    ConstantMeter,
    Reading,
    WallMeter,
    Window,
    WindowRecorder,
    calibrate,
    calibrate_windows,
)
from greentrain.errors import ConfigurationError

# --- a ratio ---------------------------------------------------------------------------------


def test_the_factor_is_the_ratio_of_the_sums() -> None:
    found = calibrate([(70.0, 100.0), (150.0, 200.0)], boundary="gpu+cpu", wall="a PDU")
    assert found is not None
    assert (found.spans, found.software_j, found.wall_j) == (2, 220.0, 300.0)
    assert found.factor == 300.0 / 220.0
    assert found.node_j(22.0) == pytest.approx(30.0)
    assert (found.boundary, found.wall, found.note) == ("gpu+cpu", "a PDU", "")


def test_the_interval_is_that_of_a_ratio() -> None:
    # y - R x is -1, 2 and -1 with R = 12 / 6; s = sqrt(6 / (3 * 2)) / 2 = 0.5, t(2) = 4.303.
    found = calibrate([(1.0, 1.0), (2.0, 6.0), (3.0, 5.0)])
    assert found is not None
    assert found.factor == 2.0
    assert found.high == pytest.approx(2.0 + 4.30265 * 0.5, rel=1e-5)
    assert found.low == 0.0  # no power is below 0


def test_the_walls_own_uncertainty_comes_on_top() -> None:
    pairs = [(100.0, 140.0), (200.0, 280.0)]
    found = calibrate(pairs, wall_uncertainty=0.02)
    assert found is not None
    assert found.high == pytest.approx(1.4 * (1.0 + 1.959964 * 0.02))
    assert calibrate(pairs) == calibrate(pairs, wall_uncertainty=0.0)


def test_one_span_has_an_interval_only_from_the_resolution() -> None:
    found = calibrate([(36000.0, 54000.0)])
    assert found is not None
    assert (found.factor, found.low, found.high) == (1.5, None, None)
    assert found.note == "the error of the factor is unknown"
    coarse = calibrate([(36000.0, 54000.0)], resolution_j=3600.0)
    assert coarse is not None
    # 1 Wh / sqrt(6) is 1470 J, 1.96 times that over 36 kJ 0.08.
    assert coarse.high == pytest.approx(1.5 + 1.959964 * 3600.0 / math.sqrt(6.0) / 36000.0)
    assert coarse.note == "from one span: the interval ignores how the factor varies"


def test_two_spans_that_agree_by_chance_are_no_finer_than_the_resolution() -> None:
    found = calibrate([(36000.0, 54000.0)] * 2, resolution_j=3600.0)
    assert found is not None
    reach = 1.959964 * math.sqrt(2.0 / 6.0) * 3600.0 / 72000.0
    assert found.high == pytest.approx(1.5 + reach)


@pytest.mark.parametrize("pairs", [[], [(0.0, 0.0)], [(0.0, 5.0)], [(5.0, 0.0), (1.0, 0.0)]])
def test_nothing_to_compare_is_no_calibration(pairs: list[tuple[float, float]]) -> None:
    assert calibrate(pairs) is None


@pytest.mark.parametrize(
    "given_as",
    [
        {"pairs": [(1.0, -1.0)]},
        {"pairs": [(math.nan, 1.0)]},
        {"pairs": [(1.0, 1.0)], "resolution_j": -1.0},
        {"pairs": [(1.0, 1.0)], "wall_uncertainty": math.inf},
    ],
)
def test_figures_are_finite_and_not_negative(given_as: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="all of them are finite, 0 or more"):
        calibrate(**given_as)


def test_software_above_the_wall_is_a_contradiction() -> None:
    found = calibrate([(200.0, 100.0)])
    assert found is not None
    assert found.note.startswith("contradiction: software metered 2 times what the wall shows")


@given(
    factor=st.floats(0.5, 5.0),
    software_j=st.lists(st.floats(1.0, 1e7), min_size=2, max_size=20),
)
def test_a_known_factor_is_found(factor: float, software_j: list[float]) -> None:
    found = calibrate([(energy, factor * energy) for energy in software_j])
    assert found is not None
    assert found.factor == pytest.approx(factor)
    assert found.low is not None
    assert found.high is not None
    assert found.low <= found.factor <= found.high < found.low * (1.0 + 1e-6)


@pytest.mark.parametrize(
    ("spans", "noise", "resolution_j", "uncertainty", "at_least", "at_most"),
    [
        (3, 0.05, 0.0, None, 0.92, 0.97),
        (8, 0.05, 0.0, None, 0.92, 0.97),
        (30, 0.05, 0.0, None, 0.92, 0.97),
        (1, 0.0, 3600.0, None, 0.93, 0.98),
        (8, 0.0, 3600.0, None, 0.94, 0.99),
        (8, 0.02, 0.0, 0.02, 0.93, 0.98),
    ],
)
def test_the_interval_holds_in_about_95_of_100_cases(
    spans: int,
    noise: float,
    resolution_j: float,
    uncertainty: float | None,
    at_least: float,
    at_most: float,
) -> None:
    chance = random.Random(1)
    held, cases, truth = 0, 1500, 1.4
    for _ in range(cases):
        scale = truth * (1.0 + chance.gauss(0.0, uncertainty or 0.0))
        pairs = []
        for _ in range(spans):
            software_j = chance.lognormvariate(math.log(2e4), 0.5)
            shown_j = scale * software_j * (1.0 + chance.gauss(0.0, noise))
            if resolution_j:
                begun_j = chance.uniform(0.0, resolution_j)  # where in a step the span begins
                shown_j = (begun_j + shown_j) // resolution_j * resolution_j
            pairs.append((software_j, shown_j))
        found = calibrate(pairs, resolution_j=resolution_j, wall_uncertainty=uncertainty)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert at_least <= held / cases <= at_most


# --- the record of it ------------------------------------------------------------------------


def test_a_calibration_goes_through_json() -> None:
    found = calibrate([(70.0, 100.0), (150.0, 200.0)], boundary="gpu")
    assert found is not None
    assert Calibration.from_dict(json.loads(json.dumps(found.as_dict()))) == found


@pytest.mark.parametrize("change", [{"slope": 1.0}, {"spans": ...}])
def test_another_record_is_refused(change: dict[str, Any]) -> None:
    found = calibrate([(70.0, 100.0)])
    assert found is not None
    fields = {**found.as_dict(), **change}
    fields = {name: value for name, value in fields.items() if value is not ...}
    with pytest.raises(ConfigurationError, match="allowed are factor, low, high, spans"):
        Calibration.from_dict(fields)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"factor": 0.0}, "factor=0.0"),
        ({"spans": 0}, "spans=0"),
        ({"wall_j": math.inf}, "wall_j=inf"),
        ({"low": 1.6}, "low=1.6 and high=1.7"),
        ({"low": None}, "low=None and high=1.7"),
        ({"high": math.nan}, "high=nan"),
    ],
)
def test_a_calibration_is_checked(change: dict[str, Any], match: str) -> None:
    fields = {"factor": 1.5, "low": 1.4, "high": 1.7, "spans": 2, "software_j": 2.0, "wall_j": 3.0}
    with pytest.raises(ConfigurationError, match=match):
        Calibration(**{**fields, **change})


# --- windows and a wall meter ----------------------------------------------------------------


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def held(event: threading.Event, seconds: float) -> bool:
    return event.wait()


def window(
    start_s: float,
    end_s: float,
    energy_j: float | None,
    *,
    inside_s: float = 0.0,
    name: str = "cpu",
) -> Window:
    """Make a window; ``inside_s`` of its time belongs to windows inside it."""
    reading = Reading(duration_s=end_s - start_s - inside_s, energy_j={name: energy_j})
    return Window(phase="epoch", started=at(start_s), ended=at(end_s), reading=reading)


def closed_wall(path: Path, rows: Iterable[tuple[float, float]], unit: str = "j") -> WallMeter:
    """Return a wall meter that has read a finished file."""
    path.write_text(f"unix_s,energy_{unit}\n" + "".join(f"{t},{e}\n" for t, e in rows))
    meter = WallMeter(path, now=lambda: at(0), wait=held)
    meter.start()
    meter.close()
    return meter


@pytest.fixture
def wall(tmp_path: Path) -> WallMeter:
    """140 W for an hour, read every 10 s."""
    return closed_wall(tmp_path / "wall.csv", [(10 * row, 1400 * row) for row in range(361)])


def test_adjacent_windows_are_joined_to_spans_of_ten_readings(wall: WallMeter) -> None:
    # 100 W in windows of 40 s: three of them make a span, the last one is added to the fourth.
    found = calibrate_windows([window(40 * i, 40 * (i + 1), 4000.0) for i in range(13)], wall)
    assert found is not None
    assert (found.spans, found.software_j, found.wall_j) == (4, 52000.0, 72800.0)
    assert found.factor == pytest.approx(1.4)
    assert found.low == pytest.approx(1.4)
    assert found.boundary == "cpu"
    assert found.wall == "wall.csv, about every 10 s (counter, uncertainty unknown)"


def test_the_order_of_windows_does_not_matter(wall: WallMeter) -> None:
    windows = [window(40 * i, 40 * (i + 1), 4000.0 + i) for i in range(13)]
    assert calibrate_windows(reversed(windows), wall) == calibrate_windows(windows, wall)


def test_a_phase_is_cut_at_those_inside_it(wall: WallMeter) -> None:
    inner = [window(5 + 100 * i, 105 + 100 * i, 10000.0) for i in range(3)]
    fit = window(0, 310, 999.0, inside_s=300.0)
    found = calibrate_windows([*inner, fit], wall)
    assert found is not None
    # The 10 s of the fit around its epochs have no known time.
    assert (found.spans, found.software_j, found.wall_j) == (3, 30000.0, 42000.0)


def test_a_phase_of_little_else_is_taken_whole(wall: WallMeter) -> None:
    # Validations of 20 s in epochs of 100 s: the epochs are the spans, with both in them.
    windows = []
    for index in range(3):
        start_s = 100.0 * index
        windows += [window(start_s + 80, start_s + 100, 2000.0)]
        windows += [window(start_s, start_s + 100, 8000.0, inside_s=20.0)]
    found = calibrate_windows(windows, wall)
    assert found is not None
    assert (found.spans, found.software_j, found.wall_j) == (3, 30000.0, 42000.0)


def test_one_long_phase_is_one_span_with_the_edges_interval(wall: WallMeter) -> None:
    inner = [window(10 * i, 10 * i + 4, 400.0) for i in range(20)]
    fit = window(0, 200, 20000.0 - 20 * 400.0, inside_s=80.0)
    found = calibrate_windows([*inner, fit], wall)
    assert found is not None
    assert (found.spans, found.software_j, found.wall_j) == (1, 20000.0, 28000.0)
    assert found.high == pytest.approx(1.4 + 1.959964 / math.sqrt(6.0) * 1400.0 / 20000.0)


def test_what_is_not_known_is_left_out(wall: WallMeter) -> None:
    windows = [
        window(0, 100, 10000.0),
        window(100, 200, None),
        window(200, 300, 10000.0),
        window(300, 390, 9000.0),  # shorter than ten readings, and then a hole
        window(420, 520, 10000.0),
        window(5000, 5100, 10000.0),  # the wall was not read any more
    ]
    found = calibrate_windows(windows, wall)
    assert found is not None
    assert (found.spans, found.software_j, found.wall_j) == (3, 39000.0, 54600.0)


def test_windows_with_many_holes_are_no_span(wall: WallMeter) -> None:
    windows = [window(20 * i, 20 * i + 19, 1900.0) for i in range(20)]  # a twentieth is missing
    assert calibrate_windows(windows, wall) is None


def test_windows_that_are_too_short_are_no_calibration(wall: WallMeter) -> None:
    assert calibrate_windows([window(0, 99, 9900.0)], wall) is None
    assert calibrate_windows([], wall) is None


def test_a_wall_that_was_not_read_is_no_calibration(tmp_path: Path) -> None:
    windows = [window(0, 100, 100.0)]
    assert calibrate_windows(windows, WallMeter(tmp_path / "none.csv")) is None
    assert calibrate_windows(windows, closed_wall(tmp_path / "one.csv", [(0, 0)])) is None


def test_windows_of_two_boundaries_are_refused(wall: WallMeter) -> None:
    windows = [window(0, 100, 1.0), window(100, 200, 1.0, name="gpu:0")]
    with pytest.raises(ConfigurationError, match="measured within cpu, gpu;"):
        calibrate_windows(windows, wall)


def test_windows_of_the_node_itself_are_refused(wall: WallMeter) -> None:
    with pytest.raises(ConfigurationError, match="measured within node;"):
        calibrate_windows([window(0, 100, 1.0, name="node")], wall)


def test_a_resolution_of_one_watt_hour_does_not_decide(tmp_path: Path) -> None:
    # 300 W at the wall, shown in steps of 1 Wh every second; software meters 200 W.
    rows = [(second, (1000 + 300 * second) // 3600) for second in range(3601)]
    wall = closed_wall(tmp_path / "display.csv", rows, unit="wh")
    found = calibrate_windows([window(i, i + 30, 6000.0) for i in range(7, 3500, 30)], wall)
    assert found is not None
    assert found.spans == 29  # a step each 12 s, so spans of 120 s
    assert found.factor == pytest.approx(1.5, rel=0.002)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 1.5 < found.high < 1.01 * found.low


def test_meters_on_one_clock(tmp_path: Path, seconds: list[float]) -> None:
    """A fit at a wall that shows the metered power, a fifth more, and 50 W."""
    path = tmp_path / "wall.csv"
    path.write_text("unix_s,power_w\n0,170\n")
    now = lambda: at(seconds[0])  # noqa: E731
    wall = WallMeter(path, now=now, wait=held)
    wall.start()
    meter = ConstantMeter({"gpu:0": 70.0, "cpu": 30.0}, clock=lambda: seconds[0])
    meter.start()
    windows: list[Window] = []
    recorder = WindowRecorder(meter, windows.append, now=now)
    with recorder.phase("fit"):
        for epoch in range(3):
            with recorder.phase("train_epoch", epoch=epoch):
                for _ in range(20):
                    seconds[0] += 10.0
                    with path.open("a") as file:
                        file.write(f"{seconds[0]},170\n")
            seconds[0] += 1.0
    found = calibrate_windows(windows, wall)  # looks for the newest rows itself
    wall.close()
    assert found is not None
    assert found.spans == 3
    assert found.factor == pytest.approx(1.7)
    assert found.boundary == "gpu+cpu"
