from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.energy import ConstantMeter, Reading, ReplayMeter
from greentrain.energy.replay import record
from greentrain.errors import ConfigurationError


def replay(path: Path, at_s: float) -> Reading:
    """Read a recording this many seconds after its first row."""
    seconds = [100.0]
    meter = ReplayMeter(path, clock=lambda: seconds[0])
    meter.start()
    seconds[0] += at_s
    return meter.read()


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    path.write_text("duration_s,cpu,gpu:0\n0,0,500\n10,200,\n20,400,3500\n30,1000,6500\n")
    return path


@pytest.mark.parametrize(
    ("at_s", "cpu_j", "gpu_j"),
    [
        (0.0, 0.0, 0.0),
        (5.0, 100.0, None),  # half of 200 J; the card is unknown at 10 s
        (10.0, 200.0, None),
        (20.0, 400.0, 3000.0),  # 3500 J less the 500 J of the first row
        (25.0, 700.0, 4500.0),
        (30.0, 1000.0, 6000.0),
        (30.5, None, None),  # nothing was recorded there
    ],
)
def test_joules_are_interpolated_between_rows(
    recording: Path, at_s: float, cpu_j: float | None, gpu_j: float | None
) -> None:
    assert replay(recording, at_s) == Reading(
        duration_s=at_s, energy_j={"cpu": cpu_j, "gpu:0": gpu_j}
    )


def test_a_recording_that_begins_late_is_replayed_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("duration_s,cpu\n50,1000\n60,2000\n")
    assert replay(path, 5.0) == Reading(duration_s=5.0, energy_j={"cpu": 500.0})


def test_sources_say_where_they_come_from(recording: Path) -> None:
    sources = ReplayMeter(recording).sources
    assert [source.name for source in sources] == ["cpu", "gpu:0"]
    assert {(source.method, source.note) for source in sources} == {
        ("given", "replayed from trace.csv")
    }


def test_after_closing_it_starts_at_the_first_row(recording: Path, seconds: list[float]) -> None:
    meter = ReplayMeter(recording, clock=lambda: seconds[0])
    meter.start()
    seconds[0] = 10.0
    meter.start()
    assert meter.read().energy_j["cpu"] == 200.0
    meter.close()
    meter.start()
    seconds[0] = 15.0
    assert meter.read().energy_j["cpu"] == 100.0


@given(
    power_w=st.floats(0.0, 1e4),
    steps_s=st.lists(st.integers(1, 1000), min_size=2, max_size=20),
)
def test_a_replayed_recording_gives_the_same_joules(
    tmp_path_factory: pytest.TempPathFactory, power_w: float, steps_s: list[int]
) -> None:
    path = tmp_path_factory.mktemp("recording") / "trace.csv"
    seconds = [7.0]
    told: list[Reading] = []
    meter = ConstantMeter({"cpu": power_w, "ram": 5.0}, clock=lambda: seconds[0])

    def tick() -> bool:
        if len(told) == len(steps_s):
            return False
        seconds[0] += steps_s[len(told)]
        told.append(meter.read())
        return True

    meter.start()
    assert record(meter, path, tick) == len(steps_s)
    first = told[0]
    for reading in told:
        assert replay(path, reading.duration_s - first.duration_s) == reading - first


def test_what_was_unknown_is_recorded_as_unknown(recording: Path, tmp_path: Path) -> None:
    seconds = [0.0]
    meter = ReplayMeter(recording, clock=lambda: seconds[0])
    meter.start()
    times_s = [0.0, 10.0, 20.0]

    def tick() -> bool:
        if times_s:
            seconds[0] = times_s.pop(0)
            return True
        return False

    record(meter, tmp_path / "again.csv", tick)
    assert (tmp_path / "again.csv").read_text().splitlines() == [
        "duration_s,cpu,gpu:0",
        "0.0,0.0,0.0",
        "10.0,200.0,",
        "20.0,400.0,3000.0",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"seconds,cpu\n0,0\n1,1\n",
        b"cpu,duration_s\n0,0\n1,1\n",
        b"duration_s\n0\n1\n",
        b"duration_s,cpu\n",
        b"duration_s,cpu\n0,0\n",
        b"duration_s,cpu\n0,0\n1,many\n",
        b"duration_s,cpu\n0,0\n,1\n",
        b"duration_s,cpu\n0,0\n1\n",
        b"duration_s,cpu\n0,0\n1,1,1\n",
        b"duration_s,cpu\n0,0\n\n1,1\n",
        b"duration_s,cpu\n0,0\n1,1\n1,2\n",
        b"duration_s,cpu\n1,0\n0,1\n",
        b"duration_s,cpu\n0,0\nnan,1\n",
        b"duration_s,cpu\n0,0\ninf,1\n",
        b"duration_s,cpu\n0,0\n1,nan\n",
        b"duration_s,cpu\n0,0\n1,inf\n",
        b"duration_s,cpu,cpu\n0,0,0\n1,1,2\n",
        b"duration_s,\n0,0\n1,1\n",
        b"duration_s,cpu\n0,5\n1,2\n",
        b"duration_s,cpu\n0,0\n1,\xff\n",
        b"duration_s,cpu\n0,0\n1,\x00\n",
    ],
)
def test_a_malformed_recording_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.csv"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"recording .*broken\.csv") as caught:
        ReplayMeter(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.csv", "."])
def test_a_missing_recording_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        ReplayMeter(tmp_path / name)
