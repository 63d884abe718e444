"""Reuse callbacks in pairs, with guard, ledger, checkpoints, bf16 and accumulated gradients."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain.callbacks import (
    BudgetGuard,
    CompressOnce,
    EarlyExit,
    EnergyMonitor,
    FeatureCache,
    InformativeSubset,
    LoraUpdate,
    PartialLabels,
    SelectiveTraining,
)
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.methods import low_rank
from tests.models import Clock, Tick, constant_meter, trainer

MAKERS = {
    "EarlyExit": lambda: EarlyExit(["trunk"], classes=4, example=torch.zeros(1, 8)),
    "FeatureCache": lambda: FeatureCache("trunk"),
    "SelectiveTraining": lambda: SelectiveTraining("selective_backprop"),
    "InformativeSubset": lambda: InformativeSubset("loss"),
    "PartialLabels": lambda: PartialLabels(weak=lambda x: x, strong=lambda x: x),
    "LoraUpdate": lambda: LoraUpdate("head", rank=2),
    "CompressOnce": lambda: CompressOnce(
        lambda net: low_rank(net.head, share=0.5),
        accept=lambda before, after: True,
        example=torch.zeros(1, 8),
    ),
}


class Net(LightningModule):
    """A trunk and a head; the loss of each sample is returned."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.trunk = nn.Sequential(nn.Linear(8, 16), nn.ReLU())
        self.head = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return self.head(self.trunk(samples))

    def training_step(self, batch, batch_idx):
        losses = nn.functional.cross_entropy(self(batch[0]), batch[1], reduction="none")
        return {"loss": losses.mean(), "sample_losses": losses}

    def configure_optimizers(self):
        return torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)


REFUSED = {
    ("SelectiveTraining", "EarlyExit"): "on the 4 samples of its batch",
    ("PartialLabels", "EarlyExit"): "on the 4 samples of its batch",
    ("EarlyExit", "LoraUpdate"): "the optimizer lacks the weights of the early exits",
    ("LoraUpdate", "CompressOnce"): "could not be compressed",
    ("SelectiveTraining", "InformativeSubset"): "scores for a batch of 4 samples",
    ("InformativeSubset", "PartialLabels"): "2 scores for a batch of 4 samples",
}
"""Orders that are refused; the first three work the other way round."""


OTHER_ORDERS = [*list(REFUSED)[:2], ("LoraUpdate", "EarlyExit")]


@pytest.mark.parametrize("names", [*combinations(MAKERS, 2), *OTHER_ORDERS], ids="+".join)
def test_pairs_work_with_everything_else(names, tmp_path):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (16,), generator=generator)
    if "PartialLabels" in names:
        labels[::2] = -1
    data = DataLoader(TensorDataset(torch.randn(16, 8, generator=generator), labels), 4)
    clock, url, model = Clock(), f"sqlite:///{tmp_path / 'pairs.db'}", Net()
    before = [each.clone() for each in model.parameters()]
    meter = constant_meter(clock)
    guard = BudgetGuard("1 Wh", meter=meter)
    monitor = EnergyMonitor(meter, ledger=url, summary=False)
    checkpoint = ModelCheckpoint(tmp_path / "checkpoints", save_last=True)
    fit = trainer(
        *(guard, monitor, Tick(clock), checkpoint),
        *(MAKERS[name]() for name in names),
        precision="bf16-mixed",
        accumulate_grad_batches=2,
        enable_checkpointing=True,
    )
    if names in REFUSED:
        with pytest.raises(ConfigurationError, match=REFUSED[names]):
            fit.fit(model, data)
        return
    fit.fit(model, data)
    assert fit.global_step == 4  # two epochs of four batches, two in a step
    assert (tmp_path / "checkpoints" / "last.ckpt").is_file()
    after = list(model.parameters())
    assert len(after) != len(before) or any(
        a.shape != b.shape or not torch.equal(a, b) for a, b in zip(before, after, strict=False)
    )
    assert all(bool(torch.isfinite(each).all()) for each in after)
    ledger = Ledger(url, create=False)
    try:
        assert verify(ledger).ok
    finally:
        ledger.close()
