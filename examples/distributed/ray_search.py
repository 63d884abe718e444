"""Search a learning rate with Ray Tune, two trials at a time, on one budget.

Run ``python examples/distributed/ray_search.py``. It needs the extra ``[ray]``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import ray
from pytorch_lightning import Trainer
from ray import tune
from torch.optim import Adam, Optimizer
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.demo import DigitsModel
from greentrain.integrations import SearchBudget
from greentrain.ledger import Ledger
from greentrain.streams import digits_stream
from greentrain.units import format_energy


class Digits(DigitsModel):
    """The demo's perceptron with a learning rate."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def configure_optimizers(self) -> Optimizer:
        """Return Adam with the rate of the trial."""
        return Adam(self.parameters(), lr=self.rate)


def trial(config: dict[str, float], search: SearchBudget) -> None:
    """Train one trial in a process of Ray."""
    parts = digits_stream()
    train = ConcatDataset([part.train for part in parts])
    val = DataLoader(ConcatDataset([part.val for part in parts]), 256)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=3, callbacks=[search.guard()], accelerator="cpu", **quiet)
    trainer.fit(Digits(config["rate"]), DataLoader(train, 64, shuffle=True), val)
    tune.report({"val_acc": float(trainer.callback_metrics.get("val_acc", 0.0))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="0.2 Wh", help="for all trials together")
    parser.add_argument("--trials", type=int, default=6)
    options = parser.parse_args()
    url = f"sqlite:///{Path('ray_search.db').resolve()}"  # Ray's processes have other folders
    search = SearchBudget(budget=options.budget, num_trials=options.trials, ledger=url)
    storage = str(Path("ray_results").resolve())
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    tuner = tune.Tuner(
        tune.with_parameters(trial, search=search),
        param_space={"rate": tune.loguniform(1e-4, 1e-1)},
        tune_config=tune.TuneConfig(num_samples=options.trials, metric="val_acc", mode="max"),
        run_config=tune.RunConfig(stop=search.ray_stopper(), verbose=0, storage_path=storage),
    )
    best = tuner.fit().get_best_result()
    print(f"best rate {best.config['rate']:.4g}, accuracy {best.metrics['val_acc']:.3f}")
    ledger, status = Ledger(url), search.status()
    print(f"{len(ledger.rows('run'))} trials are in the ledger, and the search used", end=" ")
    print(f"{format_energy(status.spent)} of {format_energy(status.total)}")


if __name__ == "__main__":
    main()
