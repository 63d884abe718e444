from __future__ import annotations

import logging

import pytest

from greentrain.energy import CompositeMeter, ConstantMeter, Reading, Source
from greentrain.errors import ConfigurationError, MeterError


class FragileMeter(ConstantMeter):
    """A meter of 100 W whose methods named in ``broken`` raise."""

    def __init__(self, name: str, clock_s: list[float], *broken: str) -> None:
        super().__init__({name: 100.0}, clock=lambda: clock_s[0])
        self.broken = set(broken)
        self.running = False

    def start(self) -> None:
        self._break("start")
        super().start()
        self.running = True

    def read(self) -> Reading:
        self._break("read")
        return super().read()

    def close(self) -> None:
        self._break("close")
        super().close()
        self.running = False

    def _break(self, what: str) -> None:
        if what in self.broken:
            raise RuntimeError(f"{what} is broken")


def test_members_are_read_as_one(seconds: list[float]) -> None:
    meter = CompositeMeter(
        ConstantMeter({"cpu": 20.0}, clock=lambda: seconds[0]),
        ConstantMeter({"ram": 5.0, "gpu:0": 75.0}, clock=lambda: seconds[0]),
    )
    meter.start()
    seconds[0] = 36.0
    reading = meter.read()
    assert reading.energy_j == {"cpu": 720.0, "ram": 180.0, "gpu:0": 2700.0}
    assert (reading.duration_s, reading.total_j) == (36.0, 3600.0)
    assert [source.name for source in meter.sources] == ["cpu", "ram", "gpu:0"]


def test_a_member_that_cannot_start_is_unknown(
    seconds: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    meter = CompositeMeter(FragileMeter("gpu:0", seconds, "start"), FragileMeter("cpu", seconds))
    meter.start()
    seconds[0] = 2.0
    reading = meter.read()
    assert reading == Reading(duration_s=2.0, energy_j={"gpu:0": None, "cpu": 200.0})
    assert not reading.complete
    assert caplog.messages == [
        "FragileMeter failed and is unknown from here on: start is broken",
    ]


@pytest.mark.parametrize("first", [True, False])
def test_a_member_that_fails_in_between_is_unknown_from_there(
    seconds: list[float], caplog: pytest.LogCaptureFixture, first: bool
) -> None:
    fragile, steady = FragileMeter("gpu:0", seconds), FragileMeter("cpu", seconds)
    meter = CompositeMeter(*((fragile, steady) if first else (steady, fragile)))
    meter.start()
    seconds[0] = 1.0
    before = meter.read()
    fragile.broken.add("read")
    seconds[0] = 3.0
    during = meter.read()
    fragile.broken.clear()
    seconds[0] = 6.0
    after = meter.read()
    assert before.energy_j == {"gpu:0": 100.0, "cpu": 100.0}
    assert during - before == Reading(duration_s=2.0, energy_j={"gpu:0": None, "cpu": 200.0})
    assert after - during == Reading(duration_s=3.0, energy_j={"gpu:0": None, "cpu": 300.0})
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "read is broken" in caplog.text


def test_a_failed_member_may_be_started_afresh(seconds: list[float]) -> None:
    fragile = FragileMeter("gpu:0", seconds, "start")
    meter = CompositeMeter(fragile, FragileMeter("cpu", seconds))
    meter.start()
    meter.close()
    fragile.broken.clear()
    meter.start()
    seconds[0] = 2.0
    assert meter.read().energy_j == {"gpu:0": 200.0, "cpu": 200.0}


def test_if_none_can_start_it_says_so(seconds: list[float]) -> None:
    meter = CompositeMeter(
        FragileMeter("gpu:0", seconds, "start"), FragileMeter("cpu", seconds, "start")
    )
    with pytest.raises(MeterError, match="none of the meters could be started"):
        meter.start()


def test_if_none_can_be_read_any_more_it_says_so(seconds: list[float]) -> None:
    meter = CompositeMeter(FragileMeter("gpu:0", seconds, "read"))
    meter.start()
    for _ in range(2):
        with pytest.raises(MeterError, match="none of the meters can be read any more"):
            meter.read()


def test_two_sources_of_one_name_are_refused_and_nothing_stays_open(seconds: list[float]) -> None:
    members = [FragileMeter("cpu", seconds), FragileMeter("cpu", seconds)]
    with pytest.raises(ConfigurationError, match="two meters have a source named cpu"):
        CompositeMeter(*members).start()
    assert [member.running for member in members] == [False, False]


class PendingMeter(ConstantMeter):
    """A meter whose hardware is still being identified: reading its sources would wait."""

    @property
    def sources(self) -> tuple[Source, ...]:
        raise AssertionError("the sources were asked for")


def test_neither_starting_nor_reading_waits_for_a_members_sources(seconds: list[float]) -> None:
    pending = PendingMeter({"cpu": 20.0}, clock=lambda: seconds[0])
    meter = CompositeMeter(pending, FragileMeter("gpu:0", seconds))
    meter.start()
    seconds[0] = 2.0
    assert meter.read().energy_j == {"cpu": 40.0, "gpu:0": 200.0}


def test_a_member_that_fails_while_it_is_pending_is_unknown_by_its_names(
    seconds: list[float],
) -> None:
    class FailingMeter(PendingMeter):
        def read(self) -> Reading:
            if seconds[0] > 1.0:
                raise MeterError("the set-up failed")
            return super().read()

    meter = CompositeMeter(FailingMeter({"ram": 5.0}), FragileMeter("cpu", seconds))
    meter.start()
    seconds[0] = 2.0
    assert meter.read().energy_j == {"ram": None, "cpu": 200.0}


def test_two_sources_of_one_name_are_refused_while_one_is_pending(seconds: list[float]) -> None:
    pending = PendingMeter({"cpu": 20.0}, clock=lambda: seconds[0])
    with pytest.raises(ConfigurationError, match="two meters have a source named cpu"):
        CompositeMeter(pending, FragileMeter("cpu", seconds)).start()


def test_a_member_that_never_could_be_read_is_unknown_by_its_sources(
    seconds: list[float],
) -> None:
    meter = CompositeMeter(FragileMeter("gpu:0", seconds, "read"), FragileMeter("cpu", seconds))
    meter.start()
    assert meter.read().energy_j == {"gpu:0": None, "cpu": 0.0}


def test_a_failed_member_without_names_is_left_out(seconds: list[float]) -> None:
    class NamelessMeter(PendingMeter):
        def start(self) -> None:
            raise MeterError("no card here")

    meter = CompositeMeter(NamelessMeter(), FragileMeter("cpu", seconds))
    meter.start()
    assert meter.read().energy_j == {"cpu": 0.0}


def test_a_member_that_is_configured_wrongly_is_refused(seconds: list[float]) -> None:
    class WrongMeter(ConstantMeter):
        def start(self) -> None:
            raise ConfigurationError("there is no card 9")

    steady = FragileMeter("cpu", seconds)
    with pytest.raises(ConfigurationError, match="no card 9"):
        CompositeMeter(steady, WrongMeter()).start()
    assert not steady.running


def test_no_member_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got no meter"):
        CompositeMeter()


def test_closing_closes_every_member_even_if_one_cannot(seconds: list[float]) -> None:
    members = [FragileMeter("gpu:0", seconds, "close"), FragileMeter("cpu", seconds)]
    meter = CompositeMeter(*members)
    meter.start()
    meter.close()
    assert not members[1].running


def test_a_node_beside_its_parts_is_refused(seconds: list[float]) -> None:
    wall = ConstantMeter({"node": 400.0}, clock=lambda: seconds[0])
    meter = CompositeMeter(wall, ConstantMeter({"cpu": 50.0}, clock=lambda: seconds[0]))
    with pytest.raises(ConfigurationError, match="counted twice"):
        meter.start()
    alone = CompositeMeter(wall)
    alone.start()
    assert list(alone.read().energy_j) == ["node"]
    alone.close()
