"""A fit waits for clean hours, in its process or without one, and meets its deadline."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.utils.data import DataLoader

from greentrain.callbacks import (
    BudgetGuard,
    CarbonAwarePause,
    EnergyMonitor,
    ExactResume,
    TrainingPaused,
    resumable_loader,
)
from greentrain.callbacks.intensity_forecast import IntensityForecast
from greentrain.carbon import Interval, Provenance, StaticIntensity
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.report import build
from tests.callbacks.forks import FORKS, free_port
from tests.models import Classifier, Clock, Tick, blobs, trainer

__all__ = ["free_port"]

NOON = datetime(2026, 12, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
pytestmark = [
    pytest.mark.filterwarnings("ignore:CarbonAwarePause"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory"),
]


class Hours:
    """Intensities by hour from noon on; what is not listed is 400 g/kWh.

    Args:
        values: The intensity by hour.
        error: Raised by ``forecast``, if given.
        known: Whether there is any value.
    """

    provenance = Provenance(source="test", zone="DE", data_year=None)

    def __init__(self, values: dict[int, float], error: Any = None, known: bool = True) -> None:
        self.values, self.error, self.known = values, error, known

    def history(self, start: datetime, end: datetime) -> list[Interval]:
        first = int((start - NOON) / HOUR) - 1
        count = int((end - start) / HOUR) + 2 if self.known else 0
        return [
            Interval(
                start=NOON + hour * HOUR,
                end=NOON + (hour + 1) * HOUR,
                g_per_kwh=self.values.get(hour, 400.0),
            )
            for hour in range(first, first + count)
        ]

    def forecast(self, as_of: datetime, horizon: timedelta) -> list[Interval]:
        if self.error is not None:
            raise self.error
        return self.history(as_of, as_of + horizon)


class Machine(Clock):
    """Seconds that pass, and a meter of 100 W while training and 10 W while waiting.

    Args:
        idle_w: Another power while waiting.
    """

    def __init__(self, idle_w: float = 10.0) -> None:
        super().__init__()
        self.share = 1.0 - idle_w / 100.0
        self.idle_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        self.idle_s += seconds

    @property
    def meter(self) -> ConstantMeter:
        return ConstantMeter(100.0, clock=lambda: self.seconds - self.share * self.idle_s)


class Phases(Tick):
    """Let time pass: 36 minutes in each of the 5 batches of an epoch, so 3 hours an epoch."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, step_s=2160.0)


def pausing(machine: Machine, values: dict[int, float], **options: Any) -> CarbonAwarePause:
    provider = options.pop("provider", Hours(values))
    return CarbonAwarePause(
        provider,
        **{
            "deadline": NOON + 48 * HOUR,
            "clock": lambda: NOON + timedelta(seconds=machine.seconds),
            "sleep": machine.sleep,
            "check_s": 600.0,
        }
        | options,
    )


def loader() -> DataLoader:
    return resumable_loader(blobs(range(4), 10), 8, seed=1)  # 5 batches


def fit(*callbacks: Any, load: str | None = None, **options: Any) -> Classifier:
    torch.manual_seed(1)
    model = Classifier()
    trainer(*callbacks, **options).fit(model, loader(), ckpt_path=load)
    return model


CLEAN_NIGHT = dict.fromkeys(range(12, 19), 100.0)
"""From midnight on, for seven hours: the two epochs take six."""


def test_it_waits_for_the_night(tmp_path):
    clock = Machine()
    monitor = EnergyMonitor(clock.meter, ledger="sqlite:///run.db", summary=False)
    pause = pausing(clock, CLEAN_NIGHT, duration_s=6 * 3600.0)
    fit(monitor, Phases(clock), pause)
    assert clock.seconds == pytest.approx(18 * 3600.0, abs=1.0)  # 12 h to wait, 6 h to train
    assert pause.usage.pauses == 0  # nothing was saved, because nothing was done
    assert pause.usage.idle_w == pytest.approx(10.0)
    assert pause.usage.energy_j["waiting"] == pytest.approx(12 * 36000.0, rel=1e-3)
    waiting = [window for window in monitor.windows if window.phase == "waiting"]
    assert len(waiting) == 1
    assert monitor.total.total_j == pytest.approx(12 * 36000.0 + 6 * 360000.0, rel=1e-3)
    ledger = Ledger(str(Path("run.db")), create=False)
    assert "waiting" in {row["phase"] for row in ledger.rows("window")}
    assert verify(ledger).ok
    paused, resumed, shifted = ledger.rows("event")
    assert [paused["topic"], resumed["topic"], shifted["topic"]] == ["pause", "resume", "shifted"]
    assert json.loads(shifted["content"])["shifted_g"] is None  # the monitor has no intensity
    figures = json.loads(paused["content"])
    # Without a measurement: an hour of training counts 1, and 0.3 while waiting.
    assert (figures["g_per_kwh"], figures["how"]) == (400.0, "wait")
    assert figures["until_utc"] == "2026-12-02T00:00:00+00:00"
    share = 1 - (6 * 100 + 0.3 * 12 * 400) / (6 * 400)
    assert figures["predicted_saving_g"] == pytest.approx(share * figures["now_g"], rel=1e-6)
    assert json.loads(resumed["content"])["energy_j"]["waiting"] == pytest.approx(432e3, rel=1e-3)
    ledger.close()


def test_the_provider_of_the_monitor_is_used():
    clock = Machine()
    monitor = EnergyMonitor(clock.meter, intensity=Hours(CLEAN_NIGHT), ledger=False, summary=False)
    pause = pausing(clock, {}, provider=None, duration_s=6 * 3600.0)
    fit(pause, monitor, Phases(clock))
    assert clock.seconds == pytest.approx(18 * 3600.0, abs=1.0)
    for given in (EnergyMonitor(ledger=False), EnergyMonitor(zone="DE", ledger=False)):
        with pytest.raises(ConfigurationError, match=r"has no intensity|same at every hour"):
            fit(given, pausing(clock, {}, provider=None))


def test_a_cap_counts_a_wait_and_not_as_a_step():
    """15 steps of 216 kJ, and nine hours at 10 W: 0.99 of 1.3 kWh."""
    clock = Machine()
    guard = BudgetGuard("1.3 kWh", meter=clock.meter)
    pause = pausing(clock, CLEAN_NIGHT, check_s=1e9)
    fit(guard, Phases(clock), pause, max_epochs=3)
    assert pause.usage.seconds["waiting"] > 8 * 3600.0
    assert guard.joules_per_step == pytest.approx(216e3, rel=1e-3)
    assert (guard.steps, guard.stopped) == (15, False)
    assert guard.used_j == pytest.approx(15 * 216e3 + 9 * 36e3, rel=1e-3)


class Bounded(Hours):
    """The same with bounds of 10 % below and above each value."""

    def history(self, start: datetime, end: datetime) -> list[Interval]:
        return [
            Interval(
                start=one.start,
                end=one.end,
                g_per_kwh=one.g_per_kwh,
                low_g_per_kwh=0.9 * one.g_per_kwh,
                high_g_per_kwh=1.1 * one.g_per_kwh,
            )
            for one in super().history(start, end)
        ]


@pytest.mark.parametrize("provider", [Bounded, Hours, None])
def test_the_report_has_what_pauses_shifted(tmp_path, provider):
    """100 W: three hours at 400 g/kWh, nine of waiting at 10 W, and six at 100 g/kWh."""
    clock = Machine()
    options = {} if provider is None else {"intensity": provider(CLEAN_NIGHT)}
    monitor = EnergyMonitor(clock.meter, ledger="sqlite:///run.db", summary=False, **options)
    pause = pausing(clock, CLEAN_NIGHT, check_s=1e9)
    fit(monitor, Phases(clock), pause, max_epochs=3)
    ledger = Ledger(str(Path("run.db")), create=False)
    found = build([ledger])["avoided"]["shifted"]
    ledger.close()
    pauses = found["pauses"]
    assert (found["shifted_g"], pauses["fits"], pauses["pauses"]) == (None, 1, 1)
    assert pauses["waited_s"] == pytest.approx(9 * 3600.0, abs=2.0)
    if provider is None:
        assert (pauses["shifted_g"], pauses["unknown"]) == (None, 1)
        assert "1 of them shifted is unknown" in pauses["sentence"]
        return
    # At once: nine hours at 400. Own: three at 400 and six at 100. Waiting: nine hours of 10 W.
    at_once_g, own_g, idle_g = 0.9 * 400, 0.3 * 400 + 0.6 * 100, 0.09 * 400
    assert pauses["shifted_g"] == pytest.approx(at_once_g - own_g - idle_g, rel=1e-3)
    if provider is Bounded:
        low_g = 0.9 * at_once_g - 1.1 * (own_g + idle_g)
        assert pauses["low_g"] == pytest.approx(low_g, rel=1e-3)
        assert pauses["high_g"] == pytest.approx(1.1 * at_once_g - 0.9 * (own_g + idle_g), rel=1e-3)
    else:
        assert pauses["low_g"] is pauses["high_g"] is None
        assert "the intensities have no bounds" in pauses["sentence"]


def test_it_pauses_after_an_epoch_and_ends_like_one_without_pauses():
    clock = Machine()
    pause = pausing(clock, CLEAN_NIGHT, check_s=1e9)
    model = fit(ExactResume(), Phases(clock), pause, max_epochs=3)
    assert pause.usage.pauses == 1
    assert pause.usage.seconds["waiting"] > 8 * 3600.0
    assert pause.ckpt_path is None  # deleted: the fit is finished
    expected = fit(Tick(Clock()), max_epochs=3)
    assert torch.equal(model.layer.weight, expected.layer.weight)


def test_an_idle_process_may_cost_more_than_it_saves():
    """At 90 W, ten minutes of waiting show that the night saves less than is used until then."""
    clock = Machine(idle_w=90.0)
    pause = pausing(clock, CLEAN_NIGHT, meter=clock.meter)
    fit(Phases(clock), pause, max_epochs=4)
    assert pause.usage.pauses == 1
    assert pause.usage.seconds["waiting"] == pytest.approx(600.0, abs=2.0)
    assert pause.usage.idle_w == pytest.approx(90.0, rel=0.01)


@pytest.mark.parametrize("check_s", [600.0, 1e9], ids=["at a step", "after an epoch"])
def test_a_process_ends_and_another_continues(tmp_path, capsys, monkeypatch, check_s):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    clock, options = Machine(), {"max_epochs": 4}
    expected = fit(ExactResume(), Tick(Clock()), **options)
    seen: list[TrainingPaused] = []
    pauses: list[CarbonAwarePause] = []
    urls: list[str] = []
    for number in range(20):
        pause = pausing(clock, CLEAN_NIGHT, pause="requeue", check_s=check_s, min_run_s=0.0)
        urls.append(f"sqlite:///fit{number}.db")
        grid = Hours(CLEAN_NIGHT)
        monitor = EnergyMonitor(clock.meter, summary=False, ledger=urls[-1], intensity=grid)
        guard = BudgetGuard("100 kWh", ledger="sqlite:///run.db")
        pauses.append(pause)
        callbacks = [ExactResume(), monitor, guard, Phases(clock), pause]
        try:
            model = fit(*callbacks, load=pause.ckpt_path, **options)
            break
        except TrainingPaused as paused:
            seen.append(paused)
            assert paused.code == 75
            assert pause.ckpt_path == "paused.ckpt"
            clock.seconds = max(clock.seconds, (paused.until - NOON).total_seconds())
    assert seen
    # 9 hours are left after an epoch: a start at ten has all of the clean ones.
    assert NOON + 10 * HOUR - HOUR / 2 <= seen[0].until <= NOON + 12 * HOUR
    assert pauses[-1].usage.pauses == len(seen)
    assert pauses[-1].ckpt_path is None
    assert torch.equal(model.layer.weight, expected.layer.weight)
    printed = capsys.readouterr().out
    assert f"Continue at {seen[0].until:%Y-%m-%d %H:%M} UTC with:" in printed
    assert sys.executable in printed
    ledger = Ledger("run.db", create=False)
    statuses = [row["status"] for row in ledger.rows("closing")]
    assert statuses == ["stopped"] * len(seen) + ["completed"]
    ledger.close()
    ended = ["resume", "shifted"]
    for url, topics, windows in ((urls[0], ["pause"], 0), (urls[-1], ended, 1)):
        ledger = Ledger(url, create=False)
        assert [row["topic"] for row in ledger.rows("event")] == topics
        assert len(ledger.rows("window", phase="resuming")) == windows
        assert verify(ledger).ok
        ledger.close()


def test_slurm_puts_the_job_back_with_a_begin_time(tmp_path, monkeypatch):
    written = tmp_path / "scontrol.txt"
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {written}\n')
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    clock = Machine()
    pause = pausing(clock, CLEAN_NIGHT, pause="requeue", duration_s=6 * 3600.0)
    with pytest.raises(TrainingPaused):
        fit(ExactResume(), Phases(clock), pause)
    begins = (NOON + 12 * HOUR).astimezone().strftime("%Y-%m-%dT%H:%M:%S")
    assert written.read_text().splitlines() == [
        "requeue 123",
        f"update JobId=123 StartTime={begins}",
    ]
    assert pause.ckpt_path is not None


def test_a_queue_that_fails_is_a_warning_and_a_command(tmp_path, monkeypatch, caplog, capsys):
    program = tmp_path / "scontrol"
    program.write_text("#!/bin/sh\necho no permission >&2; exit 1\n")
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    clock = Machine()
    pause = pausing(clock, CLEAN_NIGHT, pause="requeue", duration_s=6 * 3600.0)
    with pytest.raises(TrainingPaused):
        fit(ExactResume(), Phases(clock), pause)
    assert "SLURM did not put job 123 back into its queue: no permission" in caplog.text
    assert "Continue at" in capsys.readouterr().out


@pytest.mark.parametrize(
    "provider",
    [
        Hours({}),
        Hours({hour: 400.0 - 10.0 * hour for hour in range(40)}),  # always cleaner later
        Hours({hour: 10.0 * hour for hour in range(40)}),
        Hours({}, error=OSError("no network")),
        Hours({}, error=ValueError("NaN")),
        Hours({}, known=False),
    ],
    ids=["constant", "falling", "rising", "network", "invalid", "missing"],
)
@pytest.mark.parametrize("slack_h", [0.0, 1.0, 9.0])
@pytest.mark.parametrize("pause", ["wait", "requeue"])
def test_no_provider_misses_the_deadline(provider, slack_h, pause):
    clock = Machine()
    deadline = NOON + (6.0 + slack_h) * HOUR
    options = {"duration_s": 6 * 3600.0, "deadline": deadline, "margin": 0.0, "pause": pause}
    for _ in range(20):
        made = pausing(clock, {}, provider=provider, **options)
        try:
            fit(ExactResume(), Phases(clock), made, load=made.ckpt_path)
            break
        except TrainingPaused as paused:
            clock.seconds = max(clock.seconds, (paused.until - NOON).total_seconds())
    assert clock.seconds <= (6.0 + slack_h) * 3600.0 + 2.0


@pytest.mark.parametrize(
    ("options", "pauses"),
    [({"max_pauses": 0}, 0), ({"max_pauses": 2}, 2), ({}, 5), ({"min_run_s": 4 * 3600.0}, 1)],
)
def test_pauses_are_limited(options, pauses):
    """In each odd hour, only this hour is expected to be dirty. An epoch takes an hour."""

    class Odd(Hours):
        def forecast(self, as_of: datetime, horizon: timedelta) -> list[Interval]:
            hour = int((as_of - NOON) / HOUR)
            self.values = {each: 50.0 for each in range(100)} | {hour: 50.0 + 450.0 * (hour % 2)}
            return super().forecast(as_of, horizon)

    clock = Machine()
    options = {"min_run_s": 0.0, "provider": Odd({}), "check_s": 3000.0, **options}
    pause = pausing(clock, {}, **options)
    fit(Tick(clock, step_s=720.1), pause, max_epochs=6)
    assert pause.usage.pauses == pauses


def test_a_provider_that_fails_is_reported_once():
    clock = Machine()
    pause = pausing(clock, {}, provider=Hours({}, error=OSError("no network"), known=False))
    with pytest.warns(UserWarning, match="Hours gave no forecast: no network") as warned:
        fit(Phases(clock), pause, max_epochs=3)
    assert len([each for each in warned if "no forecast" in str(each.message)]) == 1


class Shapeless(Hours):
    """Return intervals of another form, in the forecast and perhaps in the history."""

    def __init__(self, change: Any, history: bool) -> None:
        super().__init__(CLEAN_NIGHT)
        self.change, self.too = change, history

    def forecast(self, as_of: datetime, horizon: timedelta) -> Any:
        return [self.change(one) for one in super().history(as_of, as_of + horizon)]

    def history(self, start: datetime, end: datetime) -> Any:
        found = super().history(start, end)
        return [self.change(one) for one in found] if self.too else found


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        (
            lambda one: SimpleNamespace(start=datetime(2026, 12, 1), end=one.end, g_per_kwh=1.0),
            "the start of an interval has no time zone",
        ),
        (lambda one: 5, "an interval has no time 'start'"),
        (lambda one: SimpleNamespace(start=one.start, end=one.end), "an interval has no g_per_kwh"),
    ],
    ids=["naive", "number", "no value"],
)
@pytest.mark.parametrize("history", [True, False])
def test_intervals_of_another_form_are_no_forecast(change, detail, history):
    forecast = IntensityForecast(Shapeless(change, history))
    with pytest.warns(UserWarning, match=f"Shapeless gave no forecast: {detail}") as warned:
        found = [forecast.at(NOON, NOON + 48 * HOUR) for _ in range(2)]
    assert len(warned) == 1
    assert [bool(one) for one in found] == [not history] * 2  # or else the last day again


def test_a_provider_without_a_forecast_says_so_once(caplog):
    caplog.set_level("INFO")
    forecast = IntensityForecast(Hours(CLEAN_NIGHT))
    forecast.provider.forecast = lambda *_: []
    found = [forecast.at(NOON, NOON + 3650 * 24 * HOUR) for _ in range(2)]
    assert caplog.text.count("has no forecast, so its last day is expected again") == 1
    assert found[0][-1].end <= NOON + timedelta(days=7, hours=1)


def test_a_deadline_that_is_too_near_is_said_once():
    clock = Machine()
    pause = pausing(clock, CLEAN_NIGHT, duration_s=6 * 3600.0, deadline=NOON + 2 * HOUR)
    with pytest.warns(UserWarning, match="about 6.0 h and the deadline is in 2.0 h") as warned:
        fit(Phases(clock), pause)
    assert len([each for each in warned if "the deadline is in" in str(each.message)]) == 1
    assert pause.usage.pauses == 0


def test_it_continues_a_day_later_with_the_same_deadline():
    clock = Machine()
    options = {"pause": "requeue", "deadline": "06:00", "duration_s": 6 * 3600.0}
    first = pausing(clock, CLEAN_NIGHT, **options)
    with pytest.raises(TrainingPaused):
        fit(ExactResume(), Phases(clock), first)
    assert first.deadline == NOON + 18 * HOUR
    clock.seconds = 20 * 3600.0
    second = pausing(clock, {}, **options)
    fit(ExactResume(), Phases(clock), second, load=second.ckpt_path)
    assert second.deadline == NOON + 18 * HOUR


@FORKS
def test_two_processes_wait_together(tmp_path):
    clock = Machine()
    pause = pausing(clock, CLEAN_NIGHT, duration_s=6 * 3600.0)
    monitor = EnergyMonitor(clock.meter, ledger=False, summary=False)
    options = {"strategy": "ddp_fork", "devices": 2, "default_root_dir": tmp_path}
    trainer(monitor, Phases(clock), pause, **options).fit(Classifier(), loader())
    waiting = [window for window in monitor.windows if window.phase == "waiting"]
    assert [window.reading.duration_s for window in waiting] == [
        pytest.approx(4320.0)
    ]  # of the meter: idle at a tenth


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"provider": "DE"}, "DE is a zone: use --zone DE, or zone='DE'"),
        ({"provider": 400.0}, r"intensity=400.0\) is no provider; give one of greentrain.carbon"),
        ({"provider": StaticIntensity("DE")}, r"StaticIntensity\('DE'\), which is the same at ev"),
        ({"pause": "stop"}, r"pause='stop'\) is not allowed; choose one of \('wait', 'requeue'"),
        ({"duration_s": 0}, r"duration_s=0\) is not allowed; give seconds, more than 0"),
        ({"min_saving": 1.5}, r"min_saving=1.5\) is not allowed; give a share from 0 to 1"),
        ({"min_saving": "5 %"}, r"min_saving='5 %'\) is not allowed"),
        ({"min_run_s": -1}, r"min_run_s=-1\) is not allowed; give seconds, 0 or more"),
        ({"margin": float("nan")}, r"margin=nan\) is not allowed; give a share, 0 or more"),
        ({"check_s": 0}, r"check_s=0\) is not allowed; give seconds, more than 0"),
        ({"max_pauses": -1}, r"max_pauses=-1\) is not allowed; give a whole number, 0 or more"),
        ({"meter": 100}, r"CarbonAwarePause\(meter=...\)"),
        ({"deadline": NOON - HOUR}, r"deadline\)='2026-12-01 11:00:00.00:00' is in the past"),
        ({"deadline": "tomorrow"}, "='tomorrow' is no time; give a time of day such as '06:00'"),
        ({"deadline": NOON.replace(tzinfo=None)}, "has no time zone; add it"),
        ({"deadline": "9999-12-31T23:59-12:00"}, "is outside of the years 1 to 9999 in UTC"),
        ({"checkpoint": 5}, r"checkpoint=5\) is no path; give one, as 'paused.ckpt'"),
        ({"clock": lambda: datetime(2026, 12, 1)}, "it must return a datetime with a time zone"),
    ],
)
def test_bad_arguments_get_one_sentence(options, message):
    with pytest.raises(ConfigurationError, match=message):
        pausing(Machine(), {}, **options)


@pytest.mark.parametrize(
    ("callbacks", "options", "error", "message"),
    [
        ([], {"pause": "requeue"}, MisconfigurationException, "continues in another process; add"),
        ([], {"max_epochs": -1}, ConfigurationError, "needs the end of the fit to meet its deadl"),
    ],
)
def test_a_wrong_trainer_is_refused(callbacks, options, error, message):
    own = {name: value for name, value in options.items() if name == "pause"}
    with pytest.raises(error, match=message):
        fit(
            *callbacks,
            pausing(Machine(), {}, **own),
            **{k: options[k] for k in options if k not in own},
        )


def test_a_trial_run_never_waits():
    clock = Machine()
    pause = pausing(clock, CLEAN_NIGHT, duration_s=6 * 3600.0)
    fit(Phases(clock), pause, fast_dev_run=True)
    assert clock.seconds < 3600.0
