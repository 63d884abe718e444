"""The ways in which people run Lightning: two packages, its CLI, its tuner, loggers, no code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.tuner import Tuner

from greentrain.auto import callbacks
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.callbacks.auto_monitor import AutoBudgetGuard, AutoEnergyMonitor
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from tests.callbacks.test_energy_monitor import EPOCH_J
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

ROOT = Path(__file__).parents[2]


class Tunable(Classifier):
    """A classifier whose learning rate the tuner may choose."""

    def __init__(self):
        super().__init__()
        self.lr = 0.1


class Bare(Classifier):
    """A classifier that finds its data itself, as under LightningCLI."""

    def train_dataloader(self):
        return loader()

    def val_dataloader(self):
        return loader(count=4)


def test_a_validation_in_mid_epoch_has_the_figures_so_far():
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), zone="FR")
    checkpoint = ModelCheckpoint("kept", monitor="energy/epoch_wh", mode="min", save_top_k=-1)
    seen = []

    class Look(Tick):
        def on_validation_end(self, trainer, pl_module):
            if not trainer.sanity_checking:
                seen.append({key: float(v) for key, v in trainer.callback_metrics.items()})

    fit = trainer(
        monitor, Look(clock), checkpoint, enable_checkpointing=True, val_check_interval=0.5
    )
    fit.fit(Classifier(), loader(), loader(count=4))
    halves = [each["energy/epoch_wh"] * 3600 for each in seen]
    assert halves == pytest.approx([EPOCH_J / 2, EPOCH_J] * 2)
    totals = [each["energy/total_wh"] * 3600 for each in seen]
    assert totals == pytest.approx([EPOCH_J / 2, EPOCH_J, 1.5 * EPOCH_J, 2 * EPOCH_J])
    assert seen[0]["emissions/epoch_g"] > 0
    assert checkpoint.best_model_path


def test_several_loggers_get_one_row_an_epoch_each():
    clock = Clock()
    loggers = [CSVLogger("first"), CSVLogger("second")]
    fit = trainer(
        EnergyMonitor(constant_meter(clock)), Tick(clock), logger=loggers, log_every_n_steps=1
    )
    fit.fit(Classifier(), loader(), loader(count=4))
    for logger in loggers:
        rows = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
        column = rows[0].split(",").index("energy/epoch_wh")
        values = [row.split(",")[column] for row in rows[1:]]
        assert [float(v) * 3600 for v in values if v] == pytest.approx([EPOCH_J, EPOCH_J])


@pytest.mark.parametrize("what", ["lr_find", "scale_batch_size"])
def test_the_tuner_works_and_is_measured(what):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=False, summary=False)
    fit = trainer(monitor, Tick(clock), logger=False)
    tuner = Tuner(fit)
    if what == "lr_find":
        tuner.lr_find(Tunable(), loader(), num_training=10, update_attr=False)
    else:
        model = Bare()
        model.batch_size = 8
        tuner.scale_batch_size(model, max_trials=2, steps_per_trial=2)
    assert [window.phase for window in monitor.windows] == ["fit"]
    assert monitor.total.complete


def test_a_guard_counts_the_energy_of_the_tuner_as_the_monitor_does():
    clock = Clock()

    class Ticking(Tunable):
        def training_step(self, *batch):
            clock.seconds += 0.01
            return super().training_step(*batch)

    meter = constant_meter(clock)
    monitor, guard = EnergyMonitor(meter, ledger=False, summary=False), BudgetGuard("1 kJ")
    fit = trainer(monitor, guard, logger=False)
    Tuner(fit).lr_find(Ticking(), loader(), num_training=10, update_attr=False)
    assert (monitor.total.total_j, guard.used_j) == pytest.approx((10.0, 10.0))


def test_gradient_accumulation_counts_batches_as_samples():
    clock = Clock()
    fit = trainer(EnergyMonitor(constant_meter(clock)), Tick(clock), accumulate_grad_batches=4)
    fit.fit(Classifier(), loader())
    assert float(fit.callback_metrics["energy/samples_per_j"]) == pytest.approx(160 / EPOCH_J)


CLI = """
from {package}.cli import LightningCLI
from {package}.demos.boring_classes import BoringModel
LightningCLI(BoringModel, save_config_callback=None)
"""
CONFIG = """
seed_everything: 1
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  callbacks:
    - class_path: greentrain.callbacks.EnergyMonitor
      init_args:
        meter:
          class_path: greentrain.energy.ConstantMeter
          init_args: {power_w: 100.0}
        zone: FR
        ledger: sqlite:///cli.db
    - class_path: greentrain.callbacks.BudgetGuard
      init_args: {cap: 0.5 kWh}
"""


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_lightning_cli_takes_both_from_yaml(package, tmp_path):
    (tmp_path / "train.py").write_text(CLI.format(package=package))
    (tmp_path / "config.yaml").write_text(CONFIG)
    printed = python(tmp_path, "train.py", "fit", "--config", "config.yaml")
    assert "g CO2e" in printed
    ledger = Ledger(f"sqlite:///{tmp_path / 'cli.db'}", create=False)
    assert sum(row["emissions_g"] for row in ledger.rows("window")) > 0
    ledger.close()


SCRIPT = """
import json, os
from {package} import Trainer
from {package}.demos.boring_classes import BoringDataModule, BoringModel
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.energy import ConstantMeter
quiet = dict(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=2,
             enable_progress_bar=False, enable_model_summary=False)
meter = ConstantMeter(100.0)
monitor = EnergyMonitor(meter)
trainer = Trainer(callbacks=[monitor, BudgetGuard("1 kWh")], **quiet)
trainer.fit(BoringModel(), datamodule=BoringDataModule())
own = trainer.callback_metrics["energy/total_wh"].item()
prepared = monitor.windows[0].phase == "setup"
os.environ["GREENTRAIN_AUTO"] = "1"
trainer = Trainer(**quiet)
trainer.fit(BoringModel())
auto = [type(each).__name__ for each in trainer.callbacks]
total = float(trainer.callback_metrics.get("energy/total_wh", 0.0))
json.dump([own > 0, prepared, "AutoEnergyMonitor" in auto, total > 0], open("saw.json", "w"))
"""


@pytest.mark.parametrize("package", ["pytorch_lightning", "lightning.pytorch"])
def test_both_packages_and_no_code_at_all(package, tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT.format(package=package))
    printed = python(tmp_path, "train.py")
    own, prepared, auto, measured = json.loads((tmp_path / "saw.json").read_text())
    assert own
    assert prepared
    assert "energy used" in printed
    found = entry_points(group=f"{package}.callbacks_factory")
    if not any(each.name == "greentrain" for each in found):
        pytest.skip("greentrain is not installed here, so Lightning finds no entry point of it")
    assert auto
    assert measured


class Mine(EnergyMonitor):
    """A user's subclass of the monitor."""


@pytest.mark.parametrize("kind", [EnergyMonitor, Mine])
def test_an_automatic_monitor_steps_aside_for_another(kind):
    clock = Clock()
    monitor = kind(constant_meter(clock))
    auto = AutoEnergyMonitor(constant_meter(clock))
    trainer(auto, monitor, Tick(clock)).fit(Classifier(), loader())
    assert monitor.total.total_j == pytest.approx(2 * EPOCH_J)
    assert auto.windows == []
    assert auto.total.total_j is None


def test_an_automatic_guard_steps_aside_for_another():
    clock = Clock()
    meter = constant_meter(clock)
    auto, guard = AutoBudgetGuard("5 J", meter=meter), BudgetGuard("30 J", meter=meter)
    trainer(auto, guard, Tick(clock)).fit(Classifier(), loader())
    assert guard.stopped and not auto.stopped
    trainer(auto, Tick(clock)).fit(Classifier(), loader())
    assert auto.stopped


@pytest.fixture
def environment(monkeypatch):
    """Set variables of greentrain, and unset the others."""

    def set_variables(**variables: str) -> None:
        for name in ("AUTO", "ZONE", "LEDGER", "CAP", "QUIET"):
            monkeypatch.delenv(f"GREENTRAIN_{name}", raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(f"GREENTRAIN_{name}", value)

    return set_variables


@pytest.mark.parametrize("value", [None, "", "0", "false", "No", "OFF"])
def test_nothing_is_added_unasked(environment, value):
    environment(CAP="not read", **({} if value is None else {"AUTO": value}))
    assert callbacks() == []


@pytest.mark.parametrize("value", ["1", "true", "True", "YES", "on", " 1 "])
def test_the_usual_words_for_yes_add_a_monitor(environment, value):
    environment(AUTO=value)
    (only,) = callbacks()
    assert isinstance(only, AutoEnergyMonitor)
    assert only.ledger is True and only.summary


@pytest.mark.parametrize("variable", ["AUTO", "QUIET"])
def test_a_word_that_is_neither_yes_nor_no_is_refused(environment, variable):
    environment(**{"AUTO": "1", variable: "maybe"})
    with pytest.raises(ConfigurationError, match=f"GREENTRAIN_{variable} is 'maybe'"):
        callbacks()


def test_zone_ledger_cap_and_quiet_come_from_the_environment(environment):
    environment(AUTO="1", ZONE="DE", LEDGER="sqlite:///all.db", CAP="5 gCO2e", QUIET="yes")
    monitor, guard = callbacks()
    assert monitor.carbon.as_dict()["intensity"]["zone"] == "DE"
    assert monitor.ledger == "sqlite:///all.db"
    assert not monitor.summary
    assert guard.cap_g == 5.0
    environment(AUTO="1", LEDGER="off")
    (monitor,) = callbacks()
    assert monitor.ledger is False


@pytest.mark.parametrize("variables", [{"CAP": "lots"}, {"ZONE": "Atlantis"}, {"CAP": "5 gCO2e"}])
def test_a_value_that_cannot_be_used_is_refused_with_its_variable(environment, variables):
    environment(AUTO="1", **variables)
    (name,) = variables
    with pytest.raises(ConfigurationError, match=f"GREENTRAIN_{name}='{variables[name]}'"):
        callbacks()


def python(folder: Path, *arguments: str) -> str:
    """Run a script in a separate process, and return what it prints."""
    without = {key: value for key, value in os.environ.items() if key != "GREENTRAIN_AUTO"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        cwd=folder,
        env={**without, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
