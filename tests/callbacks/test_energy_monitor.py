"""EnergyMonitor in a real Trainer, with a constant power over a fake clock."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.carbon import StaticIntensity
from greentrain.energy import ConstantMeter, WindowRecorder
from greentrain.ledger import Ledger, verify
from tests.models import Classifier, Clock, Tick, constant_meter, loader

BATCHES = 20  # 4 classes x 40 samples / 8
EPOCH_J = BATCHES * 1.0  # 100 W for 0.01 s is 1 J a batch


def trainer(*callbacks, **options) -> Trainer:
    return Trainer(
        callbacks=list(callbacks),
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            **options,
        },
    )


def test_each_epoch_and_validation_has_a_window_and_they_sum_to_the_fit():
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    fit = trainer(monitor, Tick(clock, validation_s=0.05))
    fit.fit(Classifier(), loader(), loader(count=4))
    epochs = [w for w in monitor.windows if w.phase == "train_epoch"]
    validations = [w for w in monitor.windows if w.phase == "validation"]
    sanity = [w for w in monitor.windows if w.phase == "sanity_check"]
    assert [w.epoch for w in epochs] == [0, 1]
    assert [w.reading.total_j for w in epochs] == pytest.approx([EPOCH_J, EPOCH_J])
    assert [w.reading.total_j for w in validations] == pytest.approx([10.0, 10.0])  # 2 x 5 J
    assert [w.reading.total_j for w in sanity] == pytest.approx([10.0])
    assert monitor.total.total_j == pytest.approx(clock.seconds * 100.0)


def test_figures_reach_callback_metrics_and_can_be_monitored(tmp_path):
    clock = Clock()
    checkpoint = ModelCheckpoint(tmp_path, monitor="energy/epoch_wh", mode="min")
    fit = trainer(
        checkpoint,
        EnergyMonitor(constant_meter(clock)),
        Tick(clock),
        enable_checkpointing=True,
    )
    fit.fit(Classifier(), loader())
    assert float(fit.callback_metrics["energy/epoch_wh"]) == pytest.approx(EPOCH_J / 3600)
    assert float(fit.callback_metrics["energy/total_wh"]) == pytest.approx(2 * EPOCH_J / 3600)
    assert float(fit.callback_metrics["energy/power_w"]) == pytest.approx(100.0)
    assert float(fit.callback_metrics["energy/constant_epoch_wh"]) == pytest.approx(EPOCH_J / 3600)
    assert checkpoint.best_model_path


def test_a_meter_that_fails_stops_nothing(caplog):
    class Broken(ConstantMeter):
        def read(self):
            raise RuntimeError("the card fell off the bus")

    monitor = EnergyMonitor(Broken())
    fit = trainer(monitor)
    fit.fit(Classifier(), loader())
    assert fit.global_step == 2 * BATCHES
    assert monitor.total.total_j is None
    assert caplog.text.count("the card fell off the bus") == 1
    assert "energy/epoch_wh" not in fit.callback_metrics


def test_measuring_leaves_the_weights_bit_identical():
    def weights(*callbacks):
        torch.manual_seed(0)
        model = Classifier()
        trainer(*callbacks).fit(model, loader())
        return model.layer.weight

    clock = Clock()
    assert torch.equal(weights(), weights(EnergyMonitor(constant_meter(clock)), Tick(clock)))


def test_a_ledger_holds_the_windows_of_the_fit(tmp_path):
    clock = Clock()
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    trainer(EnergyMonitor(constant_meter(clock), ledger=url), Tick(clock)).fit(
        Classifier(), loader()
    )
    ledger = Ledger(url, create=False)
    rows = ledger.rows("window")
    assert [row["phase"] for row in rows] == ["train_epoch", "train_epoch", "fit"]
    assert sum(row["energy_j"] for row in rows) == pytest.approx(2 * EPOCH_J)
    assert ledger.rows("closing")[0]["status"] == "completed"
    assert verify(ledger).ok
    ledger.close()


def test_an_exception_closes_what_was_open(tmp_path):
    class Failing(Classifier):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise ValueError("a bad batch")
            return super().training_step(batch, batch_idx)

    clock = Clock()
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    monitor = EnergyMonitor(constant_meter(clock), ledger=url)
    with pytest.raises(ValueError, match="a bad batch"):
        trainer(monitor, Tick(clock)).fit(Failing(), loader())
    assert monitor.total.total_j == pytest.approx(4.0)  # four batches of 1 J had begun
    ledger = Ledger(url, create=False)
    assert ledger.rows("closing")[0]["status"] == "failed"
    ledger.close()


@pytest.mark.parametrize("phase", ["validate", "test", "predict"])
def test_other_stages_are_measured_too(phase):
    class Everywhere(Classifier):
        def test_step(self, batch, batch_idx):
            return None

        def predict_step(self, batch, batch_idx):
            return self.layer(batch[0])

    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    getattr(trainer(monitor, Tick(clock)), phase)(Everywhere(), loader())
    assert monitor.windows[-1].phase == phase


def test_totals_go_on_after_a_resume_and_in_mid_epoch(tmp_path):
    clock = Clock()
    first = EnergyMonitor(constant_meter(clock))
    path = tmp_path / "mid-epoch.ckpt"

    class Save(Callback):
        def on_train_batch_end(self, trainer, *args, **kwargs):
            if trainer.global_step == 30:
                trainer.save_checkpoint(path)

    trainer(first, Tick(clock), Save()).fit(Classifier(), loader())
    state = torch.load(path, weights_only=True)["callbacks"][first.state_key]
    assert state["energy_j"]["constant"] == pytest.approx(30.0)  # an epoch and a half
    clock = Clock()
    second = EnergyMonitor(constant_meter(clock))
    trainer(second, Tick(clock), max_epochs=3).fit(Classifier(), loader(), ckpt_path=path)
    assert second.total.total_j == pytest.approx(30.0 + clock.seconds * 100.0)


@pytest.mark.parametrize("first", [EnergyMonitor, lambda meter: BudgetGuard(1e6, meter=meter)])
def test_one_meter_given_to_one_callback_serves_both(first):
    clock = Clock()
    meter = constant_meter(clock)
    guard, monitor = BudgetGuard(1e6), EnergyMonitor()
    if first is EnergyMonitor:
        monitor = EnergyMonitor(meter)
    else:
        guard = first(meter)
    for callbacks in ([guard, monitor], [monitor, guard]):
        drawn_before = clock.seconds * 100.0
        trainer(*callbacks, Tick(clock)).fit(Classifier(), loader())
        drawn = clock.seconds * 100.0 - drawn_before
        assert monitor.total.total_j == pytest.approx(drawn)
        assert guard.used_j == pytest.approx(drawn)


def test_two_meters_in_one_trainer_are_refused():
    clock = Clock()
    callbacks = [
        EnergyMonitor(constant_meter(clock)),
        BudgetGuard(1e6, meter=constant_meter(clock)),
    ]
    with pytest.raises(MisconfigurationException, match="different meters"):
        trainer(*callbacks).fit(Classifier(), loader())


def test_fast_dev_run_and_manual_optimisation_work():
    class Manual(Classifier):
        def __init__(self):
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(super().training_step(batch, batch_idx))
            optimizer.step()

    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    trainer(monitor, BudgetGuard(1e6), Tick(clock), fast_dev_run=True).fit(Manual(), loader())
    assert monitor.total.total_j == pytest.approx(1.0)


def test_a_recorder_of_the_callers_stays_open_whoever_lets_go_last():
    clock = Clock()
    meter = constant_meter(clock)
    meter.start()
    recorder = WindowRecorder(meter)
    trainer(EnergyMonitor(recorder), BudgetGuard(1e6), Tick(clock)).fit(Classifier(), loader())
    assert recorder.read().total_j == pytest.approx(2 * EPOCH_J)


def test_a_monitor_used_again_begins_at_zero_unless_it_resumes(tmp_path):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    monitor.load_state_dict({"duration_s": 5.0, "energy_j": {"constant": 500.0}})
    trainer(monitor, Tick(clock)).fit(Classifier(), loader())
    assert monitor.total.total_j == pytest.approx(2 * EPOCH_J)
    assert monitor.windows[-1].phase == "fit"


def test_grams_are_logged_where_a_zone_is_known(tmp_path):
    clock = Clock()
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    monitor = EnergyMonitor(constant_meter(clock), zone="FR", pue=1.5, ledger=url)
    fit = trainer(monitor, Tick(clock))
    fit.fit(Classifier(), loader())
    intensity = StaticIntensity("FR").g_per_kwh
    epoch_g = EPOCH_J / 3.6e6 * 1.5 * intensity
    assert float(fit.callback_metrics["emissions/epoch_g"]) == pytest.approx(epoch_g)
    assert float(fit.callback_metrics["emissions/total_g"]) == pytest.approx(2 * epoch_g)
    assert monitor.emissions_g == pytest.approx(2 * epoch_g)
    ledger = Ledger(url, create=False)
    rows = ledger.rows("window")
    assert sum(row["emissions_g"] for row in rows) == pytest.approx(2 * epoch_g)
    assert {row["intensity_g_per_kwh"] for row in rows} == {intensity}
    ledger.close()


def test_no_zone_no_grams():
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    fit = trainer(monitor, Tick(clock))
    fit.fit(Classifier(), loader())
    assert monitor.emissions_g is None
    assert not any(name.startswith("emissions") for name in fit.callback_metrics)


def test_a_ledger_that_breaks_does_not_stop_training(tmp_path):
    class Break(Callback):
        def on_train_start(self, trainer, pl_module):
            with closing(sqlite3.connect(tmp_path / "greentrain.db")) as database:
                database.executescript("drop table windows; drop table closings;")

    clock = Clock()
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    fit = trainer(EnergyMonitor(constant_meter(clock), ledger=url), Tick(clock), Break())
    with pytest.warns(UserWarning, match="the run could not be closed"):
        fit.fit(Classifier(), loader())
    assert fit.global_step == 2 * BATCHES
