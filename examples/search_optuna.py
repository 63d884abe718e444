"""Search a learning rate with Optuna; the search ends when its joules do.

Run ``python examples/search_optuna.py``; ``--quick`` takes 3 trials. It needs ``optuna``.
"""

from __future__ import annotations

import argparse

import optuna
import torch
from pytorch_lightning import Trainer
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.demo import DigitsModel
from greentrain.integrations import SearchBudget
from greentrain.streams import digits_stream
from greentrain.units import format_energy


class Digits(DigitsModel):
    """The demo's perceptron with a learning rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with the rate of the trial."""
        return torch.optim.Adam(self.parameters(), lr=self.rate)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="0.2 Wh", help="for all trials together")
    parser.add_argument("--quick", action="store_true", help="3 trials")
    options = parser.parse_args()
    num_trials = 3 if options.quick else 20

    search = SearchBudget(
        budget=options.budget, num_trials=num_trials, ledger="sqlite:///search.db"
    )
    parts = digits_stream()
    train = ConcatDataset([part.train for part in parts])
    val = DataLoader(ConcatDataset([part.val for part in parts]), 256)

    def objective(trial: optuna.Trial) -> float:
        guard = search.guard()
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = Trainer(
            max_epochs=3, callbacks=[guard], enable_model_summary=False, devices=1, **quiet
        )
        model = Digits(trial.suggest_float("rate", 1e-4, 1e-1, log=True))
        trainer.fit(model, DataLoader(train, 64, shuffle=True), val)
        print(f"trial {trial.number}: {format_energy(guard.used_j)}", flush=True)
        if "val_acc" not in trainer.callback_metrics:  # too little was left for this trial
            raise optuna.TrialPruned()
        return float(trainer.callback_metrics["val_acc"])

    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    study.optimize(objective, n_trials=num_trials, callbacks=[search.stop_study])
    status = search.status()
    print(f"best rate {study.best_params['rate']:.4g}, accuracy {study.best_value:.3f}")
    print(f"the search used {format_energy(status.spent)} of {format_energy(status.total)}")


if __name__ == "__main__":
    main()
