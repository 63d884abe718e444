"""The preparation of data before a fit is measured, and counts against a cap."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pytorch_lightning import LightningDataModule

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.energy import ConstantMeter, WindowRecorder
from greentrain.ledger import Ledger, verify
from tests.callbacks.forks import FORKS, SaveView, fit, free_port
from tests.callbacks.test_energy_monitor import EPOCH_J
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

__all__ = ["free_port"]  # a fixture
PREPARE_J, SETUP_J = 300.0, 200.0  # 3 s and 2 s at 100 W


class Slow(LightningDataModule):
    """Data whose preparation takes 3 s, and whose set-up takes 2 s."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def prepare_data(self):
        self.clock.seconds += 3.0

    def setup(self, stage):
        self.clock.seconds += 2.0

    def train_dataloader(self):
        return loader()

    def test_dataloader(self):
        return loader()


class Prepares(Classifier):
    """A model that prepares its data itself."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def prepare_data(self):
        self.clock.seconds += 3.0

    def train_dataloader(self):
        return loader()

    def test_step(self, batch, batch_idx):
        return None


def test_the_preparation_of_data_is_a_window_of_its_own(tmp_path):
    clock = Clock()
    clock.seconds = 50.0  # what came before the fit is not its own
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    meter = constant_meter(clock)
    meter.start()
    monitor = EnergyMonitor(meter, ledger=url, zone="FR")
    clock.seconds += 7.0
    fitted = trainer(monitor, Tick(clock))
    fitted.fit(Classifier(), datamodule=Slow(clock))
    first, *others = monitor.windows
    assert first.phase == "setup"
    assert first.reading.total_j == pytest.approx(PREPARE_J + SETUP_J)
    assert first.reading.duration_s == pytest.approx(5.0)
    assert [window.phase for window in others] == ["train_epoch", "train_epoch", "fit"]
    assert monitor.total.total_j == pytest.approx(PREPARE_J + SETUP_J + 2 * EPOCH_J)
    # The prediction continues with epochs, not with more set-ups.
    predicted_j = float(fitted.callback_metrics["energy/predicted_total_wh"]) * 3600
    assert predicted_j == pytest.approx(PREPARE_J + SETUP_J + 2 * EPOCH_J)
    ledger = Ledger(url, create=False)
    assert next(iter(ledger.rows("window")))["phase"] == "setup"
    assert sum(row["energy_j"] for row in ledger.rows("window")) == monitor.total.total_j
    ledger.close()


def test_a_model_that_prepares_its_data_is_measured_too():
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=False)
    fitted = trainer(monitor, Tick(clock))
    fitted.fit(Prepares(clock))
    assert monitor.windows[0].phase == "setup"
    assert monitor.windows[0].reading.total_j == pytest.approx(PREPARE_J)
    fitted.test(fitted.lightning_module, datamodule=Slow(clock), verbose=False)
    assert monitor.totals["test"].total_j == pytest.approx(2 * PREPARE_J + SETUP_J)


@pytest.mark.parametrize("alone", [True, False])
def test_the_cap_includes_the_preparation(alone):
    clock = Clock()
    guard = BudgetGuard("520 J", meter=constant_meter(clock))
    others = [] if alone else [EnergyMonitor(ledger=False)]
    fitted = trainer(*others, guard, Tick(clock))
    fitted.fit(Classifier(), datamodule=Slow(clock))
    assert guard.stopped
    assert 510.0 < guard.used_j <= 520.0
    assert fitted.global_step == pytest.approx(guard.used_j - PREPARE_J - SETUP_J)


class LateLayers(Classifier):
    """A model whose own ``setup`` takes 1 s, after that of the callbacks."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def setup(self, stage):
        self.clock.seconds += 1.0


@pytest.mark.parametrize("place", [None, 0, 1])  # of the monitor; None without one
def test_a_budget_of_several_fits_pays_for_the_preparation(tmp_path, place):
    clock = Clock()
    url = f"sqlite:///{tmp_path / 'kfold.db'}"
    guard = BudgetGuard(
        "1400 J", ledger=url, budget="kfold", num_fits=2, meter=constant_meter(clock)
    )
    callbacks = [guard, Tick(clock)]
    if place is not None:
        callbacks.insert(place, EnergyMonitor(ledger=url, summary=False))
    for expected_j in (700.0, 700.0):  # half of 1400 J, and all of the rest
        trainer(*callbacks, max_epochs=50).fit(LateLayers(clock), datamodule=Slow(clock))
        assert guard.stopped
        assert expected_j - 10.0 < guard.used_j <= expected_j + 10.0
    assert clock.seconds * 100.0 <= 1400.0
    ledger = Ledger(url, create=False)
    windows, settlements = ledger.rows("window"), ledger.rows("settlement")
    assert {row["reservation_id"] for row in windows} == {
        row["reservation_id"] for row in settlements
    }
    assert [row["phase"] for row in windows].count("setup") == 2
    assert sum(row["energy_j"] for row in windows) == pytest.approx(clock.seconds * 100.0)
    assert settlements[-1]["sum_spent"] == pytest.approx(clock.seconds * 100.0)
    assert verify(ledger).failures == ()
    ledger.close()


def test_a_preparation_beyond_its_part_is_an_overrun_of_the_budget(tmp_path):
    clock = Clock()
    url = f"sqlite:///{tmp_path / 'kfold.db'}"
    meter = constant_meter(clock)
    guard = BudgetGuard("900 J", ledger=url, budget="kfold", num_fits=3, meter=meter)
    with pytest.warns(UserWarning, match="200 J more than its part, 300 J, of the budget 'kfold'"):
        trainer(guard, Tick(clock)).fit(Classifier(), datamodule=Slow(clock))
    ledger = Ledger(url, create=False)
    (settled,) = ledger.rows("settlement")
    assert (settled["actual_j"], settled["overrun_j"]) == pytest.approx((500.0, 200.0))
    assert verify(ledger).failures == ()
    ledger.close()


def test_a_refused_fit_records_its_preparation_without_a_reservation(tmp_path):
    clock = Clock()
    url = f"sqlite:///{tmp_path / 'kfold.db'}"
    guard = BudgetGuard("400 J", ledger=url, budget="kfold", meter=constant_meter(clock))
    with pytest.warns(UserWarning, match="more than its part"):
        trainer(guard, Tick(clock)).fit(Classifier(), datamodule=Slow(clock))
    trainer(guard, Tick(clock)).fit(Classifier(), datamodule=Slow(clock))
    assert guard.stopped and guard.steps == 0
    ledger = Ledger(url, create=False)
    paid = [
        (row["phase"], row["energy_j"], row["reservation_id"] is not None)
        for row in ledger.rows("window")
    ]
    ledger.close()
    assert paid[0] == ("setup", pytest.approx(500.0), True)
    assert paid[2] == ("setup", pytest.approx(500.0), False)


def test_a_preparation_that_uses_the_cap_leaves_no_step():
    clock = Clock()
    guard = BudgetGuard("450 J", meter=constant_meter(clock))
    fitted = trainer(guard, Tick(clock))
    with pytest.warns(UserWarning, match="more than its cap"):
        fitted.fit(Classifier(), datamodule=Slow(clock))
    assert guard.stopped
    assert guard.used_j == pytest.approx(PREPARE_J + SETUP_J)
    assert fitted.global_step == 0


def test_a_guard_measures_no_set_up_of_other_stages():
    clock = Clock()
    guard = BudgetGuard("520 J", meter=Closing(clock=clock))
    trainer(guard, Tick(clock)).test(Prepares(clock), datamodule=Slow(clock), verbose=False)
    assert guard.used_j == 0.0
    assert not guard.meter.running


class Late(ConstantMeter):
    """A meter that is being set up until its sources are asked for."""

    ready = False

    @property
    def sources(self):
        self.ready = True
        return super().sources

    def read(self):
        reading = super().read()
        if self.ready:
            return reading
        return replace(reading, energy_j={"constant": 0.0}, late=frozenset({"constant"}))


def test_joules_of_a_meter_that_is_set_up_late_are_in_the_preparation():
    clock = Clock()
    monitor = EnergyMonitor(Late(100.0, clock=clock), ledger=False, summary=False)
    guard = BudgetGuard("1e6 J")
    trainer(monitor, guard, Tick(clock)).fit(Classifier(), datamodule=Slow(clock))
    assert monitor.windows[0].phase == "setup"
    assert monitor.windows[0].reading.total_j == pytest.approx(PREPARE_J + SETUP_J)
    assert monitor.total.total_j == pytest.approx(clock.seconds * 100.0)
    assert guard.used_j == pytest.approx(clock.seconds * 100.0)


class Closing(ConstantMeter):
    """A meter that shows whether it runs."""

    running = False

    def start(self):
        super().start()
        self.running = True

    def close(self):
        super().close()
        self.running = False


def monitored(meter):
    return EnergyMonitor(meter, ledger=False)


@pytest.mark.parametrize("make", [monitored, lambda meter: BudgetGuard("1e6 J", meter=meter)])
def test_a_preparation_that_fails_leaves_no_meter_running(make):
    class Failing(Slow):
        def prepare_data(self):
            raise OSError("no such archive")

    clock = Clock()
    meter = Closing(clock=clock)
    with pytest.raises(OSError, match="no such archive"):
        trainer(make(meter)).fit(Classifier(), datamodule=Failing(clock))
    assert not meter.running


def test_a_phase_of_the_caller_counts_the_preparation_and_the_guard_does_too():
    clock = Clock()
    meter = constant_meter(clock)
    meter.start()
    recorder = WindowRecorder(meter)
    monitor, guard = EnergyMonitor(recorder, ledger=False), BudgetGuard("1e6 J", meter=recorder)
    with recorder.phase("update"):
        trainer(monitor, guard, Tick(clock)).fit(Classifier(), datamodule=Slow(clock))
        assert monitor.total.total_j == pytest.approx(2 * EPOCH_J)
        assert recorder.used().total_j == pytest.approx(PREPARE_J + SETUP_J)
    assert guard.used_j == pytest.approx(PREPARE_J + SETUP_J + 2 * EPOCH_J)


@FORKS
def test_the_preparation_of_several_processes_is_counted_once(tmp_path: Path):
    clock = Clock()
    meter = constant_meter(clock)
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    monitor, guard = EnergyMonitor(meter, ledger=url), BudgetGuard("1e6 J", meter=meter)
    view = SaveView(tmp_path, guard)
    first, second = fit(tmp_path, 2, monitor, guard, Tick(clock), view, model=Prepares(clock))
    assert first == second
    assert first["used_j"] == pytest.approx(PREPARE_J + 30.0)  # 3 epochs of 10 steps of 1 J
    ledger = Ledger(url, create=False)
    rows = [(row["phase"], row["energy_j"]) for row in ledger.rows("window")]
    ledger.close()
    assert rows[0] == ("setup", pytest.approx(PREPARE_J))
    assert [phase for phase, _ in rows].count("setup") == 1
