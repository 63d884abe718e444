"""An estimate of a fit from a few steps of a copy."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as other
import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from greentrain.callbacks import EnergyMonitor, fit_estimate
from greentrain.energy import ConstantMeter, UnknownMeter
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from tests.models import Classifier, blobs, loader

CPU = {"max_epochs": 3, "accelerator": "cpu"}
NOW = [0.0]
"""A clock outside of the model, of which a copy is trained."""


class Slow(Classifier):
    """Takes 0.01 s for each training batch, and 0.1 s for each validation batch."""

    def training_step(self, batch, batch_idx):
        NOW[0] += 0.01
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        NOW[0] += 0.1
        super().validation_step(batch, batch_idx)


class OfLightning(other.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 4)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.layer(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def estimate(model: Any = None, *loaders: Any, **options: Any) -> Any:
    meter = ConstantMeter(10.0, clock=lambda: NOW[0])
    given = {"trainer": CPU, "seconds": 0.5, "meter": meter, "ledger": False, **options}
    return EnergyMonitor.estimate(model or Slow(), *(loaders or (loader(),)), **given)


def test_joules_are_those_worked_out_by_hand() -> None:
    found = estimate()
    assert found.steps == 60  # 160 samples in batches of 8, for 3 epochs
    assert found.measured_steps == 50  # 0.5 s of 0.01 s
    assert found.step.mean_j == pytest.approx(0.1)
    assert found.fit.mean_j == pytest.approx(6.0)
    assert found.fit.low_j < 6.0 < found.fit.high_j
    assert (found.complete, found.emissions_g, found.ledger_url) == (True, None, None)
    assert str(found).startswith("6 J for 60 steps (95 %: ")


def test_a_validation_of_each_epoch_is_added() -> None:
    found = estimate(None, loader(), loader(count=4))  # 2 batches of 0.1 s at 10 W are 2 J
    assert found.fit.mean_j == pytest.approx(6.0 + 3 * 2.0)
    assert found.step.mean_j == pytest.approx(0.1)


def test_its_own_energy_is_a_run_of_the_ledger(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    found = estimate(ledger=url, zone="DE", pue=1.5)
    ledger = Ledger(url, create=False)
    (run,) = ledger.rows("run")
    windows = ledger.rows("window")
    ledger.close()
    assert (run["name"], found.ledger_url) == ("estimate of Slow", url)
    assert sum(row["energy_j"] for row in windows) == pytest.approx(found.used_j)
    grams = sum(row["emissions_g"] for row in windows) / found.used_j
    assert found.emissions_g == pytest.approx(grams * found.fit.mean_j)
    assert "CO2e" in str(found)


def test_model_random_state_and_loader_are_left_alone() -> None:
    model = Slow()
    shuffled = DataLoader(
        blobs(range(4), 40), shuffle=True, batch_size=8, generator=torch.Generator().manual_seed(3)
    )
    weights = {name: each.clone() for name, each in model.state_dict().items()}
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    of_loader = shuffled.generator.get_state()
    estimate(model, shuffled)
    assert all(torch.equal(weights[name], each) for name, each in model.state_dict().items())
    assert model.training and model._trainer is None and model.rates == []
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert torch.equal(shuffled.generator.get_state(), of_loader)
    Trainer(**{**CPU, "max_epochs": 1}, logger=False, enable_checkpointing=False).fit(
        model, shuffled
    )


def test_a_fit_that_max_steps_ends_is_estimated_up_to_there() -> None:
    limited = {**CPU, "max_steps": 24, "accumulate_grad_batches": 3}
    found = estimate(None, loader(), loader(count=4), trainer=limited)
    # 20 batches an epoch are 6 updates of 3 and one of 2, so 24 updates are 3 epochs and 3 updates
    assert found.steps == 60  # but max_epochs is 3
    found = estimate(None, loader(), loader(count=4), trainer={**limited, "max_steps": 9})
    assert found.steps == 20 + 2 * 3
    assert found.fit.mean_j == pytest.approx(2.6 + 2.0)  # 0.1 J a batch, and one validation


class WithCallbacks(Slow):
    """Its own callback writes a checkpoint after each epoch."""

    folder = Path()

    def configure_callbacks(self):
        return [ModelCheckpoint(dirpath=self.folder / "checkpoints", save_top_k=-1)]


def test_nothing_is_written_by_callbacks_of_the_model_or_by_autolog(tmp_path, monkeypatch) -> None:
    autologging = pytest.importorskip("mlflow.utils.autologging_utils")
    off: list[bool] = []
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.setattr(WithCallbacks, "folder", root)
    monkeypatch.setattr(
        WithCallbacks,
        "on_fit_start",
        lambda self: off.append(autologging._AUTOLOGGING_GLOBALLY_DISABLED),
    )
    model = WithCallbacks()
    estimate(model, trainer={**CPU, "default_root_dir": str(root), "profiler": "simple"})
    assert list(root.iterdir()) == []
    assert off == [True]
    assert not autologging._AUTOLOGGING_GLOBALLY_DISABLED
    assert len(model.configure_callbacks()) == 1


@pytest.mark.parametrize("nested", [lambda one: {"a": [one]}, lambda one: [[one]]])
def test_generators_of_nested_loaders_and_batch_samplers_are_left_alone(nested) -> None:
    data, generator = blobs(range(4), 40), torch.Generator().manual_seed(3)
    sampler = BatchSampler(RandomSampler(data, generator=generator), 8, drop_last=False)
    before = generator.get_state()
    with fit_estimate._same_generators(nested(DataLoader(data, batch_sampler=sampler)), None):
        list(sampler)
        assert not torch.equal(generator.get_state(), before)
    assert torch.equal(generator.get_state(), before)


def test_a_meter_whose_clock_does_not_move_ends_the_estimate(monkeypatch) -> None:
    monkeypatch.setattr(fit_estimate, "_MOST_STEPS", 40)
    with pytest.raises(ConfigurationError, match="the meter measured no energy"):
        estimate(meter=ConstantMeter(10.0, clock=lambda: 0.0))


def test_a_model_that_diverges_is_estimated() -> None:
    class Diverging(Slow):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * float("nan")

    assert estimate(Diverging()).fit.mean_j == pytest.approx(6.0)


def test_a_model_of_the_other_lightning_package() -> None:
    found = estimate(OfLightning(), meter=ConstantMeter(10.0), seconds=0.05)
    assert found.fit.mean_j > 0


class Uncopied(Slow):
    def __deepcopy__(self, memo):
        raise RuntimeError("it holds a socket")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"trainer": {}}, "max_epochs=None"),
        ({"trainer": {"max_epochs": -1}}, "max_epochs=-1"),
        ({"trainer": 3}, "trainer is of type int"),
        ({"trainer": {**CPU, "devices": 2}}, "several processes"),
        ({"zone": "XX"}, "XX"),
        ({"model": nn.Linear(1, 1)}, "model is of type Linear"),
        ({"model": Uncopied()}, "it holds a socket"),
        ({"data": iter([])}, "no length"),
        ({"data": []}, "no batch"),
        ({"meter": "DE"}, "no meter"),
        ({"meter": UnknownMeter("cpu"), "seconds": 0.01}, "no meter of this machine gives joules"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    given = {"data": loader(), "model": None, **options}
    model, data = given.pop("model"), given.pop("data")
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        estimate(model, data, **given)
