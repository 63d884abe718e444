"""One monitor over fits, validations, tests and predictions: nothing is lost or counted twice."""

from __future__ import annotations

import pytest
import torch

from greentrain.callbacks import EnergyMonitor
from greentrain.ledger import Ledger
from tests.callbacks.test_energy_monitor import EPOCH_J
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

FIT_J = 2 * EPOCH_J
OTHER_J = 20 * 0.2  # 20 batches of 2 ms at 100 W


class Everywhere(Classifier):
    """A classifier with a step for every stage."""

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.layer(batch[0]).mean())

    def predict_step(self, batch, batch_idx):
        return self.layer(batch[0])


class TickEverywhere(Tick):
    """Let 2 ms pass in each batch of a test or prediction, too."""

    def on_test_batch_start(self, *args, **kwargs):
        self.clock.seconds += 0.002

    on_predict_batch_start = on_test_batch_start


def tick(clock: Clock) -> TickEverywhere:
    return TickEverywhere(clock, validation_s=0.002)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_a_checkpoint_restores_totals_only_into_a_fit(stage, tmp_path, capsys):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), zone="FR")
    both = trainer(
        monitor, tick(clock), enable_checkpointing=True, default_root_dir=tmp_path / "root"
    )
    both.fit(Everywhere(), loader())
    capsys.readouterr()
    getattr(both, stage)(dataloaders=loader(), ckpt_path="best")
    assert monitor.totals["fit"].total_j == pytest.approx(FIT_J)
    assert monitor.totals[stage].total_j == pytest.approx(OTHER_J)
    assert monitor.total.total_j == pytest.approx(FIT_J + OTHER_J)
    printed = capsys.readouterr().out
    assert f"energy used by {stage} of Everywhere, run {monitor.run_id[:8]}" in printed
    assert "4 J" in printed  # not the 40 J of the fit
    assert "40 J" not in printed and "44 J" not in printed
    ledger = Ledger(monitor.ledger_url, create=False)
    rows = [row for row in ledger.rows("window") if row["run_id"] == monitor.run_id]
    assert sum(row["energy_j"] for row in rows) == pytest.approx(OTHER_J)
    ledger.close()


def test_grams_are_the_sum_of_all_stages():
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), zone="FR", ledger=False)
    both = trainer(monitor, tick(clock))
    both.fit(Everywhere(), loader())
    fit_g = monitor.emissions_g
    both.test(both.lightning_module, loader(), verbose=False)
    assert monitor.emissions_g == pytest.approx(fit_g * (FIT_J + OTHER_J) / FIT_J)
    assert [window.phase for window in monitor.windows][-2:] == ["fit", "test"]


def test_a_checkpoint_saved_after_a_test_has_the_totals_of_the_fit(tmp_path):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=False)
    both = trainer(monitor, tick(clock))
    both.fit(Everywhere(), loader())
    both.test(both.lightning_module, loader(), verbose=False)
    both.save_checkpoint(tmp_path / "after.ckpt")
    state = torch.load(tmp_path / "after.ckpt", weights_only=True)["callbacks"]["EnergyMonitor"]
    assert state["energy_j"]["constant"] == pytest.approx(FIT_J)


def test_folds_add_up_and_a_fit_resumed_by_its_own_monitor_is_counted_once(tmp_path):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=False)
    for _ in range(3):
        fold = trainer(monitor, tick(clock))
        fold.fit(Everywhere(), loader())
    assert monitor.total.total_j == pytest.approx(3 * FIT_J)
    fold.save_checkpoint(tmp_path / "third.ckpt")
    resumed = trainer(monitor, tick(clock), max_epochs=3)
    resumed.fit(Everywhere(), loader(), ckpt_path=tmp_path / "third.ckpt")
    assert monitor.total.total_j == pytest.approx(3 * FIT_J + EPOCH_J)
    logged_j = float(resumed.callback_metrics["energy/total_wh"]) * 3600
    assert logged_j == pytest.approx(FIT_J + EPOCH_J)  # of the resumed fit as a whole
    other = EnergyMonitor(constant_meter(clock), ledger=False)
    trainer(other, tick(clock), max_epochs=3).fit(
        Everywhere(), loader(), ckpt_path=tmp_path / "third.ckpt"
    )
    assert other.total.total_j == pytest.approx(FIT_J + EPOCH_J)


def test_the_path_of_a_ledger_of_its_own_is_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock))
    assert monitor.ledger_url is None and monitor.run_id is None
    for _ in range(2):
        trainer(monitor, tick(clock)).fit(Everywhere(), loader())
    (path,) = (tmp_path / "greentrain_logs").glob("*.db")
    relative = path.relative_to(tmp_path)
    printed = capsys.readouterr().out
    assert printed.count("Recorded in") == 1
    assert f"Next: greentrain report --ledger {relative}" in printed
    assert monitor.ledger_url == f"sqlite:///{path}"
    ledger = Ledger(monitor.ledger_url, create=False)
    assert [row["run_id"] for row in ledger.rows("run")][-1] == monitor.run_id
    ledger.close()


def test_without_a_table_the_path_is_logged(tmp_path, caplog, capsys):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), summary=False)
    trainer(monitor, tick(clock)).fit(Everywhere(), loader())
    assert "Recorded in" not in capsys.readouterr().out
    assert caplog.text.count("EnergyMonitor: Recorded in") == 1


@pytest.mark.parametrize("given", [False, "sqlite:///own.db"])
def test_a_ledger_of_the_users_is_not_said_again(given, capsys):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=given)
    trainer(monitor, tick(clock)).fit(Everywhere(), loader())
    assert "Recorded in" not in capsys.readouterr().out
    assert monitor.ledger_url == (given or None)
    assert (monitor.run_id is None) == (given is False)
