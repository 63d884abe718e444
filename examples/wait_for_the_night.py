"""Train before a deadline, and pause while electricity is dirty.

Run ``python examples/wait_for_the_night.py --quick`` for a simulated night. For
a real one, give a file of hourly intensities: ``--csv de.csv --zone DE --deadline 08:00``. With
``--requeue`` a pause ends the process with exit code 75; run the same command again later.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from simulated_night import SimulatedNight
from torch.utils.data import ConcatDataset

from greentrain.callbacks import BudgetGuard, CarbonAwarePause, ExactResume, resumable_loader
from greentrain.carbon import CsvIntensity
from greentrain.demo import DigitsModel
from greentrain.streams import digits_stream

QUIET = ("logger", "enable_checkpointing", "enable_model_summary", "enable_progress_bar")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--csv", type=Path, help="file of hourly intensities")
    parser.add_argument("--zone", default="DE", help="its zone")
    parser.add_argument("--deadline", default="08:00", help="when the fit has to be finished")
    parser.add_argument("--requeue", action="store_true", help="end the process at a pause")
    parser.add_argument("--quick", action="store_true", help="simulate a night")
    given = parser.parse_args()
    if given.csv is None and not given.quick:
        parser.error("give --csv, or --quick for a simulated night")

    callbacks: list[Callback] = [ExactResume()]
    options: dict[str, Any] = {"pause": "requeue" if given.requeue else "wait"}
    guard = BudgetGuard(deadline=given.deadline)
    if given.quick:
        night = SimulatedNight()
        given.csv = night.write(Path("night.csv"))
        options |= night.options()
        guard = BudgetGuard(deadline=given.deadline, clock=options["clock"])
        callbacks.append(night)
    pause = CarbonAwarePause(
        CsvIntensity(given.csv, zone=given.zone), deadline=given.deadline, **options
    )
    torch.manual_seed(0)
    trainer = Trainer(
        max_epochs=5,
        callbacks=[*callbacks, guard, pause],
        **dict.fromkeys(QUIET, False),
    )
    data = ConcatDataset([each.train for each in digits_stream()])
    loader = resumable_loader(data, 90, seed=1)
    trainer.fit(DigitsModel(), loader, ckpt_path=pause.ckpt_path)
    for choice in pause.choices:
        if choice.wait:
            print(f"paused: {choice.reason}")
            break
    print(pause.usage.sentence())
    print(guard.reason or f"finished before {pause.deadline:%Y-%m-%d %H:%M} UTC")


if __name__ == "__main__":
    main()
