"""Blocks, functions and commands: each a run of its own in the ledger."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest

import greentrain
from greentrain import measuring
from greentrain.carbon import Interval, Provenance
from greentrain.energy import ConstantMeter, Reading, starting
from greentrain.errors import ConfigurationError, LedgerError, MeterError
from greentrain.ledger import Ledger, verify
from greentrain.report import build

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from greentrain.cli.app import main; main()", "measure"]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'work.db'}"


@pytest.fixture
def meter(seconds):
    """A hundred watts: 36 s are 3600 J, which is 1 Wh."""
    return ConstantMeter(100.0, clock=lambda: seconds[0])


def recorded(url):
    """(name, status, joules of each window) of every run, of a ledger in which all follows."""
    ledger = Ledger(url, create=False)
    try:
        assert verify(ledger).failures == ()
        statuses = {row["run_id"]: row["status"] for row in ledger.rows("closing")}
        windows = ledger.rows("window")
        runs = ledger.rows("run")
    finally:
        ledger.close()
    assert {row["kind"] for row in runs} <= {"measure"}
    assert {row["phase"] for row in windows} <= {"measure"}
    return [
        (
            run["name"],
            statuses.get(run["run_id"]),
            [row["energy_j"] for row in windows if row["run_id"] == run["run_id"]],
        )
        for run in runs
    ]


# Blocks


def test_a_block_is_a_run_with_one_window(url, meter, seconds):
    with greentrain.measure("prepare data", ledger=url, meter=meter) as measured:
        assert measured.reading.total_j is None  # not over yet
        seconds[0] = 36.0
    assert measured.reading == Reading(duration_s=36.0, energy_j={"constant": 3600.0})
    assert str(measured) == "prepare data used 1 Wh in 36.00 s: constant 1 Wh (given)"
    assert recorded(url) == [("prepare data", "completed", [3600.0])]


def test_a_meter_that_was_given_is_started_if_needed_and_left_running(url, meter, seconds):
    meter.start()
    seconds[0] = 10.0
    with greentrain.measure("late", ledger=url, meter=meter) as measured:
        seconds[0] = 46.0
    assert measured.reading.total_j == 3600.0
    seconds[0] = 50.0
    assert meter.read().total_j == 5000.0  # neither closed nor started anew


def test_a_meter_that_was_detected_is_closed(url, meter, seconds, monkeypatch):
    def detected():
        meter.start()
        return meter

    monkeypatch.setattr(starting, "detect", detected)
    with greentrain.measure("a", ledger=url) as measured:
        seconds[0] = 36.0
    assert measured.reading.total_j == 3600.0
    seconds[0] = 72.0
    assert meter.read().duration_s == 0.0


def test_a_short_block_has_no_energy_of_the_meters_set_up(url, monkeypatch):
    from greentrain.energy import CodeCarbonMeter, codecarbon

    real, ready = codecarbon.set_up, threading.Event()

    def slow(root):
        parts = real(root)
        time.sleep(0.2)  # as where CodeCarbon is not loaded yet
        ready.set()
        return parts

    monkeypatch.setattr(codecarbon, "set_up", slow)
    meter = CodeCarbonMeter()
    with greentrain.measure("true", ledger=url, meter=meter) as measured:
        assert ready.is_set()
    meter.close()
    ram_w = float(measured.sources[1].note.split("a constant ")[1].split(" W")[0])
    reading = measured.reading
    assert reading.energy_j["ram"] == pytest.approx(ram_w * reading.duration_s)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1)])
def test_a_block_that_raises_is_a_failed_run_and_its_joules_count(url, meter, seconds, error):
    with (
        pytest.raises(type(error)) as caught,
        greentrain.measure("a", ledger=url, meter=meter) as measured,
    ):
        seconds[0] = 36.0
        raise error
    assert caught.value is error
    assert measured.reading.total_j == 3600.0
    assert recorded(url) == [("a", "failed", [3600.0])]


def test_each_call_of_a_decorated_function_is_a_run(url, meter, seconds):
    @greentrain.measure("search", ledger=url, meter=meter)
    def search(trials):
        """Look for something."""
        seconds[0] += 36.0 * trials
        return trials

    assert not Path(url.removeprefix("sqlite:///")).exists()
    assert [search(trials=1), search(2)] == [1, 2]
    assert search.__name__ == "search" and search.__doc__ == "Look for something."
    assert recorded(url) == [("search", "completed", [3600.0]), ("search", "completed", [7200.0])]


def test_a_decorated_function_may_call_itself(url, meter, seconds):
    @greentrain.measure("down", ledger=url, meter=meter)
    def down(depth):
        seconds[0] += 36.0
        if depth:
            down(depth - 1)

    down(2)
    assert recorded(url) == [("down", "completed", [3600.0])] * 3


@pytest.mark.parametrize("given_inside", [True, False])
def test_a_use_inside_another_interrupts_it(url, meter, seconds, given_inside):
    with greentrain.measure("outer", ledger=url, meter=meter) as outer:
        seconds[0] = 36.0
        inside = meter if given_inside else None
        with greentrain.measure("inner", ledger=url, meter=inside) as inner:
            seconds[0] = 36.0 + 72.0
        seconds[0] += 36.0
    assert (outer.reading.total_j, inner.reading.total_j) == (7200.0, 7200.0)
    assert meter.read().total_j == 14400.0  # all of it, once
    assert recorded(url) == [("outer", "completed", [7200.0]), ("inner", "completed", [7200.0])]


def test_an_inner_failure_that_is_caught_leaves_the_outer_use_whole(url, meter, seconds):
    with greentrain.measure("outer", ledger=url, meter=meter):
        with (
            pytest.raises(ZeroDivisionError),
            greentrain.measure("inner", ledger=url, meter=meter),
        ):
            seconds[0] = 36.0
            raise ZeroDivisionError
        seconds[0] = 72.0
    assert recorded(url) == [("outer", "completed", [3600.0]), ("inner", "failed", [3600.0])]


def test_another_meter_inside_is_read_by_itself(url, meter, seconds):
    other = ConstantMeter({"disk": 5.0}, clock=lambda: seconds[0])
    with (
        greentrain.measure("outer", ledger=url, meter=meter) as outer,
        greentrain.measure("inner", ledger=url, meter=other) as inner,
    ):
        seconds[0] = 36.0
    assert (outer.reading.energy_j, inner.reading.energy_j) == ({"constant": 3600}, {"disk": 180})


def test_a_thread_has_uses_of_its_own(url, meter, seconds):
    with greentrain.measure("outer", ledger=url, meter=meter):
        other = ConstantMeter(1.0, clock=lambda: seconds[0])

        def work():
            with greentrain.measure("beside", ledger=url, meter=other):
                seconds[0] = 36.0

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert recorded(url) == [("outer", "completed", [3600.0]), ("beside", "completed", [36.0])]


# Grams


def test_a_block_has_the_grams_of_its_zone(url, meter, seconds):
    with greentrain.measure("a", ledger=url, meter=meter, intensity=Steady(), pue=1.5) as measured:
        assert measured.emissions.grams is None
        seconds[0] = 36.0
    assert measured.emissions.grams == pytest.approx(0.6)  # 1 Wh x 1.5 x 0.4 g/Wh
    assert str(measured).startswith("a used 1 Wh and emitted 0.6 g CO2e in ")
    ledger = Ledger(url)
    (window,) = ledger.rows("window")
    (run,) = ledger.rows("run")
    ledger.close()
    assert (window["emissions_g"], window["intensity_g_per_kwh"]) == (pytest.approx(0.6), 400.0)
    told = json.loads(run["environment"])["carbon"]
    assert (told["intensity"]["zone"], told["pue"], told["pue_source"]) == (
        "here",
        1.5,
        "given by the user",
    )


def test_a_block_has_tags(url, meter):
    with greentrain.measure("a", ledger=url, meter=meter, team="vision", project="digits"):
        pass
    with contextlib.closing(Ledger(url)) as ledger:
        (run,) = ledger.rows("run")
    assert (run["team"], run["project"]) == ("vision", "digits")


class Steady:
    """400 g/kWh at all times."""

    provenance = Provenance(source="a table", zone="here", data_year=2025)

    def history(self, start, end):
        return [Interval(start=start, end=end + timedelta(seconds=1), g_per_kwh=400.0)]


@pytest.mark.parametrize(
    "wrong",
    [{"zone": "XX"}, {"pue": 0.9}, {"pue_source": "nobody"}, {"zone": "DE", "intensity": Steady()}],
)
def test_a_wrong_zone_is_refused_before_the_block(url, meter, wrong):
    with pytest.raises(ConfigurationError), greentrain.measure("a", ledger=url, **wrong):
        pytest.fail("the block began")
    assert not Path(url.removeprefix("sqlite:///")).exists()


def test_an_intensity_that_fails_costs_no_joules(url, meter, seconds, caplog):
    class Broken(Steady):
        def history(self, start, end):
            raise OSError("no network")

    with greentrain.measure("a", ledger=url, meter=meter, intensity=Broken()) as measured:
        seconds[0] = 36.0
    assert (measured.reading.total_j, measured.emissions.grams) == (3600.0, None)
    assert len(messages(caplog)) == 1 and "no network" in messages(caplog)[0]
    assert recorded(url) == [("a", "completed", [3600.0])]


# Kills


def killed(url, child):
    """Kill a process that draws 100 W once it has written two heartbeats; return its windows."""
    deadline = time.monotonic() + 60
    beats = 0
    while beats < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
        if Path(url.removeprefix("sqlite:///")).exists():
            with contextlib.suppress(LedgerError):  # not made yet
                ledger = Ledger(url, create=False)
                beats = len(ledger.rows("heartbeat"))
                ledger.close()
    child.send_signal(signal.SIGKILL)
    child.communicate()
    ledger = Ledger(url, create=False)
    found = verify(ledger)
    windows = ledger.windows()
    ledger.close()
    assert found.failures == ()
    assert [note.split(":")[0] for note in found.notes] == ["unclosed"] * (len(windows) - 1) + [
        "unclosed",
        "recovered",
    ]
    return windows


QUICK = "from greentrain import measuring\nmeasuring.HEARTBEAT_S = 0.2\n"


def test_a_block_that_is_killed_loses_no_more_than_a_heartbeat(url):
    code = QUICK + (
        "import sys, time\n"
        "from greentrain.energy import ConstantMeter\n"
        "with measuring.measure('a', ledger=sys.argv[1], meter=ConstantMeter(100.0)):\n"
        "    time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, url], cwd=ROOT)
    (window,) = killed(url, child)
    assert (window["phase"], window["recovered"]) == ("measure", True)
    assert window["energy_j"] == pytest.approx(100.0 * window["duration_s"])
    assert window["duration_s"] >= 0.35  # two heartbeats


def test_a_command_that_is_killed_loses_no_more_than_a_heartbeat(url, tmp_path):
    code = QUICK + "from greentrain.cli.app import main\nmain()\n"
    waiting = python("import time", "time.sleep(3)")  # ends by itself, killed or not
    child = subprocess.Popen(
        [sys.executable, "-c", code, "measure", "--ledger", url, "--zone", "DE", "--", *waiting],
        cwd=ROOT,
    )
    (window,) = killed(url, child)
    assert window["recovered"] and window["duration_s"] >= 0.35
    if window["energy_j"] is not None:
        assert window["emissions_g"] > 0


def test_a_use_inside_another_has_heartbeats_of_its_own(url, meter, seconds, monkeypatch):
    monkeypatch.setattr(measuring, "HEARTBEAT_S", 0.002)
    with greentrain.measure("outer", ledger=url, meter=meter):
        seconds[0] = 36.0
        with greentrain.measure("inner", ledger=url, meter=meter):
            seconds[0] = 36.0 + 72.0
            ledger = Ledger(url)
            deadline = time.monotonic() + 60
            beats = {}
            while beats != {"outer": 3600.0, "inner": 7200.0}:
                assert time.monotonic() < deadline
                names = {row["run_id"]: row["name"] for row in ledger.rows("run")}
                beats = {names[row["run_id"]]: row["energy_j"] for row in ledger.rows("heartbeat")}
            ledger.close()
    assert recorded(url) == [("outer", "completed", [3600.0]), ("inner", "completed", [7200.0])]


# What goes wrong


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ("mysql://host/base", ConfigurationError),
        ("postgresql://host", ConfigurationError),
        ("postgresql:///base?host=/no/such/folder", LedgerError),
        ("sqlite://", ConfigurationError),
        ("folder", LedgerError),
        ("text.db", LedgerError),
        ("other.db", LedgerError),
    ],
)
def test_a_wrong_ledger_is_refused_before_the_block(tmp_path, monkeypatch, meter, wrong, error):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.db").write_text(
        "no database, but a text that is long enough to be read as one\n" * 9
    )
    other = sqlite3.connect("other.db")
    other.execute("create table cats (name text)")
    other.close()
    began = False
    with pytest.raises(error), greentrain.measure("a", ledger=wrong, meter=meter):
        began = True
    assert not began
    assert meter.read().duration_s == 0.0  # not even started


def messages(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def lock(url):
    """Hold a ledger so that nobody else can write."""
    connection = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("begin immediate")
    return connection


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr("greentrain.ledger.sql_store.BUSY_TIMEOUT_S", 0.0)


def test_a_ledger_that_is_locked_before_the_block_stops_nothing(
    url, meter, seconds, caplog, impatient
):
    Ledger(url).close()
    holder = lock(url)
    with greentrain.measure("a", ledger=url, meter=meter) as measured:
        seconds[0] = 36.0
    holder.close()
    assert measured.reading.total_j == 3600.0
    assert len(messages(caplog)) == 1
    assert "'a'" in messages(caplog)[0] and "locked" in messages(caplog)[0]
    assert recorded(url) == []


def test_a_ledger_that_is_locked_when_the_block_ends_stops_nothing(
    url, meter, seconds, caplog, impatient
):
    with greentrain.measure("a", ledger=url, meter=meter) as measured:
        seconds[0] = 36.0
        holder = lock(url)
    holder.close()
    assert measured.reading.total_j == 3600.0
    assert "locked" in messages(caplog)[0]
    assert "rows that the ledger did not take wait in" in messages(caplog)[1]
    Ledger(url).close()  # whoever opens it next writes what waits
    assert recorded(url) == [("a", "completed", [3600.0])]


def test_the_blocks_error_is_the_one_that_is_raised(url, meter, impatient):
    with (
        pytest.raises(ValueError, match="mine"),
        greentrain.measure("a", ledger=url, meter=meter),
    ):
        holder = lock(url)
        raise ValueError("mine")
    holder.close()


HELD = """
import os, sys, time
from pathlib import Path
import greentrain
from greentrain.energy import ConstantMeter

def held():
    targets = [os.path.realpath(path) for path in Path("/proc/self/fd").iterdir()]
    return [target for target in targets if target.startswith(sys.argv[1])]

with greentrain.measure("a", ledger=sys.argv[2], meter=ConstantMeter(100.0)):
    until_s = time.monotonic() + 60.0
    while held() and time.monotonic() < until_s:  # a thread writes down what is metered
        time.sleep(0.01)
    assert not held()
"""


def test_a_ledger_is_not_held_open_during_the_block(tmp_path, url):
    # In a process of its own, in which nothing else has a ledger.
    subprocess.run([sys.executable, "-c", HELD, str(tmp_path), url], check=True)
    with contextlib.closing(Ledger(url, create=False)) as ledger:
        assert len(ledger.windows()) == 1


class Failing:
    """A meter that fails to start, or from its n-th reading on."""

    sources = ConstantMeter(1.0).sources

    def __init__(self, error=None, readings=0):
        self.error = error
        self.readings = readings

    def start(self):
        if self.error is not None:
            raise self.error

    def read(self):
        self.readings -= 1
        if self.readings < 0:
            raise MeterError("lost")
        return Reading(duration_s=1.0, energy_j={"constant": 1.0})

    def close(self):
        raise MeterError("cannot be closed either")


@pytest.mark.parametrize("error", [MeterError("no such thing"), OSError("gone")])
def test_a_meter_that_cannot_start_leaves_the_joules_unknown(url, caplog, error):
    with greentrain.measure("a", ledger=url, meter=Failing(error)) as measured:
        pass
    assert measured.reading.total_j is None
    assert not measured.reading.complete
    assert measured.reading.duration_s > 0
    assert str(measured).startswith("a used an unknown energy in ")
    assert str(measured).endswith(" s: no source")
    assert len(messages(caplog)) == 1
    assert str(error) in messages(caplog)[0]
    assert recorded(url) == [("a", "completed", [None])]


def test_a_meter_that_asks_for_what_is_not_there_is_refused(url):
    with (
        pytest.raises(ConfigurationError, match="no such card"),
        greentrain.measure("a", ledger=url, meter=Failing(ConfigurationError("no such card"))),
    ):
        pytest.fail("the block began")


@pytest.mark.parametrize("readings", [0, 1])
def test_a_meter_that_fails_in_the_block_leaves_the_joules_unknown(url, caplog, readings):
    with greentrain.measure("a", ledger=url, meter=Failing(readings=readings)) as measured:
        pass
    assert measured.reading.total_j is None
    assert not measured.reading.complete
    assert len(messages(caplog)) == 1
    assert recorded(url) == [("a", "completed", [None])]


def test_a_detected_meter_that_cannot_be_closed_stops_nothing(url, caplog, monkeypatch):
    monkeypatch.setattr(starting, "detect", lambda: Failing(readings=9))
    with greentrain.measure("a", ledger=url):
        pass
    assert messages(caplog) == ["the meter could not be closed: cannot be closed either"]
    assert recorded(url) == [("a", "completed", [0.0])]


def test_what_is_partly_unknown_is_said_to_be_at_least_that():
    measured = measuring.Measurement("a")
    measured.reading = Reading(duration_s=1.0, energy_j={"cpu": 3600.0, "gpu:0": None})
    measured.sources = ConstantMeter({"cpu": 1.0, "gpu:0": 1.0}).sources
    assert (
        str(measured) == "a used at least 1 Wh in 1.00 s: cpu 1 Wh (given), gpu:0 unknown (given)"
    )


# The report


def test_the_command_says_its_grams(tmp_path):
    arguments = ("--zone", "DE", "--pue", "1.2", "--pue-source", "a sign", "--", "true")
    code, _, err = run(*arguments, cwd=tmp_path)
    assert code == 0
    assert re.search(r"[\d.]+ m?g CO2e in ", err) or "an unknown energy" in err
    ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}")
    carbon = json.loads(ledger.rows("run")[0]["environment"])["carbon"]
    ledger.close()
    assert (carbon["intensity"]["zone"], carbon["pue_source"]) == ("DE", "a sign")


def test_the_report_has_every_use(url, meter, seconds):
    for name, length_s in {"prepare data": 36.0, "search": 72.0}.items():
        with greentrain.measure(name, ledger=url, meter=meter):
            seconds[0] += length_s
    ledger = Ledger(url)
    report = build(ledger)
    ledger.close()
    assert report["totals"]["energy_wh"] == 3.0
    assert [(run["kind"], run["name"], run["energy_wh"]) for run in report["runs"]] == [
        ("measure", "prepare data", 1.0),
        ("measure", "search", 2.0),
    ]
    assert report["runs"][0]["windows_by_phase"] == {"measure": 1}
    assert report["verification"]["ok"] is True


# The command


def start(*arguments, cwd, **options):
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # no terminal, so that SIGINT has to be handed on
        # A shell that runs the tests in the background lets them ignore Ctrl-C, and so their
        # children, and a command that ignores it is left to.
        **{"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options},
    )


def run(*arguments, cwd, given=b""):
    with start(*arguments, cwd=cwd) as process:
        out, err = process.communicate(given, timeout=120)
    return process.returncode, out, err.decode()


def python(*lines):
    return [sys.executable, "-c", "\n".join(lines)]


def test_a_command_keeps_its_input_output_and_exit_code(tmp_path):
    echo = python(
        "import sys",
        "sys.stdout.buffer.write(sys.stdin.buffer.read())",
        "sys.stderr.write('mine\\n')",
        "sys.exit(int(sys.argv[-1]))",
    )
    given = b"\x00bytes\r\n, not text \xff"
    code, out, err = run("--", *echo, "--ledger", "3", cwd=tmp_path, given=given)
    assert (code, out) == (3, given)
    first, line = err.splitlines()
    assert first == "mine"
    name = Path(sys.executable).name
    assert line.startswith(f"greentrain: {name} used ")
    assert " J in " in line and " s: " in line and "cpu" in line and "(" in line
    [(recorded_name, status, [energy_j])] = recorded(f"sqlite:///{tmp_path / 'greentrain.db'}")
    assert (recorded_name, status) == (name, "failed")
    assert energy_j is None or energy_j > 0
    assert stat.S_IMODE((tmp_path / "greentrain.db").stat().st_mode) == 0o600


def test_a_command_has_a_name_and_a_ledger_if_they_are_given(tmp_path):
    script = tmp_path / "prepare.sh"
    script.write_text('#!/bin/sh\necho "$@"\n')
    script.chmod(0o755)
    code, out, _ = run("--ledger", "x.db", str(script), "--name", "secret", cwd=tmp_path)
    assert (code, out) == (0, b"--name secret\n")  # its own, with and without --
    code, out, err = run("--ledger", "x.db", "--name", "all of it", "--", str(script), cwd=tmp_path)
    assert (code, out) == (0, b"\n")
    assert err.startswith("greentrain: all of it used ")
    runs = recorded(f"sqlite:///{tmp_path / 'x.db'}")
    assert [(name, status) for name, status, _ in runs] == [
        ("prepare.sh", "completed"),
        ("all of it", "completed"),
    ]
    written = (tmp_path / "x.db").read_bytes()
    assert b"secret" not in written and str(tmp_path).encode() not in written


def test_a_command_that_is_not_there_is_one_line_and_exit_code_127(tmp_path):
    code, out, err = run("--", "no-such-command-at-all", cwd=tmp_path)
    assert (code, out) == (127, b"")
    assert err.startswith("greentrain: cannot start 'no-such-command-at-all': ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_command_that_does_not_start_is_no_completed_run(tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF, but not really")
    broken.chmod(0o755)
    code, _, err = run("--", str(broken), cwd=tmp_path)
    assert code == 127
    assert len(err.splitlines()) == 1
    [(_, status, _)] = recorded(f"sqlite:///{tmp_path / 'greentrain.db'}")
    assert status == "failed"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ledger", "mysql://host/base", "--", "true"), "write it as 'sqlite:///"),
        (("--zone", "XX", "--", "true"), "no carbon intensity is known for the zone 'XX'"),
        (("--pue", "0.9", "--", "true"), "pue is 0.9"),
        (("--ledgre", "x.db", "--", "true"), "No such option"),
        ((), "Missing argument"),
    ],
)
def test_wrong_input_starts_nothing(tmp_path, arguments, said):
    code, _, err = run(*arguments, cwd=tmp_path)
    assert code == 2
    assert said in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("handled", [True, False])
def test_a_signal_reaches_the_command_and_its_end_is_recorded(tmp_path, number, handled):
    handler = "lambda *_: sys.exit(7)" if handled else "signal.SIG_DFL"
    waiting = python(
        "import signal, sys",
        f"signal.signal({int(number)}, {handler})",
        "print('ready', flush=True)",
        "signal.pause()",
    )
    with start("--", *waiting, cwd=tmp_path) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == (7 if handled else 128 + number)
    assert b" used " in err and len(err.splitlines()) == 1
    [(_, status, windows)] = recorded(f"sqlite:///{tmp_path / 'greentrain.db'}")
    assert (status, len(windows)) == ("failed", 1)


def test_neither_the_function_nor_the_command_loads_torch(tmp_path):
    code = (
        "import sys\n"
        "from greentrain import measure\n"
        "from greentrain.cli.app import main\n"
        "sys.argv = ['greentrain', 'measure', '--', 'true']\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code, ended.code\n"
        "print(sorted({'torch', 'pytorch_lightning', 'lightning', 'mlflow'} & {*sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
