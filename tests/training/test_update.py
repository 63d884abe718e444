"""One update of one model, at 1 J a batch of a fake clock."""

from __future__ import annotations

import csv
import logging
import socket
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    IterableDataset,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import greentrain
from greentrain import Budget, ModelUpdate, UpdateMode
from greentrain.callbacks import EnergyMonitor
from greentrain.control import Always, PricedPolicy
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.evaluation.logged_metric import BATCH
from greentrain.ledger import Ledger, verify
from greentrain.memory import FullBuffer
from tests.models import Classifier, Clock, Tick, blobs, constant_meter
from tests.training.fitting import PROBE_S, timed

NEW, VAL = blobs(range(4), 40, seed=1), blobs(range(4), 16, seed=2)
WARM = Always(mode=UpdateMode.WARM_START)


class Sized(Classifier):
    """A classifier whose ``__init__`` has a required argument, and that logs one metric."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.sizes: list[int] = []
        self.training_modes: set[bool] = set()

    def training_step(self, batch, batch_idx):
        self.sizes.append(len(batch[0]))
        self.training_modes.add(self.training)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        samples, labels = batch
        self.log("val_acc", (self.layer(samples).argmax(1) == labels).float().mean())


@pytest.fixture(autouse=True)
def in_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def model(cls: type[LightningModule] = Sized, *args) -> LightningModule:
    """A model of four classes that predicts the first one always."""
    made = cls(*(args or (4,)))
    with torch.no_grad():
        made.layer.weight.zero_()
        made.layer.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))
    return made


def update(given: object, new_data: object = NEW, *, clock: Clock | None = None, **changes):
    clock = clock or Clock()
    options = {
        "val": VAL,
        "budget": "2000 J",
        "max_epochs": 4,
        "accelerator": "cpu",
        "callbacks": [Tick(clock, validation_s=0.001)],
        "meter": constant_meter(clock),
        **changes,
    }
    return greentrain.update(given, new_data, **options)


def weights(of: nn.Module) -> list[torch.Tensor]:
    return [each.detach().clone() for each in of.parameters()]


def equal(left: list[torch.Tensor], right: list[torch.Tensor]) -> bool:
    return all(torch.equal(one, two) for one, two in zip(left, right, strict=True))


def open_ledger(path: str) -> Ledger:
    return Ledger(f"sqlite:///{path}", create=False)


def phases(path: str) -> Counter[str]:
    ledger = open_ledger(path)
    found = Counter(row["phase"] for row in ledger.rows("window"))
    ledger.close()
    return found


def test_an_update_returns_a_better_model_and_leaves_the_given_one_alone():
    given, clock = model(), Clock()
    before = weights(given)
    result = update(given, clock=clock)
    assert isinstance(result, ModelUpdate)
    assert result.kept
    assert result.model is not given
    assert equal(before, weights(given))
    assert result.update_mode is UpdateMode.WARM_START
    assert (result.monitor, result.metric_before) == ("val_acc", 0.25)
    assert result.metric_after > 0.9
    assert result.steps == 4 * 5  # four more epochs of 160 samples in batches of 32
    assert result.total_j == pytest.approx(100.0 * clock.seconds)
    assert result.total_wh == pytest.approx(result.total_j / 3600)
    assert result.left_j == pytest.approx(2000.0 - result.total_j)


def test_the_ledger_is_named_once_and_records_every_joule(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        result = update(model())
    assert Path(result.ledger).parent == tmp_path / "greentrain_logs"
    assert caplog.text.count(result.ledger) == 1
    ledger = open_ledger(result.ledger)
    assert verify(ledger).ok
    outcomes = ledger.rows("outcome", run_id=result.run_id)
    ledger.close()
    assert [row["energy_j"] for row in outcomes] == [pytest.approx(result.total_j)]
    assert {"calibration", "probe", "update", "validation"} <= set(phases(result.ledger))


def test_the_result_reads_well():
    result = update(model())
    assert repr(result).startswith("<ModelUpdate WARM_START, kept: val_acc 0.25 -> ")
    lines = str(result).splitlines()
    assert lines[0] in repr(result)
    assert lines[1] == f"reason: {result.reason}"
    assert lines[2] == "not offered: REPLAY, as no buffer was given"
    assert lines[-1] == f"ledger: {result.ledger}"
    assert "<td>update</td>" in result._repr_html_()


def test_nothing_is_trained_where_nothing_can_be_gained():
    good = update(model()).model
    given = update(good, policy=WARM, max_epochs=20).model
    assert update(given).metric_after == pytest.approx(1.0)
    result = update(given)
    assert (result.update_mode, result.steps, result.kept) == (UpdateMode.SKIP, 0, False)
    assert result.model is given
    assert result.metric_after == result.metric_before == pytest.approx(1.0)
    assert "nothing trained" in repr(result)


def test_a_worse_model_is_not_kept():
    class Unlearns(Sized):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.5, maximize=True)

    start = update(model()).model
    given = Unlearns(4)
    given.load_state_dict(start.state_dict())
    result = update(given, policy=WARM)
    assert (result.update_mode, result.kept) == (UpdateMode.WARM_START, False)
    assert result.model is given
    assert result.metric_after == result.metric_before > 0.9
    assert "not kept: it is worse in val_acc" in result.reason


def test_a_model_that_learns_the_new_and_forgets_the_old_is_not_kept():
    """Old and new samples differ so much that the loss is within one standard error."""

    def renamed(count: int, seed: int) -> TensorDataset:
        samples, labels = blobs((0, 1), count, seed).tensors
        return TensorDataset(samples, labels + 2)

    given = update(model(), blobs((0, 1), 40), val=blobs((0, 1), 20), policy=WARM).model
    val = ConcatDataset([blobs((0, 1), 32, 5), renamed(20, 6)])
    result = update(given, renamed(40, 7), val=val, policy=WARM, max_epochs=20)
    assert result.metric_before == pytest.approx(64 / 104, abs=0.03)
    assert (result.steps, result.kept, result.model) == (20 * 3, False, given)
    assert result.metric_after == result.metric_before


@pytest.mark.filterwarnings("ignore:BudgetGuard.*over the cap")
@pytest.mark.filterwarnings("ignore:BudgetGuard.*more than its cap")
@pytest.mark.parametrize("budget", ["0.001 J", "2 J", "8 J"])
def test_a_budget_that_does_not_pay_for_a_comparison_trains_nothing(budget):
    given = model()
    result = update(given, budget=budget)
    assert (result.update_mode, result.steps, result.model) == (UpdateMode.SKIP, 0, given)
    assert " left" in result.reason
    assert result.total_j <= Budget.parse(budget).energy_j + result.overrun_j


@pytest.mark.filterwarnings("ignore:BudgetGuard.*over the cap")
@pytest.mark.parametrize("budget_j", [20, 30, 40])
def test_the_budget_is_a_cap(budget_j):
    clock = Clock()
    result = update(model(), budget=f"{budget_j} J", clock=clock)
    assert 100.0 * clock.seconds <= budget_j + result.overrun_j
    assert result.left_j <= budget_j


# Data.


def test_a_loader_keeps_its_batches_and_collation():
    def collate(samples):
        batch = torch.utils.data.default_collate(samples)
        assert len(samples) <= 16
        return [batch[0].double().float(), batch[1]]

    loader = DataLoader(NEW, batch_size=16, shuffle=True, drop_last=True, collate_fn=collate)
    result = update(model(), loader)
    assert set(result.model.sizes) == {16}
    assert result.steps == 4 * 10


def test_held_out_data_may_have_a_loader_with_another_collation():
    def as_dict(samples):
        columns = torch.utils.data.default_collate(samples)
        return {"samples": columns[0], "labels": columns[1]}

    class Mixed(Sized):
        def validation_step(self, batch, batch_idx):
            super().validation_step((batch["samples"], batch["labels"]), batch_idx)

    loader = DataLoader(NEW, batch_size=16)
    result = update(model(Mixed), loader, val=DataLoader(VAL, batch_size=8, collate_fn=as_dict))
    assert result.kept
    assert set(result.model.sizes) == {16}


def test_a_dataset_has_the_options_of_the_loader_next_to_it():
    result = update(model(), val=DataLoader(VAL, batch_size=8))
    assert set(result.model.sizes) == {8}


def test_a_loader_of_a_subset_gives_the_subset():
    loader = DataLoader(NEW, batch_size=8, sampler=SubsetRandomSampler(range(32)))
    assert update(model(), loader, max_epochs=2).steps == 2 * 4


def test_a_weighted_sampler_is_used_without_a_buffer():
    weighted = [1.0 if int(label) == 0 else 0.0 for label in NEW.tensors[1]]
    sampler = WeightedRandomSampler(weighted, 64)
    seen: set[int] = set()

    class Notes(Sized):
        def training_step(self, batch, batch_idx):
            seen.update(batch[1].tolist())
            return super().training_step(batch, batch_idx)

    update(model(Notes), DataLoader(NEW, batch_size=8, sampler=sampler), policy=WARM)
    assert seen == {0}


class Module(LightningDataModule):
    """A data module that notes the calls of its hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def prepare_data(self):
        self.calls.append("prepare_data")

    def setup(self, stage):
        self.calls.append(f"setup {stage}")

    def teardown(self, stage):
        self.calls.append(f"teardown {stage}")

    def train_dataloader(self):
        return DataLoader(NEW, batch_size=16)

    def val_dataloader(self):
        return DataLoader(VAL, batch_size=16)


def test_a_data_module_gives_both_loaders():
    module = Module()
    result = update(model(), module, val=None)
    assert result.kept
    assert set(result.model.sizes) == {16}
    assert module.calls == ["prepare_data", "setup fit", "teardown fit"]


def test_a_data_module_is_torn_down_after_an_error():
    module = Module()
    with pytest.raises(ConfigurationError, match="val_los"):
        update(model(), module, val=None, monitor="val_los")
    assert module.calls[-1] == "teardown fit"


def test_a_data_module_may_use_its_trainer_and_give_a_list_of_one_loader():
    class Ranks(Module):
        def train_dataloader(self):
            return DataLoader(NEW, batch_size=16 // self.trainer.world_size)

        def val_dataloader(self):
            return [super().val_dataloader()]

    module = Ranks()
    assert update(model(), module, val=None).kept
    assert module.trainer is None
    module.trainer = own = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert update(model(), module, val=None).kept
    assert module.trainer is own


def test_a_data_module_whose_data_cannot_be_read_is_torn_down():
    class Empty(Module):
        def val_dataloader(self):
            return []

    module = Empty()
    with pytest.raises(ConfigurationError, match="Empty has no val_dataloader"):
        update(model(), module, val=None)
    assert module.calls[-1] == "teardown fit"
    assert module.trainer is None


@pytest.mark.parametrize("hook", ["train_dataloader", "val_dataloader"])
def test_a_data_module_without_a_loader_is_refused(hook):
    methods = {name: each for name, each in vars(Module).items() if name != hook}
    part = type("Part", (LightningDataModule,), {**methods, "__init__": lambda self: None})
    module = part()
    module.__dict__.update(vars(Module()))
    with pytest.raises(ConfigurationError, match=f"Part has no {hook}.*return a DataLoader"):
        update(model(), module, val=None)
    if hook == "val_dataloader":
        assert update(model(), module).kept


def test_a_data_module_whose_teardown_fails_loses_no_paid_result():
    class Fails(Module):
        def teardown(self, stage):
            raise RuntimeError("the share is busy")

    with pytest.warns(UserWarning, match="Fails.teardown failed.*the share is busy"):
        result = update(model(), Fails(), val=None)
    assert result.kept and result.total_j > 0


def test_hooks_of_a_data_module_are_refused():
    class Scales(Module):
        def on_after_batch_transfer(self, batch, dataloader_idx):
            return batch

    with pytest.raises(ConfigurationError, match=r"overrides on_after_batch_transfer.*move"):
        update(model(), Scales(), val=None)


class Endless(IterableDataset):
    def __iter__(self):
        yield from NEW


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val": None}, "val is missing"),
        ({"val": TensorDataset(torch.zeros(0, 2))}, "val holds no samples"),
        ({"new_data": TensorDataset(torch.zeros(0, 2))}, "new_data holds no samples"),
        ({"new_data": DataLoader(TensorDataset(torch.zeros(0, 2)))}, "new_data holds no samples"),
        ({"new_data": None}, "new_data is None"),
        ({"new_data": torch.zeros(9, 2)}, r"new_data is a Tensor.*TensorDataset\(inputs"),
        ({"new_data": np.zeros((9, 2))}, "new_data is a ndarray"),
        ({"new_data": {"x": 1}}, "new_data is a dict"),
        ({"new_data": "images/"}, "new_data is a str"),
        ({"val": (torch.zeros(9, 2), torch.zeros(9))}, "val is a tuple of tensors"),
        ({"new_data": Endless()}, "IterableDataset"),
        ({"new_data": DataLoader(Endless())}, "IterableDataset"),
        ({"new_data": DataLoader(NEW, batch_size=None)}, "its own batches"),
        ({"new_data": [DataLoader(NEW), DataLoader(NEW)]}, "new_data has 2 loaders"),
        ({"val": [DataLoader(VAL), DataLoader(VAL)]}, "val has 2 loaders"),
        ({"val": DataLoader(VAL, sampler=WeightedRandomSampler([1.0], 9))}, "val has a sampler"),
        (
            {
                "new_data": DataLoader(NEW, sampler=WeightedRandomSampler([1.0], 9)),
                "buffer": "all",
            },
            "give buffer=None",
        ),
    ],
)
def test_data_that_cannot_be_used_are_refused(changes, message, tmp_path):
    data = {"new_data": NEW, **changes}
    with pytest.raises(ConfigurationError, match=message):
        update(model(), data.pop("new_data"), **data)
    assert not (tmp_path / "greentrain_logs").exists()


# The metric.


def test_a_metric_among_several_has_to_be_named(tmp_path):
    with pytest.raises(ConfigurationError, match="one of `val_acc`, `val_loss`"):
        update(model(Classifier))
    with pytest.raises(ConfigurationError, match=r"no 'val_ac'.*`val_acc`, `val_loss`"):
        update(model(Classifier), monitor="val_ac")
    assert not (tmp_path / "greentrain_logs").exists()
    result = update(model(Classifier), monitor="val_loss")  # a loss: less is better
    assert result.kept
    assert result.metric_after < result.metric_before


def test_a_direction_that_the_name_does_not_show_has_to_be_given():
    class Scored(Sized):
        def validation_step(self, batch, batch_idx):
            samples, labels = batch
            right = (self.layer(samples).argmax(1) == labels).float().mean()
            self.log("val_quality", right, on_step=True, on_epoch=True)

    with pytest.raises(ConfigurationError, match=r"mode is missing.*'val_quality'"):
        update(model(Scored))
    with pytest.raises(ConfigurationError, match="allowed are 'max' and 'min'"):
        update(model(Scored), mode="maximum")
    assert update(model(Scored), mode="max").metric_after > 0.9


def test_a_model_that_logs_nothing_is_refused():
    class Silent(Sized):
        def validation_step(self, batch, batch_idx):
            pass

    with pytest.raises(ConfigurationError, match="logs nothing in validation"):
        update(model(Silent))


def test_a_metric_of_steps_alone_is_named_with_the_fix():
    class OfSteps(Sized):
        def validation_step(self, batch, batch_idx):
            self.log("val_acc", 0.5, on_step=True, on_epoch=False)

    for monitor in (None, "val_acc"):
        with pytest.raises(ConfigurationError, match=r"'val_acc'.*on_epoch=False.*on_epoch=True"):
            update(model(OfSteps), monitor=monitor)


def test_a_metric_of_each_batch_is_refused_with_the_name_of_the_epochs_value():
    class Both(Sized):
        def validation_step(self, batch, batch_idx):
            self.log("val_acc", 0.5, on_step=True, on_epoch=True)

    with pytest.raises(ConfigurationError, match="'val_acc_epoch' or 'val_acc': give monitor='val"):
        update(model(Both), monitor="val_acc_step")


def test_a_metric_that_is_nan_on_all_samples_is_refused_before_anything_is_paid(tmp_path):
    class Empty(Sized):
        def validation_step(self, batch, batch_idx):
            self.log("val_acc", torch.tensor(float("nan")))

    clock = Clock()
    with pytest.raises(ConfigurationError, match="'val_acc' is NaN on all held-out samples"):
        update(model(Empty), clock=clock, callbacks=[Tick(clock)])
    assert clock.seconds == 0.0
    assert not (tmp_path / "greentrain_logs").exists()


class Recall(Sized):
    """Logs a metric only for batches with the last class."""

    def validation_step(self, batch, batch_idx):
        samples, labels = batch
        if (labels == 3).any():
            right = self.layer(samples).argmax(1) == labels
            self.log("val_recall", right[labels == 3].float().mean())


def test_a_metric_of_some_batches_is_found_in_sorted_data():
    assert int(VAL.tensors[1][0]) == 0  # the held-out samples are sorted by their class
    result = update(model(Recall), policy=WARM)
    assert (result.monitor, result.kept, result.metric_before) == ("val_recall", True, 0.0)
    assert result.metric_after > 0.9
    rare = ConcatDataset([blobs((0,), 400, 3), blobs((3,), 20, 4), blobs((1,), 80, 5)])
    assert update(model(Recall), val=rare, policy=WARM).kept


def test_a_plateau_of_any_validation_metric_is_refused_before_anything_is_paid(tmp_path):
    class Plateau(Sized):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("quality", 1.0)

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
            schedule = {"scheduler": ReduceLROnPlateau(optimizer), "monitor": "quality"}
            return {"optimizer": optimizer, "lr_scheduler": schedule}

    clock = Clock()
    with pytest.raises(ConfigurationError, match="a ReduceLROnPlateau of 'quality'"):
        update(model(Plateau), monitor="val_acc", clock=clock)
    assert clock.seconds == 0.0  # nothing was trained
    assert not (tmp_path / "greentrain_logs").exists()


def test_weights_that_cannot_be_compared_are_refused():
    given = model()
    given.other = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(ConfigurationError, match="float8"):
        update(given)


# The model.


class Blind(LightningModule):
    """A model without validation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)


def frozen() -> LightningModule:
    made = model()
    made.freeze()
    return made


def with_file() -> LightningModule:
    made = model()
    made.writer = (each for each in ())
    return made


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Sized, r"model is the class Sized; give an instance.*load_from_checkpoint"),
        (nn.Linear(2, 4), "model is a Linear"),
        (None, "model is a NoneType"),
        (Blind(), "Blind has no validation_step"),
        (frozen(), "all are frozen"),
        (model().to("meta"), "on the meta device"),
        (with_file(), "because of its attribute 'writer'"),
    ],
    ids=["class", "module", "none", "blind", "frozen", "meta", "generator"],
)
def test_a_model_that_cannot_be_updated_is_refused(given, message):
    with pytest.raises(ConfigurationError, match=message):
        update(given)


def test_a_model_with_a_nan_is_refused(tmp_path):
    given = model()
    with torch.no_grad():
        given.layer.weight[0, 0] = torch.nan
    with pytest.raises(ConfigurationError, match="a weight that is NaN or infinite"):
        update(given)
    assert not (tmp_path / "greentrain_logs").exists()


class Flat(Sized):
    def __init__(self, classes=4):
        super().__init__(classes)
        self.layer = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, classes))


class Long(Flat):
    """Normalises ten values of each channel, so that one sample is enough."""

    def __init__(self):
        super().__init__()
        first = nn.Sequential(nn.Unflatten(1, (2, 1)), nn.Upsample(10), nn.BatchNorm1d(2))
        self.layer = nn.Sequential(first, nn.Flatten(), nn.Linear(20, 4))


ONE = Subset(NEW, [0])


@pytest.mark.parametrize("new_data", [ONE, DataLoader(NEW, batch_size=1)])
def test_a_batch_of_one_sample_cannot_be_normalised(new_data, tmp_path):
    with pytest.raises(ConfigurationError, match=r"normalises batches in 'layer.0'.*two samples"):
        update(Flat(), new_data)
    assert not (tmp_path / "greentrain_logs").exists()
    update(Long(), new_data, max_epochs=1)
    still = Flat()
    still.layer[0].eval()
    update(still, new_data, max_epochs=1)


def test_a_model_in_evaluation_mode_is_trained_and_returned_in_it():
    class Dropping(Sized):
        def __init__(self, classes):
            super().__init__(classes)
            self.dropout = nn.Dropout(0.1)
            self.dropped: set[bool] = set()

        def training_step(self, batch, batch_idx):
            self.dropped.add(self.dropout.training)
            return super().training_step(batch, batch_idx)

    given = model(Dropping).eval()
    result = update(given)
    assert result.kept
    assert result.model.dropped == {True}
    assert not result.model.training
    assert not result.model.dropout.training
    assert not given.training


def test_layers_that_the_user_put_into_evaluation_mode_stay_in_it():
    class Normed(Sized):
        def __init__(self, classes):
            super().__init__(classes)
            self.norm = nn.BatchNorm1d(2).eval()

        def training_step(self, batch, batch_idx):
            assert not self.norm.training
            return super().training_step(batch, batch_idx)

    assert update(model(Normed)).kept


def test_a_compiled_model_is_updated_without_its_compilation():
    plain = model()
    compiled = torch.compile(plain, backend="eager")
    result = update(compiled)
    assert result.kept
    assert type(result.model) is Sized
    assert result.metric_before == 0.25


def test_a_model_that_a_trainer_compiled_is_not_called_through_its_copy():
    plain = model()
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.fit(torch.compile(plain, backend="eager"), DataLoader(NEW, batch_size=80))
    before, batches = weights(plain), len(plain.sizes)
    result = update(plain, policy=WARM)
    assert equal(before, weights(plain))
    assert len(plain.sizes) == batches
    assert not equal(before, weights(result.model))


def test_the_updated_model_can_be_saved_as_a_checkpoint(tmp_path):
    class Saved(Sized):
        def __init__(self, classes):
            super().__init__(classes)
            self.save_hyperparameters()

    result = update(model(Saved))
    result.model.trainer.save_checkpoint(tmp_path / "updated.ckpt")
    loaded = Saved.load_from_checkpoint(tmp_path / "updated.ckpt", weights_only=False)
    assert equal(weights(loaded), weights(result.model))


# Trainers, schedules and loggers.


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"max_epochs": 3}}, "give the options themselves"),
        ({"max_steps": 10}, "max_steps cannot be given"),
        ({"max_epochs": -1}, "max_epochs=-1"),
        ({"epochs": 3}, "unexpected keyword argument 'epochs'"),
        ({"logger": True}, "logger is True"),
        ({"budget": 5}, "the budget is 5; write a text"),
        ({"budget": "5"}, "alone says no unit"),
        ({"budget": "2 gCO2e"}, "needs a carbon intensity"),
        ({"carbon": "DE"}, r"CarbonConfig\(zone='DE'\)"),
        ({"first_step": "5"}, "first_step is '5'"),
        ({"policy": PricedPolicy}, "it is a class"),
        ({"ledger": False}, "ledger is False"),
        ({"meter": "best"}, "meter is 'best', and that is no meter"),
        ({"buffer": 100}, r"ReservoirBuffer\(100\)"),
        ({"make_model": 3}, "make_model is 3"),
        ({"meter": ConstantMeter}, "meter is <class"),
        ({"first_step": -1}, "first_step is -1"),
        ({"make_model": lambda: Sized(2)}, "do not fit"),
        ({"fast_dev_run": True}, "fast_dev_run cannot be given"),
        ({"overfit_batches": 2}, "overfit_batches cannot be given"),
        ({"callbacks": [ModelCheckpoint()]}, r"save that one: torch\.save"),
        ({"callbacks": [EarlyStopping("val_acc")]}, "EarlyStopping on 'val_acc'"),
        ({"callbacks": [EnergyMonitor()]}, "EnergyMonitor, and update measures"),
    ],
)
def test_options_that_cannot_be_used_are_refused(changes, message, tmp_path):
    with pytest.raises(ConfigurationError, match=message):
        update(model(), **changes)
    assert not (tmp_path / "greentrain_logs").exists()


def test_a_trainer_is_refused():
    made = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    with pytest.raises(ConfigurationError, match="trainer is a Trainer, and an update needs"):
        update(model(), trainer=made)


def test_the_schedule_is_fresh_and_ends_with_the_further_epochs():
    class Scheduled(Sized):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.5)
            self.total = int(self.trainer.estimated_stepping_batches)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=self.total)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    given = model(Scheduled)
    trainer = Trainer(max_epochs=2, logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.fit(given, DataLoader(NEW, batch_size=32))
    result = update(given, policy=WARM, max_epochs=3)
    assert result.steps == result.model.total == 3 * 5


class Curves(Sized):
    """A model that logs a training loss, too."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("loss", loss)
        return loss


def steps(logger: CSVLogger) -> list[int]:
    logger.save()
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row.get("loss")]


def test_a_logger_continues_after_the_earlier_training(tmp_path):
    logger, given = CSVLogger(tmp_path), model(Curves)
    options = {"logger": logger, "log_every_n_steps": 1, "accelerator": "cpu"}
    trainer = Trainer(max_epochs=2, enable_checkpointing=False, **options)
    trainer.fit(given, DataLoader(NEW, batch_size=32))
    assert steps(logger) == list(range(10))
    first = update(given, policy=WARM, max_epochs=2, **options)
    assert first.logged_steps == 20
    assert steps(logger) == list(range(20))  # the calibration is not among them
    update(given, policy=WARM, max_epochs=1, **options)  # the given one again, same logger
    assert steps(logger) == list(range(25))


def test_a_logger_continues_from_a_given_step(tmp_path):
    logger = CSVLogger(tmp_path)
    result = update(
        model(Curves), policy=WARM, max_epochs=1, logger=logger, log_every_n_steps=1, first_step=100
    )
    assert steps(logger) == list(range(100, 105))
    assert result.logged_steps == 105


def test_a_logger_of_a_later_process_continues_from_the_state(tmp_path):
    for start in (0, 5):
        logger = CSVLogger(tmp_path)
        update(
            model(Curves),
            policy=WARM,
            max_epochs=1,
            logger=logger,
            log_every_n_steps=1,
            state_dir="state",
        )
        assert steps(logger) == list(range(start, start + 5))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking a process with threads
def test_an_update_by_two_ranks_is_kept(tmp_path, monkeypatch):
    """Forked ranks return the weights, and no attributes of callbacks."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        monkeypatch.setenv("MASTER_PORT", str(probe.getsockname()[1]))
    logger = CSVLogger(tmp_path)
    result = update(
        model(Curves),
        policy=WARM,
        callbacks=[],
        meter=ConstantMeter(100.0),
        logger=logger,
        log_every_n_steps=1,
        devices=2,
        strategy="ddp_fork",
    )
    assert result.kept
    assert result.metric_after > result.metric_before
    assert result.logged_steps >= 4 * 3


# Buffers, states and budgets.


def test_past_data_make_replay_possible():
    buffer = FullBuffer()
    buffer.add(blobs((0, 1), 20), origin="before")
    result = update(model(), buffer=buffer, policy=Always(mode=UpdateMode.REPLAY))
    assert (result.update_mode, result.kept) == (UpdateMode.REPLAY, True)
    assert set(result.not_offered) == {UpdateMode.FULL_RETRAIN}


def test_a_full_retraining_needs_fresh_weights_and_past_data():
    full = Always(mode=UpdateMode.FULL_RETRAIN)
    made: list[LightningModule] = []

    def fresh() -> LightningModule:
        made.append(Sized(4))
        return made[-1]

    assert update(model(), policy=full, make_model=fresh).update_mode is UpdateMode.SKIP
    buffer = FullBuffer()
    buffer.add(blobs((0, 1), 20), origin="before")
    refused = update(model(), policy=full, buffer=buffer)
    assert refused.update_mode is UpdateMode.SKIP
    assert "make_model was not given" in refused.not_offered[UpdateMode.FULL_RETRAIN]
    result = update(model(), policy=full, buffer=buffer, make_model=fresh)
    assert (result.update_mode, result.kept) == (UpdateMode.FULL_RETRAIN, True)
    assert result.model in made
    assert not result.not_offered


def test_a_warm_start_begins_with_the_given_weights_and_settings():
    given = model()
    given.layer.bias.requires_grad_(False)  # a new model would train it
    result = update(given, policy=WARM, make_model=lambda: Sized(4))
    assert result.kept
    assert torch.equal(result.model.layer.bias, given.layer.bias)


def test_later_calls_continue_with_everything_learned():
    first = update(model(), blobs((0, 1), 40), state_dir="state", buffer="all")
    assert first.ledger == "state/greentrain.db"
    assert phases(first.ledger)["calibration"] > 0
    before = phases(first.ledger)["calibration"]
    second = update(first.model, state_dir="state", buffer="all")
    assert second.ledger == first.ledger
    assert UpdateMode.REPLAY not in second.not_offered  # the first data are in the buffer
    assert phases(second.ledger)["calibration"] == before
    ledger = open_ledger(second.ledger)
    assert [row["position"] for row in ledger.rows("outcome")] == [0, 1]
    assert verify(ledger).ok
    ledger.close()


def test_an_amount_is_for_each_call_and_a_budget_for_all_of_them():
    one = [update(model(), state_dir="one", policy=WARM) for _ in range(2)]
    assert one[1].left_j == pytest.approx(2000.0 - one[1].total_j)
    budget = Budget.parse("2000 J", num_experiences=10)
    all_ = [update(model(), state_dir="all", policy=WARM, budget=budget) for _ in range(2)]
    assert all_[1].left_j == pytest.approx(2000.0 - all_[0].total_j - all_[1].total_j)


def test_updates_in_one_ledger_have_their_own_budgets(tmp_path):
    url = f"sqlite:///{tmp_path / 'all.db'}"
    results = [update(model(), ledger=url) for _ in range(2)]
    assert all(each.left_j == pytest.approx(2000.0 - each.total_j) for each in results)
    assert results[0].ledger == str(tmp_path / "all.db")
    ledger = open_ledger(results[0].ledger)
    assert verify(ledger).ok
    ledger.close()


def test_the_given_weights_are_the_start_also_with_a_saved_state():
    update(model(), state_dir="state")
    result = update(model(), state_dir="state")
    assert result.metric_before == 0.25


def test_an_update_that_fails_leaves_the_state_free_and_its_joules_spent():
    class Fails(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == 15:  # after the calibration's steps
                raise RuntimeError("no more")

    clock = Clock()
    with pytest.raises(RuntimeError, match="no more"):
        update(
            model(), state_dir="state", policy=WARM, clock=clock, callbacks=[Tick(clock), Fails()]
        )
    spent_j = 100.0 * clock.seconds
    result = update(model(), state_dir="state", policy=WARM)
    assert result.kept
    assert result.left_j == pytest.approx(2000.0 - spent_j - result.total_j)


@pytest.mark.parametrize("state_dir", [None, "state"])
def test_each_error_is_raised_and_nothing_is_set_aside(state_dir, caplog):
    class Fails(Sized):
        error = ""

        def training_step(self, batch, batch_idx):
            if Fails.error:
                raise RuntimeError(Fails.error)
            return super().training_step(batch, batch_idx)

    for Fails.error in ("first", "another", "a third"):
        with pytest.raises(RuntimeError, match=Fails.error):
            update(model(Fails), state_dir=state_dir)
    assert "set aside" not in caplog.text
    Fails.error = ""
    assert update(model(Fails), state_dir=state_dir).kept


def test_a_state_of_another_model_is_refused():
    update(model(), state_dir="state")
    with pytest.raises(ConfigurationError, match="do not fit the given model"):
        update(Sized(5), state_dir="state")


def test_the_evaluation_takes_time_too():
    clock = Clock()
    result = update(model(timed(clock, Classifier)), monitor="val_acc", clock=clock)
    before_j = 100.0 * BATCH * PROBE_S  # to find the metric, before the budget is opened
    assert result.total_j + before_j == pytest.approx(100.0 * clock.seconds)
