"""Train with an installed greentrain: both callbacks, a stream with MLflow, and the command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytorch_lightning
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel

import greentrain
from greentrain import StreamTrainer
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.demo import DigitsModel, quiet_mlflow
from greentrain.streams import digits_stream

assert Path(greentrain.__file__).is_relative_to(sys.prefix), greentrain.__file__
quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}

monitor, guard = EnergyMonitor(ledger="sqlite:///fit.db", summary=False), BudgetGuard("0.5 kWh")
callbacks = [monitor, guard]
Trainer(max_epochs=1, callbacks=callbacks, accelerator="cpu", **quiet).fit(BoringModel())
assert monitor.total.total_j and not guard.stopped

quiet_mlflow()
with StreamTrainer(
    DigitsModel,
    budget="1 Wh",
    num_experiences=2,
    monitor="val_acc",
    ledger="sqlite:///stream.db",
    tracking_uri="sqlite:///mlflow.db",
    state_dir="state",
    trainer={"max_epochs": 3, **quiet},
) as stream:
    results = stream.run(digits_stream()[:2])
assert results[0].metric_after and results[0].metric_after > 0.3

for words in ("init", "run stream.yaml --trainer.max_epochs 2 --limit 1", "report --out report"):
    done = subprocess.run(
        ["greentrain", *words.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"greentrain {words}: {done.stderr}"
versions = f"torch {torch.__version__}, pytorch-lightning {pytorch_lightning.__version__}"
print(f"trained with Python {sys.version.split()[0]}, {versions}")
