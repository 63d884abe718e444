from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain import units
from greentrain.carbon import CarbonAccount
from greentrain.energy import (
    NOTHING,
    ConstantMeter,
    Reading,
    Source,
    Window,
    WindowRecorder,
    total,
)
from greentrain.errors import LedgerError

POWER_W = 10.0
NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


class Bench:
    """A meter of 10 W, its clock, and a recorder whose windows are kept."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.broken = False
        self.windows: list[Window] = []
        self._meter = ConstantMeter(POWER_W, clock=lambda: self.seconds)
        self._meter.start()
        self.recorder = WindowRecorder(
            self, self.windows.append, now=lambda: NEW_YEAR + timedelta(seconds=self.seconds)
        )

    sources = property(lambda self: self._meter.sources)

    def start(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> Reading:
        if self.broken:
            raise OSError("the card fell off the bus")
        return self._meter.read()

    def joules(self) -> list[tuple[str, float | None]]:
        return [(window.phase, window.reading.total_j) for window in self.windows]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_phase_inside_another_interrupts_it(bench: Bench) -> None:
    with bench.recorder.phase("fit", epoch=3):
        bench.seconds = 1.0
        with bench.recorder.phase("validation"):
            bench.seconds = 4.0
        bench.seconds = 9.0
    # Validation from 1 to 4 s, fit from 0 to 1 and 4 to 9 s, at 10 W.
    assert bench.joules() == [("validation", 30.0), ("fit", 60.0)]
    assert [window.reading.duration_s for window in bench.windows] == [3.0, 6.0]
    assert [window.epoch for window in bench.windows] == [None, 3]
    assert [window.started for window in bench.windows] == [
        NEW_YEAR + timedelta(seconds=1),
        NEW_YEAR,
    ]


def test_what_is_used_between_phases_is_left_out(bench: Bench) -> None:
    bench.seconds = 5.0
    with bench.recorder.phase("one"):
        bench.seconds = 6.0
    bench.seconds = 60.0
    with bench.recorder.phase("two"):
        bench.seconds = 62.0
    assert bench.joules() == [("one", 10.0), ("two", 20.0)]
    assert total(bench.windows).total_j == 30.0


@given(st.lists(st.one_of(st.integers(0, 100), st.sampled_from(["enter", "leave"])), max_size=40))
def test_nested_windows_sum_to_what_was_used_while_any_phase_was_open(
    events: list[int | str],
) -> None:
    bench, open_s = Bench(), 0
    for event in events:
        if event == "enter":
            bench.recorder.enter("phase")
        elif event == "leave":
            if bench.recorder.depth:
                bench.recorder.leave()
        else:
            bench.seconds += int(event)
            open_s += int(event) if bench.recorder.depth else 0
    assert (total(bench.windows) + bench.recorder.used()).duration_s == open_s
    bench.recorder.leave_to(0)
    assert len(bench.windows) == events.count("enter")
    whole = total(bench.windows)
    assert (whole.total_j or 0.0, whole.duration_s) == (POWER_W * open_s, open_s)


def test_what_open_phases_have_used_is_known_before_they_close(bench: Bench) -> None:
    recorder = bench.recorder
    assert recorder.used() == NOTHING
    recorder.enter("fit")
    bench.seconds = 1.0
    recorder.enter("validation")
    bench.seconds = 3.0
    assert recorder.used().total_j == 30.0
    assert recorder.used(depth=1).total_j == 20.0
    assert recorder.used(depth=2) == NOTHING
    recorder.leave()
    bench.seconds = 4.0
    assert recorder.used().total_j == 20.0  # validation's 20 J are in its window


def test_leaving_to_a_depth_closes_the_innermost_first(bench: Bench) -> None:
    for phase in ("fit", "train_epoch", "validation"):
        bench.recorder.enter(phase)
        bench.seconds += 1.0
    bench.recorder.leave_to(1)
    assert bench.joules() == [("validation", 10.0), ("train_epoch", 10.0)]
    bench.recorder.leave_to(2)  # no deeper than it is
    assert bench.recorder.depth == 1
    bench.recorder.leave_to(0)
    assert bench.recorder.depth == 0


def test_phases_left_open_by_an_exception_are_closed_with_theirs(bench: Bench) -> None:
    with pytest.raises(KeyboardInterrupt), bench.recorder.phase("fit"):
        bench.recorder.enter("train_epoch")
        bench.seconds = 2.0
        raise KeyboardInterrupt
    assert bench.joules() == [("train_epoch", 20.0), ("fit", 0.0)]


def test_a_window_names_the_reservation_it_is_paid_from(bench: Bench) -> None:
    bench.recorder.reservation_id = "r1"
    with bench.recorder.phase("probe"):
        pass
    bench.recorder.reservation_id = None
    with bench.recorder.phase("validation"):
        pass
    assert [window.reservation_id for window in bench.windows] == ["r1", None]


def test_a_meter_that_fails_warns_once_and_its_windows_are_unknown(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    for second in range(1, 5):
        bench.broken = second in (2, 3)
        with bench.recorder.phase(f"epoch {second}"):
            bench.seconds += 1.0
    assert bench.joules() == [
        ("epoch 1", 10.0),
        ("epoch 2", None),
        ("epoch 3", None),
        ("epoch 4", 10.0),
    ]
    assert [window.reading.complete for window in bench.windows] == [True, False, False, True]
    assert caplog.messages == [
        "the meter failed and its figures are unknown: the card fell off the bus"
    ]


@pytest.mark.parametrize("joules", [-5.0, float("nan")])
def test_joules_that_fall_or_are_no_number_are_unknown(
    bench: Bench,
    joules: float,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wrong = Reading(duration_s=1.0, energy_j={"constant": joules})
    with bench.recorder.phase("epoch 1"):
        bench.seconds += 1.0
        monkeypatch.setattr(bench, "read", lambda: wrong)
        assert bench.recorder.used().total_j is None
    assert bench.joules() == [("epoch 1", None)]
    assert caplog.messages == [
        "the meter's joules fell or are no number, so they are unknown: constant"
    ]


@pytest.mark.parametrize("broken_at", ["beginning", "end"])
def test_a_window_with_one_unknown_edge_is_unknown(bench: Bench, broken_at: str) -> None:
    bench.broken = broken_at == "beginning"
    bench.recorder.enter("fit")
    bench.seconds = 3.0
    bench.broken = broken_at == "end"
    bench.recorder.leave()
    assert bench.windows[0].reading.energy_j == {"constant": None}
    assert 0.0 <= bench.windows[0].reading.duration_s <= 3.0


def test_a_phase_that_went_unmeasured_in_between_is_unknown_as_a_whole(bench: Bench) -> None:
    with bench.recorder.phase("fit"):
        bench.seconds = 1.0
        with bench.recorder.phase("validation"):
            bench.broken = True
            bench.seconds = 2.0
        bench.broken = False
        bench.seconds = 3.0
    assert bench.joules() == [("validation", None), ("fit", None)]


def failing_sink(_: Window) -> None:
    raise LedgerError("the disk is full")


def test_a_sink_that_fails_warns_once_and_the_others_are_served(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.recorder.sinks.insert(0, failing_sink)
    for _ in range(3):
        with bench.recorder.phase("epoch"):
            bench.seconds += 1.0
    assert bench.joules() == [("epoch", 10.0)] * 3
    assert caplog.messages == ["a window could not be recorded: the disk is full"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_of_someone_elses_is_not_hidden(
    bench: Bench, error: Callable[[], BaseException]
) -> None:
    def sink(_: Window) -> None:
        raise error()

    bench.recorder.sinks.append(sink)
    bench.recorder.enter("epoch")
    with pytest.raises(error):  # type: ignore[call-overload]
        bench.recorder.leave()
    assert bench.recorder.depth == 0


class LateMeter:
    """A meter of 10 W that is set up after 5 s, and whose sources wait for that."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.ready = False
        self.windows: list[Window] = []
        self.recorder = WindowRecorder(
            self, self.windows.append, now=lambda: NEW_YEAR + timedelta(seconds=self.seconds)
        )

    @property
    def sources(self) -> tuple[Source, ...]:
        if not self.ready:
            self.seconds, self.ready = max(5.0, self.seconds), True
        return ()

    def start(self) -> None: ...

    def close(self) -> None: ...

    def read(self) -> Reading:
        joules = POWER_W * self.seconds if self.ready else 0.0
        late = frozenset() if self.ready else frozenset({"cpu"})
        return Reading(duration_s=self.seconds, energy_j={"cpu": joules}, late=late)

    def used(self) -> list[tuple[str, float, float | None]]:
        return [(one.phase, one.reading.duration_s, one.reading.total_j) for one in self.windows]


def test_joules_that_come_late_are_shared_out_by_time() -> None:
    late = LateMeter()
    late.seconds = 1.0  # what is used before the first phase is in no window
    late.recorder.enter("fit")
    late.seconds = 1.5
    late.recorder.enter("sanity_check")
    late.seconds = 2.0
    late.recorder.leave()  # waits until 5 s
    late.seconds = 6.0
    late.recorder.leave()
    # 10 W all the time: from 1.5 to 2 s, and from 1 to 1.5 and 2 to 6 s.
    assert late.used() == [("sanity_check", 0.5, 5.0), ("fit", 4.5, 45.0)]
    assert late.windows[0].ended == NEW_YEAR + timedelta(seconds=2)


def test_an_open_window_has_its_share_once_late_joules_come() -> None:
    late = LateMeter()
    late.seconds = 1.0
    late.recorder.enter("fit")
    late.seconds = 2.0
    late.recorder.enter("train_epoch")
    late.seconds = 3.0
    assert [one.reading.duration_s for one in late.recorder.open_windows()] == [1.0, 1.0]
    late.seconds, late.ready = 7.0, True
    assert [one.reading.total_j for one in late.recorder.open_windows()] == [10.0, 50.0]
    late.seconds = 8.0
    late.recorder.leave_to(0)
    assert late.used() == [("train_epoch", 6.0, 60.0), ("fit", 1.0, 10.0)]


def test_a_phase_that_ends_at_once_has_no_energy_of_the_set_up() -> None:
    late = LateMeter()
    with late.recorder.phase("true"):
        late.seconds = 0.017
    assert late.used() == [("true", 0.017, pytest.approx(0.17))]


def test_a_meter_that_stays_late_is_unknown_and_fails_nothing() -> None:
    late = LateMeter()
    late.read = lambda: Reading(  # type: ignore[method-assign]
        duration_s=late.seconds, energy_j={"cpu": 0.0}, late=frozenset({"cpu"})
    )
    with late.recorder.phase("fit"), late.recorder.phase("train_epoch"):
        late.seconds = 6.0
    assert [one.reading.energy_j for one in late.windows] == [{"cpu": None}, {"cpu": None}]


def test_windows_are_in_order_while_the_systems_clock_is_set_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wall = [NEW_YEAR]
    monkeypatch.setattr(units, "utc_now", lambda: wall[0])
    meter = ConstantMeter(POWER_W)
    meter.start()
    windows: list[Window] = []
    recorder = WindowRecorder(meter, windows.append)
    with recorder.phase("fit"):
        with recorder.phase("train_epoch"):
            wall[0] -= timedelta(seconds=20)
        with recorder.phase("train_epoch"):
            pass
    first, second, fit = windows
    assert NEW_YEAR <= fit.started <= first.started <= first.ended <= second.started
    assert second.started <= second.ended <= fit.ended
    account = CarbonAccount(zone="DE")
    assert all(account.of(window).grams is not None for window in windows)
    wall[0] = NEW_YEAR + timedelta(hours=1)  # set right, for the next fit
    with recorder.phase("fit"):
        pass
    assert windows[-1].started >= wall[0]
