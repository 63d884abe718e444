"""``EarlyExit``: what is trained, what validation runs, and what is refused."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn

from greentrain.callbacks import BudgetGuard, EarlyExit, EnergyMonitor
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.methods import MixtureOfExperts, SkipBlocks, auxiliary_loss
from greentrain.report import build, render_html
from tests.callbacks.forks import FORKS, free_port  # noqa: F401 (a fixture that is used)
from tests.models import Clock, Tick, constant_meter, loader, trainer
from tests.report.test_core import valid

EXAMPLE = torch.zeros(1, 2)


class Deep(LightningModule):
    """Two layers and a batch normalisation, or gates and experts between them."""

    def __init__(self, *middle: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU())
        self.middle = nn.Sequential(*middle)
        self.last = nn.Linear(8, 4)
        self.rows: list[int] = []

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        inner = self.middle(self.first(samples))
        self.rows.append(len(inner))
        return self.last(inner)

    def training_step(self, batch, batch_idx):
        samples, labels = batch
        loss = nn.functional.cross_entropy(self(samples), labels) + 0.1 * auxiliary_loss(self)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        samples, labels = batch
        self.log("val_acc", (self(samples).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.2)


def exits(**given) -> EarlyExit:
    return EarlyExit(["first"], **{"classes": 4, "example": EXAMPLE, **given})


def test_heads_alone_are_trained_on_frozen_features():
    model = Deep(nn.Dropout(0.5))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    callback = exits(train="heads")
    trainer(callback, max_epochs=3).fit(model, loader())
    after = model.state_dict()
    changed = {name for name in after if name not in before or not after[name].equal(before[name])}
    assert {name.partition(".")[0] for name in changed} == {"early_exits"}
    assert all(each.requires_grad for each in model.parameters())
    assert model.middle[0].training
    assert "training_step" not in vars(model)
    # The four corners are far apart, so that the first layer is enough.
    samples, labels = (torch.cat(parts) for parts in zip(*loader(), strict=True))
    found = callback.heads.predict(model.eval(), samples, threshold=0.0)
    assert (found.logits.argmax(1) == labels).float().mean() > 0.8
    assert model.rows[-1] == 8  # no later layer has run since the fit


def test_validation_leaves_early_and_the_module_gets_its_forward_back():
    model = Deep()
    early = exits(threshold=0.0, validate=True)
    fitted = trainer(early, num_sanity_val_steps=0, max_epochs=1)
    fitted.fit(model, loader(), loader(16))
    # The example and the batches of training; validation runs the first layer only.
    assert model.rows == [1, *[8] * 20]
    samples, labels = (torch.cat(parts) for parts in zip(*loader(16), strict=True))
    found = early.heads.predict(model.eval(), samples, threshold=0.0).logits.argmax(1)
    accuracy = float((found == labels).float().mean())
    assert float(fitted.callback_metrics["val_acc"]) == pytest.approx(accuracy)
    assert "forward" not in vars(model)
    copy.deepcopy(model)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_it_works_with_guard_ledger_precision_accumulation_and_checkpoints(tmp_path):
    clock, url = Clock(), f"sqlite:///{tmp_path}/ledger.db"
    gates = SkipBlocks([nn.Linear(8, 8), nn.Linear(8, 8)], channels=8)
    model = Deep(gates, MixtureOfExperts(8, 8, experts=2))
    meter = constant_meter(clock)
    saved = ModelCheckpoint(tmp_path / "saved", save_last=True)
    callbacks = (exits(), EnergyMonitor(meter, ledger=url), BudgetGuard("100 J", meter=meter))
    options = {"precision": "bf16-mixed", "accumulate_grad_batches": 2}
    fitted = trainer(*callbacks, Tick(clock), saved, enable_checkpointing=True, **options)
    fitted.fit(model, loader(), loader(4))
    assert fitted.global_step == 20
    ledger = Ledger(url, create=False)
    assert verify(ledger).ok
    ledger.close()
    resumed = Deep(copy.deepcopy(gates), MixtureOfExperts(8, 8, experts=2))
    again = exits()
    last = trainer(again, max_epochs=2, **options)
    last.fit(resumed, loader(), ckpt_path=saved.last_model_path)  # nothing is left to train
    assert all(
        torch.equal(one, two)
        for one, two in zip(model.parameters(), resumed.parameters(), strict=True)
    )


@FORKS
def test_two_processes_train_the_same_weights(tmp_path):
    model = Deep(SkipBlocks([nn.Linear(8, 8)], channels=8), MixtureOfExperts(8, 8, experts=4))
    saved = ModelCheckpoint(tmp_path / "saved", save_last=True)
    options = {"strategy": "ddp_fork", "devices": 2, "default_root_dir": tmp_path}
    options |= {"enable_checkpointing": True, "max_steps": 3}
    trainer(exits(), saved, **options).fit(model, loader())
    weights = torch.load(tmp_path / "saved" / "last.ckpt", weights_only=False)["state_dict"]
    # Both had the same gradients of all heads, gates and experts, or the fit had failed.
    assert not torch.equal(weights["early_exits.heads.0.1.bias"], torch.zeros(4))
    assert all(each.isfinite().all() for name, each in weights.items() if "threshold" not in name)


class Fixed(Deep):
    def configure_optimizers(self):
        return torch.optim.SGD(self.last.parameters(), lr=0.2)


class Partial(Deep):
    def training_step(self, batch, batch_idx):
        return super().training_step([each[:2] for each in batch], batch_idx)


class Manual(Deep):
    automatic_optimization = False


@pytest.mark.parametrize(
    ("model", "given", "sentence"),
    [
        (Deep, {"layers": ["frist"]}, "has no layer 'frist'; the nearest names are 'first'"),
        (Deep, {"example": None}, "give example=, a batch of inputs"),
        (Fixed, {}, "the optimizer lacks the weights of the early exits"),
        (Partial, {}, "does not run the layer 'first' on the 8 samples of its batch"),
        (Manual, {}, "manual optimization"),
        (Deep, {"labels": lambda batch: batch[1][:3]}, "on the 3 samples"),
    ],
)
def test_a_fit_that_cannot_train_exits_is_refused(model, given, sentence):
    given = {"layers": ["first"], "classes": 4, "example": EXAMPLE, **given}
    module = model()
    with pytest.raises(ConfigurationError, match=sentence):
        trainer(EarlyExit(**given), max_epochs=1).fit(module, loader())
    assert "training_step" not in vars(module)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"layers": "first"}, "give a list of names"),
        ({"layers": []}, "one or more"),
        ({"train": "all"}, "must be one of joint, heads"),
        ({"weight": 0}, "weight is 0; it must be above 0"),
        ({"weight": "much"}, "must be a number"),
        ({"threshold": 1.5}, "threshold is 1.5; it must be from 0 to 1"),
        ({"validate": True}, "needs a threshold"),
    ],
)
def test_unusable_arguments_are_refused(given, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        EarlyExit(**{"layers": ["first"], "classes": 4, **given})


def test_a_report_has_joules_by_threshold(tmp_path):
    clock, url = Clock(), f"sqlite:///{tmp_path / 'exits.db'}"
    monitor = EnergyMonitor(constant_meter(clock), ledger=url, summary=False)
    model, data = Deep(), loader(count=8)  # 32 samples in 4 batches
    tick = Tick(clock, validation_s=0.02)
    fit = trainer(monitor, tick, exits(table=True), limit_val_batches=1.0, num_sanity_val_steps=0)
    fit.fit(model, data, data)
    ledger = Ledger(url, create=False)
    try:
        report = build(ledger)
    finally:
        ledger.close()
    assert valid(report)
    [run] = report["runs"]
    first, *_, whole = run["exits"]
    # 100 W for 4 batches of 0.02 s are 8 J for 32 samples: 250 J for 1,000 of them.
    assert whole["threshold"] is None
    assert whole["energy_j"] == pytest.approx(250.0)
    assert first["energy_j"] == pytest.approx(250.0 * first["operations"] / whole["operations"])
    assert first["threshold"] == 0.5
    page = render_html(report)
    assert "Per 1,000 predictions" in page
    assert "full module" in page
    with pytest.raises(ConfigurationError, match="needs validation data"):
        trainer(EnergyMonitor(constant_meter(clock), ledger=url), exits(table=True)).fit(
            Deep(), data
        )
