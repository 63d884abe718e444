"""``LoraUpdate``: only adapters are trained, and the merged model is the one that was trained."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain.callbacks import BudgetGuard, EnergyMonitor, LoraUpdate
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError

pytest.importorskip("peft", exc_type=ImportError)


class Transformer(LightningModule):
    """One layer of a transformer, a projection and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True), nn.Linear(8, 8)
        )
        self.head = nn.Linear(8, 2)
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.last: torch.Tensor | None = None

    def forward(self, inputs):
        return self.head(self.backbone(inputs).mean(1))

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def on_train_end(self) -> None:
        self.eval()
        with torch.no_grad():
            self.last = self(torch.ones(1, 3, 8))

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.5)


def fit(module, *callbacks, **options):
    torch.manual_seed(2)
    inputs = torch.randn(8, 3, 8)
    loader = DataLoader(TensorDataset(inputs, (inputs[:, 0, 0] > 0).long()), 4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "max_epochs": 2, "enable_checkpointing": False}
    ckpt_path = options.pop("ckpt_path", None)
    trainer = Trainer(callbacks=list(callbacks), **{**quiet, **options})
    trainer.fit(module, loader, ckpt_path=ckpt_path)
    return module


def model() -> Transformer:
    torch.manual_seed(1)
    return Transformer()


def test_only_adapters_are_trained_and_the_merged_model_gives_the_same_outputs():
    module = model()
    before = copy.deepcopy(module.state_dict())
    lora = LoraUpdate("backbone", rank=2)
    fit(module, lora)
    # Linear layers 8 -> 16, 16 -> 8 and 8 -> 8: 2 * (24 + 24 + 16) numbers.
    assert lora.trained[0] == 2 * (24 + 24 + 16)
    after = module.state_dict()
    assert list(after) == list(before)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {
        "backbone.0.linear1.weight",
        "backbone.0.linear2.weight",
        "backbone.1.weight",
    }
    for name in changed:
        assert torch.linalg.matrix_rank(after[name] - before[name], rtol=1e-3) <= 2
    module.eval()
    torch.testing.assert_close(module(torch.ones(1, 3, 8)), module.last)
    assert all(each.requires_grad for each in module.parameters())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_it_resumes_with_guard_bf16_accumulation_and_a_head_that_is_trained(own_folder, tmp_path):
    def run(name: str, ckpt_path: str | None = None) -> Transformer:
        module = model()
        monitor = EnergyMonitor(ConstantMeter(1.0), ledger=False, summary=False)
        saved = ModelCheckpoint(dirpath=tmp_path / name, save_top_k=-1)
        callbacks = (monitor, BudgetGuard("1 kWh"), LoraUpdate(train=["head"]), saved)
        return fit(
            module,
            *callbacks,
            precision="bf16-mixed",
            accumulate_grad_batches=2,
            enable_checkpointing=True,
            ckpt_path=ckpt_path,
        )

    whole = run("first")
    assert not torch.equal(whole.head.weight, model().head.weight)
    resumed = run("again", str(next(tmp_path.glob("first/epoch=0*"))))
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        (lambda: LoraUpdate("pool"), "'pool' has no nn.Linear that peft can wrap"),
        (lambda: LoraUpdate("backbon"), "nearest names are: backbone"),
        (lambda: LoraUpdate("head", train=["head"]), "'head' has no nn.Linear"),
        (lambda: LoraUpdate("head", train=["tail"]), "no module 'tail'"),
        (lambda: LoraUpdate(rank=0), "rank is 0"),
        (lambda: LoraUpdate(module=1), "module is 1"),
        (lambda: LoraUpdate(train="head"), "train is 'head'"),
    ],
)
def test_unusable_arguments_and_modules_are_refused(lora, words):
    module = model()
    trainer = type("One", (), {"world_size": 1})()
    with pytest.raises(ConfigurationError, match=words):
        lora().setup(trainer, module, "fit")
    assert all(each.requires_grad for each in module.parameters())


def test_without_peft_and_with_several_processes_it_is_refused(monkeypatch):
    trainer = type("Trainer", (), {"world_size": 2})()
    with pytest.raises(ConfigurationError, match="2 processes"):
        LoraUpdate().setup(trainer, model(), "fit")
    trainer.world_size = 1
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigurationError, match=r"lightning-greentrain\[peft\]"):
        LoraUpdate().setup(trainer, model(), "fit")
