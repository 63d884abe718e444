"""``FeatureCache``: each sample passes the frozen layers once, and the result is the same."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from greentrain.callbacks import BudgetGuard, EnergyMonitor, FeatureCache
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, verify

SAMPLES = 24


class Counting(nn.Module):
    """Counts the samples that pass, and lets one second pass for each."""

    def __init__(self) -> None:
        super().__init__()
        self.passed, self.seconds = 0, 0.0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.passed += len(inputs)
        self.seconds += len(inputs)
        return inputs


class Model(LightningModule):
    """A trunk with batch norm and dropout, a head, and a part that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *(Counting(), nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5)),
        )
        self.head = nn.Linear(6, 2)
        self.aside = nn.Linear(4, 4)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(inputs))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)

    @property
    def passed(self) -> int:
        return self.trunk[0].passed


class Noisy(Dataset):
    """Samples that differ each time, as with random augmentation."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int):
        return torch.randn(4), index % 2


def model() -> Model:
    torch.manual_seed(1)
    return Model()


def data(seed: int = 2, samples: int = SAMPLES) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(samples, 4, generator=generator)
    return TensorDataset(inputs, (inputs[:, 0] > 0).long())


def fit(module: LightningModule, *callbacks, dataset=None, ckpt_path=None, val=None, **options):
    torch.manual_seed(3)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "max_epochs": 3, "enable_checkpointing": False}
    trainer = Trainer(callbacks=list(callbacks), **{**quiet, **options})
    loader = DataLoader(data() if dataset is None else dataset, 4, shuffle=True)
    trainer.fit(module, loader, val, ckpt_path=ckpt_path)
    return module


def frozen(module: Model) -> Model:
    """Freeze the trunk by hand."""
    module.trunk.eval().requires_grad_(False)
    return module


def test_the_head_is_trained_as_on_a_frozen_trunk_that_runs_once_for_each_sample():
    cache, val = FeatureCache("trunk"), DataLoader(data(5, 8), 4)
    plain, cached = frozen(model()), model()
    fit(plain, val=val)
    fit(cached, cache, val=val)
    torch.testing.assert_close(cached.state_dict(), plain.state_dict())
    assert cached.passed == SAMPLES + 8
    assert plain.passed == 3 * SAMPLES + 4 * 8  # with the sanity check
    assert cache.used == (2 * SAMPLES + 3 * 8, 3 * SAMPLES + 4 * 8)
    assert all(each.requires_grad for each in cached.parameters())
    assert all(each.training for each in cached.modules())
    assert "forward" not in vars(cached.trunk)


def test_samples_are_looked_up_in_any_batch_and_a_second_fit():
    cache, module = FeatureCache("trunk"), model()
    fit(module, cache, max_epochs=2)
    more = torch.utils.data.ConcatDataset([data(), data(6, 4)])
    fit(module, cache, dataset=more, max_epochs=1)
    assert module.passed == SAMPLES + 4


def test_a_new_fit_with_other_weights_computes_all_again():
    cache, module = FeatureCache("trunk"), model()
    fit(module, cache, max_epochs=1)
    with torch.no_grad():
        module.trunk[1].weight[0, 0] += 1e-6
    fit(module, cache, max_epochs=1)
    assert module.passed == 2 * SAMPLES


def test_a_file_is_used_by_the_next_training_with_the_same_weights_only(tmp_path):
    module = model()
    fit(module, FeatureCache("trunk", folder=tmp_path), max_epochs=1)
    other = copy.deepcopy(module)
    fit(module, FeatureCache("trunk", folder=tmp_path), max_epochs=1)
    assert module.passed == SAMPLES
    other.trunk[2].running_mean += 1.0
    fit(other, FeatureCache("trunk", folder=tmp_path), max_epochs=1)
    assert other.passed == 2 * SAMPLES
    assert len(list(tmp_path.glob("*.rows"))) == 1


def test_the_features_are_paid_within_the_fits_windows_and_once(own_folder):
    module = model()
    monitor = EnergyMonitor(
        ConstantMeter(2.0, clock=lambda: module.trunk[0].seconds), ledger=False, summary=False
    )
    fit(module, monitor, FeatureCache("trunk"))
    assert monitor.total.total_j == pytest.approx(2.0 * SAMPLES)  # 2 W for one second a sample


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_it_works_with_guard_ledger_bf16_accumulation_and_checkpoints(own_folder, tmp_path):
    def run(name: str, ckpt_path: str | None = None) -> tuple[Model, FeatureCache]:
        module, cache = model(), FeatureCache("trunk")
        monitor = EnergyMonitor(ConstantMeter(1.0), ledger="sqlite:///l.db", summary=False)
        saved = ModelCheckpoint(dirpath=tmp_path / name, save_top_k=-1)
        fit(
            module,
            *(monitor, BudgetGuard("1 kWh"), cache, saved),
            ckpt_path=ckpt_path,
            precision="bf16-mixed",
            accumulate_grad_batches=2,
            enable_checkpointing=True,
        )
        return module, cache

    module, _ = run("first")
    assert module.passed == SAMPLES
    again, resumed = run("again", str(next(tmp_path.glob("first/epoch=0*"))))
    assert again.passed == SAMPLES
    assert resumed.used == (SAMPLES, 3 * SAMPLES)  # features are in no checkpoint
    ledger = Ledger(str(own_folder / "l.db"), create=False)
    assert verify(ledger).ok
    ledger.close()


def test_the_first_layers_are_frozen_after_their_information_was_measured():
    module = model()
    module.trunk = nn.Sequential(Counting(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6))
    with torch.no_grad():
        module.trunk[1].weight *= 1000.0  # large weights have small relative gradients
        module.trunk[3].weight /= 1000.0
    before = copy.deepcopy(module.trunk.state_dict())
    cache = FeatureCache("trunk", freeze="auto", probe_steps=2)
    fit(module, cache)
    assert cache.depth == 3
    assert module.passed == 2 * 4 + SAMPLES  # two steps of four samples before
    assert cache.state_dict()["depth"] == 3
    assert not torch.equal(module.trunk[3].weight, before["3.weight"])


def test_nothing_is_frozen_where_the_first_layer_learns_most():
    module = model()
    module.trunk = nn.Sequential(Counting(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6))
    with torch.no_grad():
        module.trunk[1].weight /= 1000.0
    cache = FeatureCache("trunk", freeze="auto", probe_steps=2)
    fit(module, cache)
    assert (cache.depth, cache.used) == (0, (0, 0))


@pytest.mark.parametrize(
    ("cache", "sentence"),
    [
        (lambda: FeatureCache("trunc"), "no module 'trunc'.*nearest names are: trunk"),
        (lambda: FeatureCache("aside"), "did not call 'aside'"),
        (lambda: FeatureCache("trunk", max_bytes=400), "24 bytes for each of 24 samples"),
        (lambda: FeatureCache("head", freeze=1), "'head' is a Linear; give the name"),
        (lambda: FeatureCache("trunk", freeze=9), "'trunk' has 5 layers"),
    ],
)
def test_a_fit_that_cannot_use_it_is_refused(cache, sentence):
    module = model()
    with pytest.raises(ConfigurationError, match=sentence):
        fit(module, cache())
    assert all(each.requires_grad for each in module.parameters())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"trunk": ""}, "name of a module"),
        ({"freeze": "some"}, "freeze is 'some'"),
        ({"freeze": 0}, "freeze is 0"),
        ({"max_bytes": "0 MB"}, "above 0"),
        ({"max_bytes": "1 furlong"}, "furlong"),
        ({"share": 2}, "share is 2"),
        ({"probe_steps": 0}, "probe_steps is 0"),
    ],
)
def test_unusable_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        FeatureCache(**{"trunk": "trunk", **arguments})


def test_random_augmentation_is_refused_after_the_second_epoch():
    with pytest.raises(ConfigurationError, match=r"24 of 24 samples.*random augmentation"):
        fit(model(), FeatureCache("trunk"), dataset=Noisy())


@pytest.mark.parametrize("hidden", [False, True])
def test_a_trunk_that_changes_under_its_features_is_refused(hidden):
    class Changing(Model):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            if batch_idx == 1:
                weight = self.trunk[1].weight
                (weight.data if hidden else weight.detach())[0, 0] = 0.5

    torch.manual_seed(1)
    with pytest.raises(ConfigurationError, match="'trunk' changed while its features"):
        fit(Changing(), FeatureCache("trunk"))


def test_several_processes_are_refused():
    cache = FeatureCache("trunk")
    trainer = type("Two", (), {"world_size": 2})()
    with pytest.raises(ConfigurationError, match="2 processes"):
        cache.setup(trainer, model(), "fit")


def test_a_whole_model_has_nothing_left_to_train():
    module = model()
    module.net = nn.Sequential(module.trunk, module.head)
    module.forward = lambda inputs: module.net(inputs)
    module.aside = None
    with pytest.raises(ConfigurationError, match="no parameter is left to train"):
        fit(module, FeatureCache("net"))
