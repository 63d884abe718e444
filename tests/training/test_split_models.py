"""Strategies that split a model among ranks: refused by streams, measured in fits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.strategies import FSDPStrategy

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.errors import ConfigurationError, MeterError
from greentrain.launch import Launch
from greentrain.training import stream_ranks
from tests.models import Classifier, loader, trainer

TWO = Launch(launcher="torchrun", rank=0, size=2, local_size=2)


@pytest.mark.parametrize("launch", [TWO, None], ids=["torchrun", "one process"])
def test_a_stream_refuses_a_strategy_that_splits_the_model(monkeypatch, launch) -> None:
    # Lightning builds such a Trainer where there is a GPU only: this replaces it.
    devices = 2 if launch else 1
    split = SimpleNamespace(strategy=FSDPStrategy(), num_devices=devices, num_nodes=1)
    monkeypatch.setattr(stream_ranks, "checked_trainer", lambda options: split)
    with pytest.raises(ConfigurationError) as refused:
        stream_ranks.open_ranks({"strategy": "fsdp", "devices": devices}, launch)
    assert str(refused.value) == (
        "a stream needs the whole model in each of its processes, and FSDPStrategy does not keep "
        "it there; give strategy='ddp'"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_3"])
def test_without_a_gpu_the_reason_is_one_sentence(strategy: str) -> None:
    options = {"accelerator": "cpu", "strategy": strategy, "max_epochs": 1}
    with pytest.raises(ConfigurationError, match="a Trainer refuses the options of trainer: "):
        stream_ranks.open_ranks(options, TWO)


@pytest.mark.gpu
def test_a_fit_with_a_split_model_is_measured_and_capped(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU here: torch sees none")
    monitor, guard = EnergyMonitor(), BudgetGuard("1 kWh")
    fit = trainer(
        monitor,
        guard,
        accelerator="gpu",
        devices=1,
        strategy=FSDPStrategy(),
        default_root_dir=tmp_path,
    )
    try:
        fit.fit(Classifier(), loader())
    except MeterError as error:  # as where an earlier test has loaded the simulated driver
        pytest.skip(f"no NVIDIA GPU here: {error}")
    assert guard.steps == 40  # 2 epochs of 20 batches
    assert guard.used_j > 0
    assert not guard.stopped
    assert any(source.name == "gpu:0" for source in monitor.sources)
