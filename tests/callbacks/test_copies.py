"""Libraries copy and pickle their callbacks: a copy is a new callback with the same arguments."""

from __future__ import annotations

import copy
import pickle
import pickletools
import zipfile

import pytest
import torch
from pytorch_lightning import Callback

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.energy import ConstantMeter
from greentrain.ledger import Ledger
from tests.callbacks.test_energy_monitor import EPOCH_J
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer


class InMidFit(Callback):
    """Copy callbacks in the middle of a fit, when they hold meters, locks and the Trainer."""

    def __init__(self, make):
        self.make = make
        self.copies = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 5:
            ours = [each for each in trainer.callbacks if type(each).__module__.startswith("green")]
            self.copies = [self.make(each) for each in ours]


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy])
def test_a_copy_measures_for_itself_with_the_same_meter(make, tmp_path):
    clock = Clock()
    meter = constant_meter(clock)
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    monitor = EnergyMonitor(meter, ledger=url, zone="FR", summary=False)
    guard = BudgetGuard("100 J", meter=meter, anneal=True)
    during = InMidFit(make)
    trainer(monitor, guard, during, Tick(clock)).fit(Classifier(), loader())
    other, again = during.copies
    assert other.total.total_j is None
    assert other.meter is meter
    assert again.cap_j == 100.0 and again.anneal and not again.stopped
    trainer(other, again, Tick(clock), max_epochs=50).fit(Classifier(), loader())
    assert again.stopped
    assert not guard.stopped
    assert monitor.total.total_j == pytest.approx(2 * EPOCH_J)
    # The way to the totals of copies, as the documentation shows it.
    ledger = Ledger(url, create=False)
    runs = [row["run_id"] for row in ledger.rows("run")]
    assert runs == [monitor.run_id, other.run_id]
    windows = ledger.rows("window")
    ledger.close()
    used_j = sum(row["energy_j"] for row in windows if row["run_id"] == runs[1])
    assert used_j == pytest.approx(other.total.total_j)


def test_callbacks_can_be_pickled_in_mid_fit_and_after_it():
    monitor = EnergyMonitor(ConstantMeter(100.0), ledger=False, zone="DE", pue=1.2, summary=False)
    guard = BudgetGuard("1 kWh", on_exceed="warn", keep_j=3.0)
    during = InMidFit(lambda each: pickle.loads(pickle.dumps(each)))
    trainer(monitor, guard, during).fit(Classifier(), loader())
    later = [pickle.loads(pickle.dumps(each)) for each in (monitor, guard)]
    for other, again in (during.copies, later):
        assert other.carbon.as_dict() == monitor.carbon.as_dict()
        assert not other.summary
        assert (again.cap_j, again.on_exceed, again.keep_j) == (3.6e6, "warn", 3.0)
        assert other.windows == [] and again.steps == 0


class Named(EnergyMonitor):
    """A monitor of a user, with an argument of its own."""

    def __init__(self, name: str, **options) -> None:
        super().__init__(**options)
        self.name = name


def test_a_subclass_is_copied_with_its_own_arguments():
    other = copy.deepcopy(Named("mine", ledger=False))
    assert type(other) is Named
    assert other.name == "mine" and other.ledger is False


def test_a_checkpoint_with_callbacks_among_its_parameters_is_loaded_with_weights_only(tmp_path):
    callbacks = [EnergyMonitor(zone="DE", ledger=False), BudgetGuard("0.5 kWh", anneal=True)]
    parameters = {"trainer": {"max_epochs": 3, "callbacks": callbacks}}
    torch.save({"hyper_parameters": parameters}, tmp_path / "model.ckpt")
    loaded = torch.load(tmp_path / "model.ckpt", weights_only=True)["hyper_parameters"]["trainer"]
    monitor, guard = loaded["callbacks"]
    assert monitor.carbon.as_dict()["intensity"]["zone"] == "DE"
    assert guard.cap_j == 1.8e6


def test_a_pickled_callback_needs_no_global_besides_its_class(tmp_path):
    # Darts has a list of its own, to which the user adds these.
    torch.save([EnergyMonitor(ledger=False), BudgetGuard("1 Wh")], tmp_path / "model.ckpt")
    names = torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "model.ckpt")
    with zipfile.ZipFile(tmp_path / "model.ckpt") as archive:
        data = archive.read("model/data.pkl")
    found = {arg for _, arg, _ in pickletools.genops(data) if isinstance(arg, str) and " " in arg}
    classes = {f"{cls.__module__} {cls.__name__}" for cls in (EnergyMonitor, BudgetGuard)}
    assert found - {"1 Wh"} == classes
    assert names == []


def test_a_class_of_the_user_in_a_checkpoint_has_to_be_allowed_by_the_user(tmp_path):
    torch.save(EnergyMonitor(ConstantMeter(100.0)), tmp_path / "model.ckpt")
    with pytest.raises(pickle.UnpicklingError, match="ConstantMeter"):
        torch.load(tmp_path / "model.ckpt", weights_only=True)
