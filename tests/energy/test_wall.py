from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.energy import Meter, Reading, WallMeter, _wall_input
from greentrain.energy._wall_series import EnergySeries
from greentrain.errors import ConfigurationError, MeterError


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def held(event: threading.Event, seconds: float) -> bool:
    """Wait for the end: tests poll by hand."""
    return event.wait()


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


@pytest.fixture
def opened(seconds: list[float]) -> Iterator[Callable[..., WallMeter]]:
    """Make meters on the fake clock, and close them in the end."""
    meters: list[WallMeter] = []

    def make(source: Any, **options: Any) -> WallMeter:
        options = {"now": lambda: at(seconds[0]), "wait": held, **options}
        meters.append(WallMeter(source, **options))
        return meters[-1]

    yield make
    for meter in meters:
        meter.close()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The file of a logger so far: 100 W, as a counter, every 36 s."""
    path = tmp_path / "pdu.csv"
    path.write_text("unix_s,energy_wh\n0,5000\n36,5001\n72,5002\n")
    return path


def test_a_hundred_watts_for_36_seconds_are_one_watt_hour(
    opened: Callable[..., WallMeter], log: Path
) -> None:
    meter = opened(log)
    meter.start()
    assert meter.energy_between(at(0), at(36)) == 3600.0
    assert meter.energy_between(at(18), at(72)) == 5400.0  # half of the first step, and the second
    assert meter.energy_between(at(10), at(10)) == 0.0
    assert meter.interval_s == 36.0


@pytest.mark.parametrize(
    ("column", "cells", "method"),
    [
        ("energy_j", ("0", "3600", "7200"), "counter"),
        ("energy_wh", ("10", "11", "12"), "counter"),
        ("energy_kwh", ("0.5", "0.501", "0.502"), "counter"),
        ("power_w", ("100", "100", "100"), "sampled"),
        ("power_w", ("50", "150", "50"), "sampled"),  # (50 + 150) / 2 W over each 36 s
    ],
)
def test_units(
    opened: Callable[..., WallMeter],
    tmp_path: Path,
    column: str,
    cells: tuple[str, ...],
    method: str,
) -> None:
    path = tmp_path / "wall.csv"
    rows = [f"{36 * index},x,{cell}\n" for index, cell in enumerate(cells)]
    path.write_text(f"unix_s,remark,{column}\n{''.join(rows)}")
    meter = opened(path)
    meter.start()
    assert meter.energy_between(at(0), at(72)) == pytest.approx(7200.0)
    assert [(source.name, source.method) for source in meter.sources] == [("node", method)]


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("datetime_utc,Watts", {"column": "watts", "unit": "W"}),
        ("datetime_utc,energy_kwh,power_w", {"column": "power_w"}),
        ("\ufeff Datetime_UTC ,power_W", {}),
        ("datetime_utc,energy_j,power_w", {"unit": "W"}),
    ],
)
def test_the_columns_are_found(
    opened: Callable[..., WallMeter], tmp_path: Path, header: str, options: dict[str, Any]
) -> None:
    cells = ",0" * (header.count(",") - 1) + ",100"
    times = ["1970-01-01T00:00:00Z", "1970-01-01T01:00:36+01:00", "1970-01-01 00:01:12+00:00"]
    path = tmp_path / "wall.csv"
    path.write_text("".join([f"{header}\n", *(f"{time}{cells}\n" for time in times)]))
    meter = opened(path, **options)
    meter.start()
    assert meter.energy_between(at(0), at(36)) == pytest.approx(3600.0)


def test_reading_goes_to_the_last_reading_that_came(
    opened: Callable[..., WallMeter], log: Path, seconds: list[float]
) -> None:
    seconds[0] = 80.0
    meter = opened(log)
    meter.start()
    assert meter.read() == Reading(duration_s=0.0, energy_j={"node": 0.0})
    append(log, "108,5003\n144,5005\n180,50")
    seconds[0] = 185.0
    assert meter.read().total_j == 0.0
    meter.poll()
    assert meter.read() == Reading(duration_s=72.0, energy_j={"node": 10800.0})
    append(log, "05.5\n")  # the row that had not ended
    meter.poll()
    assert meter.read() == Reading(duration_s=108.0, energy_j={"node": 12600.0})


def test_a_file_that_is_stale_at_the_start_counts_from_the_next_row(
    opened: Callable[..., WallMeter], log: Path, seconds: list[float]
) -> None:
    seconds[0] = 72.0 + 2.5 * 36.0 + 1.0
    meter = opened(log)
    meter.start()
    assert meter.read() == Reading(duration_s=0.0, energy_j={"node": None})
    append(log, "170,5010\n200,5011\n")
    seconds[0] = 201.0
    meter.poll()
    assert meter.read() == Reading(duration_s=30.0, energy_j={"node": 3600.0})


def test_a_file_with_a_header_only_counts_from_its_first_row(
    opened: Callable[..., WallMeter], tmp_path: Path
) -> None:
    path = tmp_path / "wall.csv"
    path.write_text("unix_s,energy_j\n")
    meter = opened(path)
    meter.start()
    assert meter.read().energy_j == {"node": None}
    assert meter.energy_between(at(0), at(1)) is None
    append(path, "0,7\n")
    meter.poll()
    assert meter.read().energy_j == {"node": 0.0}
    assert meter.energy_between(at(0), at(1)) is None


def test_each_byte_of_a_file_is_read_once(
    opened: Callable[..., WallMeter], log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = opened(log)
    meter.start()
    with log.open("r+b") as file:
        file.write(b"#" * (log.stat().st_size - 1))  # what was read is not looked at again
    append(log, "108,5003\n")
    meter.poll()
    assert meter.energy_between(at(0), at(108)) == 10800.0
    assert caplog.text == ""


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_that_was_rotated_is_read_from_its_header(
    opened: Callable[..., WallMeter], log: Path, in_place: bool
) -> None:
    meter = opened(log)
    meter.start()
    fresh = log if in_place else log.with_name("fresh.csv")
    fresh.write_text("energy_wh,unix_s\n5002,72\n5003,108\n")
    fresh.replace(log)
    meter.poll()
    assert meter.energy_between(at(0), at(108)) == 10800.0


def test_a_file_that_vanishes_is_warned_of_once(
    opened: Callable[..., WallMeter], log: Path, caplog: pytest.LogCaptureFixture
) -> None:
    meter = opened(log)
    meter.start()
    text = log.read_text()
    log.unlink()
    meter.poll()
    meter.poll()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "pdu.csv" in caplog.text
    log.write_text(f"{text}108,5003\n")
    meter.poll()
    assert meter.energy_between(at(0), at(108)) == 10800.0


@pytest.mark.parametrize(
    "row", ["108", "soon,5003", "108,many", "108,-1", "108,nan", "inf,5003", '"108,50', "\x00,5"]
)
def test_a_broken_row_is_left_out_and_warned_of_once(
    opened: Callable[..., WallMeter], log: Path, caplog: pytest.LogCaptureFixture, row: str
) -> None:
    meter = opened(log)
    meter.start()
    append(log, f"{row}\n\n144,\n144,5004\n")
    meter.poll()
    append(log, f"{row}\n")
    meter.poll()
    assert meter.energy_between(at(0), at(144)) == 14400.0
    assert len(caplog.records) == 1
    assert "was left out" in caplog.text


def test_a_naive_time_is_refused(opened: Callable[..., WallMeter], tmp_path: Path) -> None:
    path = tmp_path / "wall.csv"
    path.write_text("datetime_utc,energy_j\n2026-01-01T00:00:00,1\n")
    meter = opened(path)
    with pytest.raises(ConfigurationError, match=r"naive; write it with a zone"):
        meter.start()


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "does not exist"),
        ("", "no header yet"),
        ("unix_s,energy_j", "no header yet"),
        ("unix_s,watts\n0,1\n", r"needs datetime_utc or unix_s, and one of energy_j"),
        ("seconds,energy_j\n0,1\n", "needs datetime_utc or unix_s"),
        ("unix_s,energy_j,power_w\n0,1,1\n", "where there are several"),
        ("unix_s,energy_j,energy_j\n0,1,1\n", "where there are several"),
        ("unix_s,energy_j\nnow,1\n", "was left out"),
    ],
)
def test_another_file_is_one_clear_error(
    opened: Callable[..., WallMeter], tmp_path: Path, content: str | None, match: str
) -> None:
    path = tmp_path / "wall.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigurationError, match=match) as caught:
        opened(path).start()
    assert "wall.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "options", "match"),
    [
        ("wall.csv", {"unit": "kW"}, "unit is 'kW'; allowed are J, Wh, kWh, W"),
        ("wall.csv", {"unit": "wh"}, "unit is 'wh'"),
        ("wall.csv", {"column": "total"}, "its name implies no unit"),
        ("wall.csv", {"pattern": "(.*)"}, "a pattern is for a command"),
        ("wall.csv", {"interval_s": 0.0}, "interval_s is 0.0"),
        ("wall.csv", {"interval_s": float("inf")}, "interval_s is inf"),
        ("wall.csv", {"relative_uncertainty": -0.1}, "relative_uncertainty=-0.1"),
        ([], {"unit": "W"}, "source is \\[\\]"),
        ([1], {"unit": "W"}, "source is \\[1\\]"),
        (None, {"unit": "W"}, "source is None"),
        (["cat"], {}, "needs a unit; allowed are J, Wh, kWh, W"),
        (["cat"], {"unit": "W", "column": "power_w"}, "a column is for a file"),
        (["cat"], {"unit": "W", "pattern": "("}, "no regular expression"),
        (["cat"], {"unit": "W", "pattern": "W"}, "with 0 groups; it needs one"),
    ],
)
def test_a_wrong_argument_fails_at_construction(
    source: Any, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(ConfigurationError, match=match):
        WallMeter(source, **options)


# --- what is not known -----------------------------------------------------------------------


def test_over_a_restart_nothing_is_known(
    opened: Callable[..., WallMeter], log: Path, seconds: list[float]
) -> None:
    seconds[0] = 72.0
    meter = opened(log)
    meter.start()
    append(log, "108,0\n144,1\n")
    meter.poll()
    assert meter.energy_between(at(36), at(72)) == 3600.0
    assert meter.energy_between(at(36), at(108)) is None
    assert meter.energy_between(at(80), at(100)) is None
    assert meter.energy_between(at(108), at(144)) == 3600.0
    assert meter.read() == Reading(duration_s=72.0, energy_j={"node": None})
    assert meter.sources[0].note == "pdu.csv, about every 36 s; restarts or jumps of the counter: 1"


def test_a_counter_that_jumps_has_not_counted(opened: Callable[..., WallMeter], log: Path) -> None:
    meter = opened(log)
    meter.start()
    append(log, "108,0\n144,5003\n180,2000000\n216,2000001\n")  # a glitch, then 2 MWh in 36 s
    meter.poll()
    for end_s in (108, 144, 180):
        assert meter.energy_between(at(end_s - 36), at(end_s)) is None
    assert meter.energy_between(at(180), at(216)) == 3600.0


@pytest.mark.parametrize(
    ("start_s", "end_s", "energy_j"),
    [
        (-54, 72, 12600.0),  # one and a half intervals before the first reading, at 100 W
        (-55, 72, None),
        (0, 126, 12600.0),
        (0, 127, None),
        (-20, -10, None),  # nothing of it is covered
        (73, 80, None),
    ],
)
def test_a_span_may_reach_a_little_beyond_the_readings(
    opened: Callable[..., WallMeter], log: Path, start_s: float, end_s: float, energy_j: float
) -> None:
    meter = opened(log)
    meter.start()
    assert meter.energy_between(at(start_s), at(end_s)) == energy_j


def test_a_counter_bridges_a_gap_that_power_does_not(
    opened: Callable[..., WallMeter], tmp_path: Path
) -> None:
    rows = [0, 10, 20, 45, 55, 65, 91, 101]  # one reading is missing, then two
    counter, power = tmp_path / "counter.csv", tmp_path / "power.csv"
    counter.write_text("unix_s,energy_j\n" + "".join(f"{row},{100 * row}\n" for row in rows))
    power.write_text("unix_s,power_w\n" + "".join(f"{row},100\n" for row in rows))
    counted, sampled = opened(counter), opened(power)
    for meter in (counted, sampled):
        meter.start()
        assert meter.interval_s == 10.0
        assert meter.energy_between(at(0), at(65)) == 6500.0
        assert meter.energy_between(at(15), at(80)) is None  # ends within the gap
        assert meter.energy_between(at(91), at(101)) == 1000.0
    assert counted.energy_between(at(0), at(101)) == 10100.0
    assert sampled.energy_between(at(0), at(101)) is None


def test_a_meter_that_stays_silent_is_unknown(
    opened: Callable[..., WallMeter],
    log: Path,
    seconds: list[float],
    caplog: pytest.LogCaptureFixture,
) -> None:
    seconds[0] = 72.0
    meter = opened(log)
    meter.start()
    append(log, "108,5003\n")
    meter.poll()
    seconds[0] = 108.0 + 600.0
    assert meter.read().energy_j == {"node": 3600.0}
    append(log, "700,5003\n")  # an unchanged counter is not news
    meter.poll()
    seconds[0] += 1.0
    assert meter.read() == meter.read() == Reading(duration_s=36.0, energy_j={"node": None})
    assert [record.getMessage() for record in caplog.records] == [
        "WallMeter: nothing new from pdu.csv for 601 s"
    ]


@pytest.mark.parametrize(
    ("start", "end"),
    [(at(1), at(0)), (datetime(1970, 1, 1), at(1)), (at(0), datetime(1970, 1, 2))],
)
def test_a_span_has_zones_and_an_order(
    opened: Callable[..., WallMeter], log: Path, start: datetime, end: datetime
) -> None:
    with pytest.raises(ConfigurationError, match="both need a time zone"):
        opened(log).energy_between(start, end)


# --- commands --------------------------------------------------------------------------------


class Printer:
    """Replace a command: each run prints the next of its texts and takes two seconds."""

    def __init__(self, seconds: list[float], *texts: str | Exception) -> None:
        self.seconds, self.texts = seconds, list(texts)
        self.asked: list[Sequence[str]] = []

    def __call__(self, arguments: Sequence[str]) -> str:
        self.asked.append(arguments)
        self.seconds[0] += 2.0
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        if isinstance(text, Exception):
            raise text
        return text


def test_a_command_is_read_in_the_middle_of_its_run(
    opened: Callable[..., WallMeter], seconds: list[float]
) -> None:
    printer = Printer(seconds, "1000\n", "2000\n", "3000\n")
    meter = opened(["wall", "-p", "secret"], unit="J", run=printer)
    assert [source.name for source in meter.sources] == ["node"]
    meter.start()  # from 0 to 2 s: read at 1 s
    seconds[0] = 10.0
    meter.poll()  # at 11 s
    seconds[0] = 20.0
    meter.poll()
    assert printer.asked == [["wall", "-p", "secret"]] * 3
    assert meter.read() == Reading(duration_s=20.0, energy_j={"node": 2000.0})
    assert meter.energy_between(at(6), at(16)) == 1000.0
    assert meter.sources[0].note == "wall, about every 10 s"


@pytest.mark.parametrize(
    ("text", "options", "watts"),
    [
        ("230\n", {}, 230.0),
        (" 2.3e2 W", {}, 230.0),
        ("230W", {}, 230.0),
        ("node1 power-2: .5", {}, 0.5),
        ("CurrentWatts=215 AveWatts=200", {}, 215.0),
        ('{"PowerConsumedWatts": 344}', {}, 344.0),
        ("CurrentWatts=215 AveWatts=200", {"pattern": r"AveWatts=(\d+)"}, 200.0),
        ("2026-01-01,7,99.5", {"pattern": r"([\d.]+)$"}, 99.5),
    ],
)
def test_the_number_is_found(
    opened: Callable[..., WallMeter],
    seconds: list[float],
    text: str,
    options: dict[str, Any],
    watts: float,
) -> None:
    meter = opened(["wall"], unit="W", run=Printer(seconds, text), **options)
    meter.start()
    seconds[0] = 11.0
    meter.poll()
    assert meter.read().power_w == pytest.approx(watts)


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("", {}, "there is no number in it"),
        ("CurrentWatts=n/s", {}, "there is no number in it"),
        ("ConsumedEnergy 1.2K", {}, "followed by 'K'; say with pattern= which number is in J"),
        ("1.5kWh", {}, "followed by 'kWh'"),
        ("1,234", {}, "followed by ',234'"),
        ("2026-01-01 5", {}, "followed by '-01-01 5'"),
        ("12:30 5", {}, "followed by ':30 5'"),
        ("10.0.0.1 5", {}, "followed by '.0.1 5'"),
        ("-5", {}, "the reading 0 or more"),
        ("7", {"pattern": "J=(.*)"}, "nothing matches the pattern 'J=(.*)'"),
        ("J=much", {"pattern": "J=(.*)"}, "could not convert"),
    ],
)
def test_a_number_that_is_not_plain_is_refused(
    opened: Callable[..., WallMeter],
    seconds: list[float],
    text: str,
    options: dict[str, Any],
    match: str,
) -> None:
    meter = opened(["wall"], unit="J", run=Printer(seconds, text), **options)
    with pytest.raises(MeterError) as caught:
        meter.start()
    assert match in str(caught.value)
    assert "greentrain-wall" not in {thread.name for thread in threading.enumerate()}


def test_a_command_that_fails_is_warned_of_once_and_leaves_a_gap(
    opened: Callable[..., WallMeter], seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    failure = MeterError("ipmitool failed with exit code 1: BMC busy")
    printer = Printer(seconds, "100", "100", failure, failure, ValueError("odd"), "100")
    meter = opened(["ipmitool"], unit="W", run=printer)
    meter.start()
    for seconds[0] in (10.0, 20.0, 30.0, 40.0, 50.0):
        meter.poll()
    assert [record.getMessage() for record in caplog.records] == [
        "WallMeter: no reading at the wall: ipmitool failed with exit code 1: BMC busy"
    ]
    assert meter.energy_between(at(1), at(11)) == 1000.0
    seconds[0] = 60.0
    meter.poll()
    assert meter.energy_between(at(51), at(61)) == 1000.0
    assert meter.energy_between(at(11), at(51)) is None  # 40 s of it with no reading
    assert meter.read().energy_j == {"node": None}


def test_a_command_is_run_without_a_shell(opened: Callable[..., WallMeter]) -> None:
    echo = [sys.executable, "-c", "import sys; print(sys.argv[1])"]
    meter = opened([*echo, "5 $HOME"], unit="J")
    meter.start()
    assert meter.read().energy_j == {"node": 0.0}
    with pytest.raises(MeterError, match=r"printed '\$HOME'"):
        opened([*echo, "$HOME"], unit="J").start()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["greentrain-no-such-program"], "cannot be started: No such file"),
        ([sys.executable, "-c", "import sys; sys.exit('secrets: none')"], "exit code 1: secrets: "),
        ([sys.executable, "-c", "raise SystemExit(3)"], "exit code 3: and said nothing"),
        ([sys.executable, "-c", "input()"], "EOF"),  # it is not given the terminal
    ],
)
def test_a_command_that_cannot_be_used_is_a_meter_error(arguments: list[str], match: str) -> None:
    with pytest.raises(MeterError, match=match):
        WallMeter(arguments, unit="W").start()


def test_a_command_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_wall_input, "TIMEOUT_S", 0.05)
    with pytest.raises(MeterError, match=r"took longer than 0\.05 s"):
        WallMeter([sys.executable, "-c", "import time; time.sleep(60)"], unit="W").start()


# --- life of a meter -------------------------------------------------------------------------


def test_the_thread_looks_every_interval_and_once_at_the_end(seconds: list[float]) -> None:
    waited: list[float] = []
    done = threading.Event()

    def wait(event: threading.Event, interval_s: float) -> bool:
        assert threading.current_thread().name == "greentrain-wall"
        assert threading.current_thread().daemon
        waited.append(interval_s)
        if len(waited) <= 3:
            seconds[0] += interval_s
            return False
        done.set()
        return event.wait()

    printer = Printer(seconds, *(str(1000 * index) for index in range(9)))
    meter = WallMeter(
        ["wall"], unit="J", interval_s=8.0, now=lambda: at(seconds[0]), wait=wait, run=printer
    )
    meter.start()
    assert done.wait(10.0)
    assert meter.read() == Reading(duration_s=30.0, energy_j={"node": 3000.0})
    meter.close()
    assert waited == [8.0] * 4
    assert meter.read().energy_j == {"node": 4000.0}  # what it learned at the end stays known
    assert "greentrain-wall" not in {thread.name for thread in threading.enumerate()}


def test_start_is_idempotent_and_a_closed_meter_starts_afresh(
    opened: Callable[..., WallMeter], seconds: list[float]
) -> None:
    printer = Printer(seconds, *(str(1000 * index) for index in range(99)))
    meter = opened(["wall"], unit="J", run=printer)
    assert isinstance(meter, Meter)
    assert meter.read() == Reading(duration_s=0.0, energy_j={"node": None})
    meter.poll()
    assert printer.asked == []
    meter.start()
    meter.start()
    assert len(printer.asked) == 1
    meter.close()
    meter.close()
    assert len(printer.asked) == 2
    assert meter.read().energy_j == {"node": 1000.0}
    meter.poll()
    meter.start()
    assert len(printer.asked) == 3
    assert meter.read() == Reading(duration_s=0.0, energy_j={"node": 0.0})


def test_the_source_says_what_was_said_about_it(
    opened: Callable[..., WallMeter], log: Path
) -> None:
    meter = opened(log, relative_uncertainty=0.01, reference="its data sheet", device="PDU 7")
    assert meter.sources == ()
    meter.start()
    (source,) = meter.sources
    assert (source.relative_uncertainty, source.reference) == (0.01, "its data sheet")
    assert (source.device, source.note) == ("PDU 7", "pdu.csv, about every 36 s")


def test_it_may_be_asked_from_any_thread(opened: Callable[..., WallMeter], log: Path) -> None:
    meter = opened(log)
    meter.start()
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(200):
            meter.poll()
            joules = meter.energy_between(at(0), at(72))
            if joules != 7200.0 or meter.read().duration_s % 36.0:
                wrong.append(joules)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for row in range(3, 200):
        append(log, f"{36 * row},{5000 + row}\n")
    for thread in threads:
        thread.join()
    meter.poll()
    assert wrong == []
    assert meter.energy_between(at(0), at(36 * 199)) == 199 * 3600.0


def test_a_pipe_is_no_file(opened: Callable[..., WallMeter], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="does not exist"):
        opened(tmp_path / "pipe").start()  # reading one would wait for ever


# --- the course of energy --------------------------------------------------------------------


@given(
    steps=st.lists(st.tuples(st.floats(0.5, 20.0), st.floats(1.0, 1e5)), min_size=3, max_size=30),
    cuts=st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
)
def test_parts_of_a_span_sum_to_it(
    steps: list[tuple[float, float]], cuts: tuple[float, float, float]
) -> None:
    series = EnergySeries(sampled=False)
    at_s = total_j = 0.0
    for gap_s, energy_j in steps:
        series.add(at_s, total_j)
        at_s, total_j = at_s + gap_s, total_j + energy_j
    series.add(at_s, total_j)
    first, second, third = sorted(cut * at_s for cut in cuts)
    parts = series.between(first, second), series.between(second, third)
    if parts[0] is not None and parts[1] is not None:
        whole = series.between(first, third)
        assert whole == pytest.approx(parts[0] + parts[1], abs=1e-6)
        assert 0.0 <= whole <= total_j + 1e-6
    assert series.between(0.0, at_s) == pytest.approx(total_j)


@pytest.mark.parametrize("step_wh", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("power_w", [80.0, 333.0])
def test_a_coarse_counter_is_read_from_step_to_step(step_wh: float, power_w: float) -> None:
    series = EnergySeries(sampled=False)
    step_j, every_s, phase_j = 3600.0 * step_wh, 10.0, 1234.5
    for index in range(2000):
        counted = (phase_j + power_w * every_s * index) // step_j
        series.add(every_s * index, counted * step_j)
    assert series.interval_s is not None
    start_s, end_s = 6001.7, 6001.7 + 20.0 * series.interval_s
    if end_s < 19000.0:
        joules = series.between(start_s, end_s)
        true_j = power_w * (end_s - start_s)
        # A step is seen up to one look late at either end: much less than the step itself.
        assert joules == pytest.approx(true_j, abs=power_w * every_s)
