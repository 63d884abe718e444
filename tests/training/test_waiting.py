"""Updates that wait for a cleaner hour, on a grid and a clock made by hand."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from greentrain.carbon import CsvIntensity, StaticIntensity
from greentrain.control import Always, UpdateMode
from greentrain.errors import ConfigurationError, IntensityError
from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.training import CarbonConfig, StartBy
from tests.models import Clock, Tick, constant_meter, experience
from tests.training.streaming import ledger_url, open_stream, rows

EVENING = datetime(2026, 12, 1, 18, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Time:
    """A wall clock and a meter's clock: an hour of waiting is one of the meter at a tenth."""

    def __init__(self, idle: float = 0.1) -> None:
        self.meter, self.now, self.idle, self.slept = Clock(), EVENING, idle, []
        self.on_sleep = lambda: None

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += timedelta(seconds=seconds)
        self.meter.seconds += self.idle * seconds
        self.on_sleep()

    def start_by(self, within: str = "24 h") -> StartBy:
        return StartBy(within=within, clock=lambda: self.now, sleep=self.sleep)


def grid(folder: Path, clean: int = 21, **options) -> CsvIntensity:
    """400 g/kWh, and 100 for three hours of each night; the forecast is right."""
    lines = ["datetime_utc,carbon_intensity,forecast"]
    for n in range(5 * 24):
        hour = EVENING.replace(day=1, hour=0) - 24 * HOUR + n * HOUR
        value = 100 if clean <= hour.hour < clean + 3 else 400
        lines.append(f"{hour.isoformat()},{value},{value}")
    (folder / "grid.csv").write_text("\n".join(lines))
    return CsvIntensity(folder / "grid.csv", zone="DE", **options)


def stream(folder: Path, time: Time, **changes):
    """A step takes three minutes at 100 W, so the second update of 40 steps takes 2 h."""
    options = {
        "budget": "100 kWh",
        "policy": Always(mode=UpdateMode.WARM_START),
        "carbon": CarbonConfig(intensity=grid(folder)),
        "start_by": time.start_by(),
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "callbacks": [Tick(time.meter, 180.0)]},
        "meter": constant_meter(time.meter),
        **changes,
    }
    return open_stream(folder, clock=time.meter, **options)


def waits(folder: Path) -> list[dict]:
    return [json.loads(row["waiting"]) for row in rows(folder, "decision") if row["waiting"]]


def test_an_update_waits_for_the_night_and_says_what_it_saved(tmp_path):
    time = Time()
    with stream(tmp_path, time) as streaming:
        streaming.update(experience("0-first", (0, 1)))
        assert time.slept == []  # no model yet
        result = streaming.update(experience("1-second", (0, 1), seed=1))
        assert time.now == EVENING + 3 * HOUR
    first, second = waits(tmp_path)
    assert "first training" in first["reason"]
    assert second["chosen_utc"] == second["started_utc"] == "2026-12-01T21:00:00+00:00"
    assert (second["waited_s"], second["reason"]) == (10800.0, "the chosen start has come")
    # 100 W and 30 % of it: assumed before the wait. The wait then used a tenth of 100 W.
    assert second["idle_w"] == pytest.approx(30.0)
    assert second["idle_j"] == pytest.approx(10.0 * 10800)
    # Of 24 h, 3 h lose an eighth of what the update is worth: its grams at once.
    assert second["lost_g"] == pytest.approx(second["now_g"] / 8)
    work_kwh = second["now_g"] / 400
    idle_g = 30.0 * 3 / 1000 * 400
    assert second["predicted_saving_g"] == pytest.approx(300 * work_kwh - idle_g)
    assert second["forecast"]["as_of_utc"] == EVENING.isoformat()
    assert len(second["forecast"]["sha256"]) == 64
    assert second["alternatives"][0]["start_utc"] == EVENING.isoformat()
    assert len(second["alternatives"]) == 25
    # Realised: the update's own joules at 400 less at 100, less the idle ones at 400 g/kWh.
    outcome = rows(tmp_path, "outcome")[1]
    update_j = outcome["energy_j"] - second["idle_j"]
    probe_j = sum(w["energy_j"] for w in rows(tmp_path, "window") if w["phase"] == "probe")
    saved_g = (300 * (update_j - probe_j) - 400 * 10.0 * 10800) / 3.6e6
    assert outcome["shifted_g"] == pytest.approx(saved_g)
    assert result.energy_j == pytest.approx(outcome["energy_j"])
    phases = {row["phase"]: row["energy_j"] for row in rows(tmp_path, "window")}
    assert phases["waiting"] == pytest.approx(second["idle_j"])
    ledger = Ledger(ledger_url(tmp_path), create=False)
    report = build([ledger])
    shifted = report["avoided"]["shifted"]
    uses = {one["use"]: one["energy_j"] for one in report["summary"]["by_use"]}
    assert uses["other"] == pytest.approx(second["idle_j"])
    assert report["experiences"][1]["waiting"]["reason"] == "the chosen start has come"
    ledger.close()
    assert shifted["shifted_g"] == pytest.approx(saved_g)
    assert shifted["expected_g"] == pytest.approx(second["predicted_saving_g"])
    assert (shifted["waits"], shifted["unknown"], shifted["waited_s"]) == (1, 0, 10800.0)


class Failing:
    """A provider whose forecast fails from some time on."""

    def __init__(self, inner, fails_from: datetime) -> None:
        self.inner, self.fails_from = inner, fails_from
        self.provenance, self.history = inner.provenance, inner.history

    def forecast(self, as_of, horizon):
        if as_of >= self.fails_from:
            raise IntensityError("the service is down")
        return self.inner.forecast(as_of, horizon)


def second_wait(tmp_path, time: Time, **changes) -> dict:
    with stream(tmp_path, time, **changes) as streaming:
        streaming.update(experience("0-first", (0, 1)))
        streaming.update(experience("1-second", (0, 1), seed=1))
    return waits(tmp_path)[1]


def test_a_provider_that_fails_starts_at_once_and_one_that_fails_later_does_not(tmp_path, caplog):
    time = Time()
    (tmp_path / "a").mkdir()
    carbon = CarbonConfig(intensity=Failing(grid(tmp_path), EVENING))
    found = second_wait(tmp_path / "a", time, carbon=carbon)
    assert (time.slept, found["waited_s"]) == ([], 0.0)
    assert "there is no forecast: the service is down" in found["reason"]
    assert "1-second starts at once: there is no forecast" in caplog.text
    (tmp_path / "b").mkdir()
    carbon = CarbonConfig(intensity=Failing(grid(tmp_path), EVENING + HOUR))
    assert second_wait(tmp_path / "b", time, carbon=carbon)["waited_s"] == 10800.0  # the last one


def test_the_latest_start_holds_and_waiting_ends_when_its_joules_are_used(tmp_path):
    time = Time()
    (tmp_path / "a").mkdir()
    found = second_wait(
        tmp_path / "a",
        time,
        start_by=time.start_by("2 h"),
        carbon=CarbonConfig(intensity=grid(tmp_path, clean=22)),
    )
    assert found["waited_s"] == 0.0  # the clean hours come too late
    time = Time(idle=0.9)  # 90 W while 30 W are expected, of which 1.5 times are reserved
    (tmp_path / "b").mkdir()
    found = second_wait(tmp_path / "b", time, carbon=CarbonConfig(intensity=grid(tmp_path)))
    assert found["reason"] == "the joules reserved for waiting are used"
    expected_j = 30.0 * 10800
    assert found["idle_j"] <= 1.5 * expected_j + 30.0 * 900 + 90.0 * 900
    assert found["waited_s"] < 10800


def test_a_killed_wait_keeps_its_arrival_and_holds_only_its_own_joules(tmp_path):
    class Killed(BaseException):
        pass

    time = Time()
    state = {"state_dir": tmp_path / "state"}
    streaming = stream(tmp_path, time, **state)
    streaming.update(experience("0-first", (0, 1)))

    def kill():
        if time.now >= EVENING + HOUR:
            raise Killed

    time.on_sleep = kill
    with pytest.raises(Killed), streaming:
        streaming.update(experience("1-second", (0, 1), seed=1))
    assert len(rows(tmp_path, "decision")) == 1  # the update was not reserved yet
    purposes = [row["purpose"] for row in rows(tmp_path, "reservation")]
    assert purposes[-1] == "waiting of 1-second"
    time.on_sleep = lambda: None
    time.now = EVENING + 30 * HOUR  # the latest start has passed
    with stream(tmp_path, time, **state) as again:
        again.update(experience("1-second", (0, 1), seed=1))
    found = waits(tmp_path)[-1]
    assert found["arrived_utc"] == EVENING.isoformat()
    assert found["reason"] == "the latest start, 2026-12-02 18:00 UTC, has passed"
    assert found["waited_s"] == 30 * 3600


def test_a_wait_of_24_hours_has_24_hours_when_the_clocks_change():
    summer = datetime(2026, 10, 25, 0, tzinfo=ZoneInfo("Europe/Berlin"))
    now = StartBy(clock=lambda: summer).now()
    assert (now + StartBy().longest).isoformat() == "2026-10-25T22:00:00+00:00"
    with pytest.raises(ConfigurationError, match="it must return a datetime with a time zone"):
        StartBy(clock=lambda: summer.replace(tzinfo=None)).now()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"within": 24}, r"StartBy\(within=24\) is no text; write a number and a unit"),
        ({"pause_cost": None}, r"StartBy\(pause_cost=None\) is no text"),
        ({"slices": "no"}, r"StartBy\(slices='no'\) is not allowed; give True or False"),
    ],
)
def test_a_limit_of_another_type_is_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        StartBy(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "start_by is '24 h' and the stream has no carbon intensity"),
        ({"carbon": {"zone": "DE"}}, "the zone 'DE' has one value for the whole year"),
        ({"carbon": {"intensity": StaticIntensity("FR")}}, "the zone 'FR' has one value"),
        ({"start_by": "a day"}, "start_by is 'a day': 'a day' is no duration above 0"),
        ({"start_by": "a day"}, ", such as '8 h', or '8 h in slices'"),
        ({"start_by": "30 d"}, "forecasts reach a few days, so give at most 7 d"),
        ({"start_by": 24}, "start_by is 24; it must be a duration such as '24 h'"),
        ({"shadow": True}, "in shadow mode your own job trains, so no update can wait"),
    ],
)
def test_bad_arguments_are_refused_at_construction(tmp_path, options, message):
    options = {"start_by": "24 h", **options}
    options["carbon"] = CarbonConfig(**options.get("carbon", {}))
    with pytest.raises(ConfigurationError) as error:
        open_stream(tmp_path, **options)
    assert message in str(error.value)
