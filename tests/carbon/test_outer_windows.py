"""A window that holds others has the intensity of its own time, and not that of theirs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from greentrain.carbon import CarbonAccount, CsvIntensity
from greentrain.carbon.factors import read_factors
from greentrain.energy import ConstantMeter
from greentrain.energy.windows import Window, WindowRecorder
from greentrain.ledger import Ledger
from greentrain.report.restate import restate

BEGAN = datetime(2026, 3, 28, tzinfo=UTC)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """100 g/kWh in the first hour, and 400 in the two after it."""
    path = tmp_path / "de.csv"
    rows = [
        f"{BEGAN + timedelta(hours=n):%Y-%m-%d %H:%M},{g}" for n, g in enumerate((100, 400, 400))
    ]
    path.write_text("\n".join(["datetime_utc,carbon_intensity", *rows]), encoding="utf-8")
    return path


def recorded(*sinks: object, within: int = 1) -> list[Window]:
    """A fit of an hour, then epochs of two hours in all inside it; at 1 kW."""
    seconds = [0.0]
    meter = ConstantMeter(1000.0, clock=lambda: seconds[0])
    meter.start()
    windows: list[Window] = []
    now = lambda: BEGAN + timedelta(seconds=seconds[0])  # noqa: E731
    recorder = WindowRecorder(meter, windows.append, *sinks, now=now)  # type: ignore[arg-type]
    with recorder.phase("fit"):
        seconds[0] = 3600.0
        for epoch in range(within):
            with recorder.phase("train_epoch", epoch=epoch):
                seconds[0] += 7200.0 / within
    meter.close()
    return windows


def test_the_outer_window_has_the_intensity_of_its_own_hour(file: Path) -> None:
    account = CarbonAccount(intensity=CsvIntensity(file, zone="DE"), pue=1.5)
    epoch, fit = recorded()
    assert account.of(epoch).grams == pytest.approx(2.0 * 1.5 * 400.0)
    # 1 kWh at 100 g/kWh; the mean of the three hours is 300.
    assert account.of(fit).grams == pytest.approx(1.5 * 100.0)
    assert account.of(fit).intensity_g_per_kwh == pytest.approx(100.0)


@pytest.mark.parametrize("within", [1, 3, 2000])
def test_grams_are_those_of_restating(ledger: Ledger, file: Path, within: int) -> None:
    account = CarbonAccount(intensity=CsvIntensity(file, zone="DE"), pue=1.5)
    with ledger.open_run("fit", "digits", environment={"carbon": account.as_dict()}) as run:
        recorded(lambda window: run.record(window, account.of(window)), within=within)
    total = restate([ledger], read_factors(file))["total"]
    assert total["new_g"] == pytest.approx(total["old_g"], rel=1e-9)
    assert total["old_g"] == pytest.approx(1.5 * (100.0 + 2 * 400.0))


def test_a_constant_factor_changes_nothing() -> None:
    account = CarbonAccount(zone="DE")
    for one in recorded():
        assert account.of(one) == account.emissions(one.total_j, one.started, one.ended)


def test_an_open_window_has_its_time_up_to_now() -> None:
    seconds = [0.0]
    meter = ConstantMeter(1000.0, clock=lambda: seconds[0])
    meter.start()
    recorder = WindowRecorder(meter, now=lambda: BEGAN + timedelta(seconds=seconds[0]))
    with recorder.phase("fit"):
        seconds[0] = 10.0
        with recorder.phase("train_epoch"):
            seconds[0] = 30.0
            fit, epoch = recorder.open_windows()
    meter.close()
    at = [BEGAN + timedelta(seconds=moment) for moment in (0, 10, 30)]
    assert fit.spans == ((at[0], at[1]),)
    assert epoch.spans == ((at[1], at[2]),)
