"""EnergyMonitor in a real Trainer, with a constant power over a fake clock."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import ModelCheckpoint

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.carbon import StaticIntensity
from greentrain.energy import ConstantMeter, NvmlMeter, WallMeter, WindowRecorder
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, verify
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

BATCHES = 20  # 4 classes x 40 samples / 8
EPOCH_J = BATCHES * 1.0  # 100 W for 0.01 s is 1 J a batch


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
    checkpoint = ModelCheckpoint(tmp_path / "kept", monitor="energy/epoch_wh", mode="min")
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
    monitor = EnergyMonitor(constant_meter(clock), ledger=url, team="vision", project="digits")
    trainer(monitor, Tick(clock)).fit(Classifier(), loader())
    ledger = Ledger(url, create=False)
    assert [(run["team"], run["project"]) for run in ledger.rows("run")] == [("vision", "digits")]
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


@pytest.mark.parametrize("first", [EnergyMonitor, lambda meter: BudgetGuard("1e6 J", meter=meter)])
def test_one_meter_given_to_one_callback_serves_both(first):
    clock = Clock()
    meter = constant_meter(clock)
    guard, monitor = BudgetGuard("1e6 J"), EnergyMonitor()
    if first is EnergyMonitor:
        monitor = EnergyMonitor(meter)
    else:
        guard = first(meter)
    for callbacks in ([guard, monitor], [monitor, guard]):
        drawn_before = clock.seconds * 100.0
        trainer(*callbacks, Tick(clock)).fit(Classifier(), loader())
        drawn = clock.seconds * 100.0 - drawn_before
        assert monitor.total.total_j == pytest.approx(clock.seconds * 100.0)  # of both fits
        assert guard.used_j == pytest.approx(drawn)


def test_two_meters_in_one_trainer_are_refused():
    clock = Clock()
    callbacks = [
        EnergyMonitor(constant_meter(clock)),
        BudgetGuard("1e6 J", meter=constant_meter(clock)),
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
    trainer(monitor, BudgetGuard("1e6 J"), Tick(clock), fast_dev_run=True).fit(Manual(), loader())
    assert monitor.total.total_j == pytest.approx(1.0)


def test_a_recorder_of_the_callers_stays_open_whoever_lets_go_last():
    clock = Clock()
    meter = constant_meter(clock)
    meter.start()
    recorder = WindowRecorder(meter)
    trainer(EnergyMonitor(recorder), BudgetGuard("1e6 J"), Tick(clock)).fit(Classifier(), loader())
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


def test_a_ledger_that_breaks_does_not_stop_training(tmp_path, caplog):
    class Break(Callback):
        def on_train_start(self, trainer, pl_module):
            with closing(sqlite3.connect(tmp_path / "greentrain.db")) as database:
                database.executescript("drop table windows; drop table closings;")

    clock = Clock()
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    fit = trainer(EnergyMonitor(constant_meter(clock), ledger=url), Tick(clock), Break())
    fit.fit(Classifier(), loader())
    assert fit.global_step == 2 * BATCHES
    assert "rows of the ledger wait in a local file" in caplog.text


def ledgers(folder: Path) -> list[Path]:
    return sorted((folder / "greentrain_logs").glob("*.db"))


def test_without_a_word_a_ledger_lies_under_the_trainers_folder(tmp_path):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    for _ in range(2):
        fit = trainer(monitor, Tick(clock), default_root_dir=tmp_path / "root")
        fit.fit(Classifier(), loader())
    fit.validate(Classifier(), loader(), verbose=False)
    (path,) = ledgers(tmp_path / "root")
    ledger = Ledger(str(path), create=False)
    assert [row["kind"] for row in ledger.rows("run")] == ["fit", "fit", "validate"]
    assert [row["name"] for row in ledger.rows("source")] == ["constant"] * 3
    assert sum(row["energy_j"] for row in ledger.rows("window")) == pytest.approx(4 * EPOCH_J)
    assert verify(ledger).ok
    ledger.close()


def test_a_trial_run_leaves_nothing_behind(own_folder):
    clock = Clock()
    trainer(EnergyMonitor(constant_meter(clock)), Tick(clock), fast_dev_run=True).fit(
        Classifier(), loader()
    )
    assert list(own_folder.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_warned_of_and_training_goes_on(tmp_path):
    clock = Clock()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "greentrain_logs").write_text("a file where the folder should be")
    fit = trainer(
        EnergyMonitor(constant_meter(clock)), Tick(clock), default_root_dir=tmp_path / "root"
    )
    with pytest.warns(UserWarning, match="not recorded on disk"):
        fit.fit(Classifier(), loader())
    assert float(fit.callback_metrics["energy/total_wh"]) == pytest.approx(2 * EPOCH_J / 3600)


def test_a_ledger_that_was_asked_for_and_is_none_is_refused_before_the_first_batch(tmp_path):
    (tmp_path / "notes.db").write_text("no database at all")
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=f"sqlite:///{tmp_path / 'notes.db'}")
    fit = trainer(monitor, Tick(clock))
    with pytest.raises(LedgerError):
        fit.fit(Classifier(), loader())
    assert fit.global_step == 0


def test_the_whole_run_is_predicted_from_its_first_epochs():
    clock = Clock()
    seen = []

    class Look(Tick):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append({key: float(v) * 3600 for key, v in trainer.callback_metrics.items()})

    trainer(EnergyMonitor(constant_meter(clock)), Look(clock), max_epochs=5).fit(
        Classifier(), loader()
    )
    assert "energy/predicted_total_wh" not in seen[0]
    for figures in seen[1:]:
        predicted = figures["energy/predicted_total_wh"]
        assert predicted == pytest.approx(5 * EPOCH_J)
        assert figures["energy/predicted_total_low_wh"] < predicted * 1.0001
        assert figures["energy/predicted_total_high_wh"] > predicted * 0.9999
    widths = [
        each["energy/predicted_total_high_wh"] - each["energy/predicted_total_low_wh"]
        for each in seen[1:]
    ]
    assert widths == sorted(widths, reverse=True)


def test_max_steps_is_an_end_too():
    clock = Clock()
    fit = trainer(
        EnergyMonitor(constant_meter(clock)), Tick(clock), max_epochs=-1, max_steps=2 * BATCHES + 10
    )
    fit.fit(Classifier(), loader())
    # After two of two and a half epochs, half an epoch was still to come.
    assert float(fit.callback_metrics["energy/predicted_total_wh"]) * 3600 == pytest.approx(
        2.5 * EPOCH_J
    )


def test_the_power_limit_in_force_and_samples_per_joule_are_logged(nvml_node):
    class Advance(Callback):
        def on_train_batch_start(self, *args, **kwargs):
            nvml_node.advance(0.1)

    meter = NvmlMeter(clock=nvml_node.clock, synchronize=lambda index: None)
    fit = trainer(EnergyMonitor(meter), Advance())
    fit.fit(Classifier(), loader())
    assert float(fit.callback_metrics["energy/gpu_0_power_limit_w"]) == 400.0
    # 160 samples in 20 batches of 0.1 s at 300 W, give or take the counter's tick
    assert float(fit.callback_metrics["energy/samples_per_j"]) == pytest.approx(160 / 600, rel=0.06)


def test_a_card_that_is_lost_never_lets_the_total_fall(nvml_node, caplog):
    class Advance(Callback):
        def on_train_batch_start(self, *args, **kwargs):
            nvml_node.advance(0.1)

    seen = []

    class Look(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            seen.append(float(trainer.callback_metrics.get("energy/total_wh", 0.0)))

    nvml_node.cards[0].lost_s = 3.0  # in the second epoch of three
    meter = NvmlMeter(clock=nvml_node.clock, synchronize=lambda index: None)
    monitor = EnergyMonitor(meter)
    fit = trainer(monitor, Advance(), Look(), max_epochs=3)
    fit.fit(Classifier(), loader())
    assert fit.global_step == 3 * BATCHES
    assert seen == sorted(seen)
    assert seen[1] * 3600 == pytest.approx(600.0, rel=0.06)
    assert monitor.total.energy_j == {"gpu:0": None}
    assert [w.reading.complete for w in monitor.windows if w.phase == "train_epoch"] == [
        True,
        False,
        False,
    ]
    assert "lost" in monitor.sources[0].note or "unknown from here on" in monitor.sources[0].note


def test_an_idle_baseline_is_measured_apart_and_never_taken_off(monkeypatch, tmp_path):
    clock = Clock()
    monkeypatch.setattr(time, "sleep", lambda seconds: setattr(clock, "seconds", seconds))
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    monitor = EnergyMonitor(constant_meter(clock), idle_s=30.0, ledger=url)
    trainer(monitor, Tick(clock)).fit(Classifier(), loader())
    assert monitor.idle.power_w == pytest.approx(100.0)
    assert monitor.idle.duration_s == 30.0
    assert monitor.total.total_j == pytest.approx(2 * EPOCH_J)
    ledger = Ledger(url, create=False)
    assert next(iter(ledger.rows("window")))["phase"] == "idle"
    ledger.close()


def test_the_summary_says_what_is_known_and_how(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    clock = Clock()
    quiet = EnergyMonitor(constant_meter(clock), summary=False)
    trainer(quiet, Tick(clock)).fit(Classifier(), loader())
    assert "energy used" not in capsys.readouterr().out
    monitor = EnergyMonitor(constant_meter(clock), zone="FR")
    trainer(monitor, Tick(clock)).fit(Classifier(), loader())
    printed = capsys.readouterr().out
    for text in ("constant", "40 J", "100.0 W", "given", "g CO2e"):
        assert text in printed


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), "3", True])
def test_an_idle_time_that_is_none_is_refused(seconds):
    with pytest.raises(ConfigurationError, match="idle_s"):
        EnergyMonitor(idle_s=seconds)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"pue": "1.2"}, "pue is '1.2'"), ({"intensity": "DE"}, "give static:DE")],
)
def test_texts_in_place_of_values_are_refused(arguments, named):
    with pytest.raises(ConfigurationError, match=named):
        EnergyMonitor(**arguments)


def test_a_checkpoint_that_is_resumed_three_times_counts_once(tmp_path):
    clock = Clock()
    path = tmp_path / "before.ckpt"
    before = trainer(EnergyMonitor(constant_meter(clock), ledger=False), Tick(clock), max_epochs=1)
    before.fit(Classifier(), loader())
    before.save_checkpoint(path)
    first_j = 100.0 * clock.seconds
    monitor = EnergyMonitor(constant_meter(clock), ledger=False)
    for _ in range(3):
        resumed = trainer(monitor, Tick(clock), max_epochs=2)
        resumed.fit(Classifier(), loader(), ckpt_path=path)
        assert monitor.total.total_j == pytest.approx(100.0 * clock.seconds)
    assert monitor.total.total_j == pytest.approx(4 * first_j)


def test_two_branches_of_one_fit_count_their_common_part_once(tmp_path):
    clock = Clock()
    a, b = (EnergyMonitor(constant_meter(clock), ledger=False, summary=False) for _ in range(2))

    def fit(monitor, epochs, start, end=None):
        fitted = trainer(monitor, Tick(clock), max_epochs=epochs)
        fitted.fit(Classifier(), loader(), ckpt_path=start and tmp_path / start)
        if end is not None:
            fitted.save_checkpoint(tmp_path / end)

    fit(a, 1, None, "trunk.ckpt")
    fit(a, 2, "trunk.ckpt", "left.ckpt")
    fit(a, 2, "trunk.ckpt", "right.ckpt")
    assert a.total.total_j == pytest.approx(3 * EPOCH_J)
    fit(b, 3, "left.ckpt", "end.ckpt")
    assert b.total.total_j == pytest.approx(3 * EPOCH_J)
    fit(b, 3, "right.ckpt")
    assert b.total.total_j == pytest.approx(5 * EPOCH_J)
    fit(a, 4, "end.ckpt")  # one epoch of the other monitor, and one of its own
    assert a.total.total_j == pytest.approx(5 * EPOCH_J)


def test_an_epoch_resumed_in_its_middle_has_a_window_and_does_not_mislead_the_prediction(tmp_path):
    clock = Clock()

    class Save(Callback):
        def on_train_batch_end(self, trainer, *args, **kwargs):
            if trainer.global_step == 30:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

    trainer(EnergyMonitor(constant_meter(clock)), Tick(clock), Save()).fit(Classifier(), loader())
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    fit = trainer(monitor, Tick(clock), max_epochs=4)
    fit.fit(Classifier(), loader(), ckpt_path=tmp_path / "mid.ckpt")
    epochs = {w.epoch: w.reading.total_j for w in monitor.windows if w.phase == "train_epoch"}
    assert epochs == pytest.approx({1: 10.0, 2: EPOCH_J, 3: EPOCH_J})
    assert float(fit.callback_metrics["energy/predicted_total_wh"]) * 3600 == pytest.approx(
        30.0 + clock.seconds * 100.0
    )


def test_a_wall_meter_calibrates_what_was_measured(tmp_path):
    clock = Clock()

    def now() -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=clock.seconds)

    start_s = now().timestamp()
    path = tmp_path / "pdu.csv"
    rows = [f"{start_s + t},{140.0 * t}" for t in range(0, 4001, 10)]  # 140 W at the wall
    path.write_text("\n".join(["unix_s,energy_j", *rows]))
    meter = constant_meter(clock)
    meter.start()
    url = f"sqlite:///{tmp_path / 'greentrain.db'}"
    monitor = EnergyMonitor(
        WindowRecorder(meter, now=now), wall=WallMeter(path, now=now), ledger=url
    )
    trainer(monitor, Tick(clock, step_s=10.0), max_epochs=10).fit(Classifier(), loader())
    assert monitor.calibration.factor == pytest.approx(1.4, rel=1e-3)
    assert monitor.total.total_j == pytest.approx(100.0 * clock.seconds)
    ledger = Ledger(url, create=False)
    (row,) = ledger.rows("calibration")
    assert row["factor"] == monitor.calibration.factor
    assert verify(ledger).ok
    ledger.close()


def test_one_wall_meter_for_several_nodes_is_refused(tmp_path):
    (tmp_path / "pdu.csv").write_text("unix_s,energy_j\n0,0\n")
    monitor = EnergyMonitor(wall=WallMeter(tmp_path / "pdu.csv"))
    several = SimpleNamespace(num_nodes=2)
    with pytest.raises(MisconfigurationException, match="wall measures one node"):
        monitor.setup(several, Classifier(), "fit")


def test_a_wall_meter_that_cannot_be_read_stops_nothing():
    clock = Clock()
    wall = WallMeter(["false"], unit="W")  # a command that fails
    fit = trainer(EnergyMonitor(constant_meter(clock), wall=wall), Tick(clock))
    with pytest.warns(UserWarning, match="no comparison with the wall"):
        fit.fit(Classifier(), loader())
    assert fit.global_step == 2 * BATCHES


def test_a_ledger_of_its_own_that_breaks_before_the_next_fit_is_done_without(tmp_path):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    trainer(monitor, Tick(clock), default_root_dir=tmp_path).fit(Classifier(), loader())
    (path,) = ledgers(tmp_path)
    with closing(sqlite3.connect(path)) as database:
        database.execute(
            "create trigger refuse before insert on runs begin select raise(abort, 'no'); end"
        )
    fit = trainer(monitor, Tick(clock), default_root_dir=tmp_path)
    with pytest.warns(UserWarning, match="not recorded on disk"):
        fit.fit(Classifier(), loader())
    assert fit.global_step == 2 * BATCHES


def test_runs_have_the_name_that_was_given_and_otherwise_that_of_the_model(tmp_path):
    ledger = f"sqlite:///{tmp_path / 'names.db'}"
    for name in ("digits, wide", None):
        monitor = EnergyMonitor(ConstantMeter(1.0), name=name, ledger=ledger, summary=False)
        trainer(monitor, max_epochs=1).fit(Classifier(), loader(count=8))
    recorded = Ledger(ledger)
    assert [row["name"] for row in recorded.rows("run")] == ["digits, wide", "Classifier"]
    recorded.close()


@pytest.mark.parametrize("name", ["", 3, "a\0b", "x" * 501])
def test_a_name_that_cannot_be_stored_is_refused_at_once(name):
    with pytest.raises(ConfigurationError, match="name "):
        EnergyMonitor(name=name)
