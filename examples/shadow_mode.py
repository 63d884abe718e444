"""Run greentrain in shadow mode next to a job that retrains in full.

Run ``python examples/shadow_mode.py``; ``--quick`` takes three experiences instead of eight.
``greentrain explain --ledger sqlite:///shadow.db`` then shows each decision with its outcome.
"""

from __future__ import annotations

import argparse

from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import ConcatDataset, DataLoader

from greentrain import StreamTrainer
from greentrain.callbacks import EnergyMonitor
from greentrain.demo import DigitsModel
from greentrain.streams import Experience, digits_stream
from greentrain.units import format_energy


def nightly_job(arrived: list[Experience], epochs: int) -> tuple[LightningModule, float | None]:
    """Retrain on everything, as before, and measure the energy."""
    monitor = EnergyMonitor(ledger=False, summary=False)
    model = DigitsModel()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(max_epochs=epochs, callbacks=[monitor], enable_checkpointing=False, **quiet)
    data = ConcatDataset([experience.train for experience in arrived])
    trainer.fit(model, DataLoader(data, batch_size=16, shuffle=True))
    return model, monitor.total.total_j


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="0.05 Wh", help="the budget of shadow mode")
    parser.add_argument("--quick", action="store_true", help="three experiences, 5 epochs")
    options = parser.parse_args()

    stream = digits_stream()[: 3 if options.quick else None]
    epochs = 5 if options.quick else 15
    with StreamTrainer(
        DigitsModel,
        budget=options.budget,
        num_experiences=len(stream),
        monitor="val_acc",
        ledger="sqlite:///shadow.db",
        trainer={"max_epochs": epochs},
        loader={"batch_size": 16},
        shadow=True,
    ) as trainer:
        for number, experience in enumerate(stream):
            decided = trainer.update(experience)
            model, energy_j = nightly_job(stream[: number + 1], epochs)
            result = trainer.report_training(model, energy_j=energy_j)
            choice, used = decided.decision.action, format_energy(energy_j)
            print(f"{experience.id}: greentrain would choose {choice}: {decided.reason}")
            print(f"  the job used {used}; its val_acc is {result.metric_after}")


if __name__ == "__main__":
    main()
