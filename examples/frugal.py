"""Prune a trained model, repair it in one fit, and keep it only if it is not worse.

Run ``python examples/frugal.py``; ``--quick`` trains for 3 epochs instead of 15.
"""

from __future__ import annotations

import argparse

import torch
from pytorch_lightning import Trainer, seed_everything
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader

from greentrain.callbacks import CompressOnce, EnergyMonitor
from greentrain.demo import DigitsModel
from greentrain.evaluation.acceptance import NotWorse
from greentrain.methods import low_rank, prune_channels
from greentrain.streams import digits_stream
from greentrain.units import format_energy


class WideDigits(DigitsModel):
    """The model of the demo with wide layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 epochs instead of 15")
    epochs = 3 if parser.parse_args().quick else 15
    digits = digits_stream()
    train = DataLoader(ConcatDataset([each.train for each in digits]), 32, shuffle=True)
    val = ConcatDataset([each.val for each in digits])
    seed_everything(0, verbose=False)
    model = WideDigits()
    fit(model, train, "before", epochs)
    for name, change in {
        "pruned": lambda net: prune_channels(net, share=0.5),
        "of low rank": lambda net: low_rank(net, share=0.9),
    }.items():
        accept = NotWorse(val, monitor="val_acc")
        once = CompressOnce(change, accept=accept, example=torch.zeros(1, 64))
        fit(model, train, name, epochs, once)
        before, after = once.operations
        print(
            f"{name}: {100 * after / before:.0f} % of the operations, accuracy "
            f"{accept.gain:+.3f}: {'kept' if once.accepted else 'refused'}"
        )


def fit(model: WideDigits, train: DataLoader, name: str, epochs: int, *more: CompressOnce) -> None:
    monitor = EnergyMonitor(ledger="sqlite:///greentrain.db", name=name, summary=False)
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(max_epochs=epochs, callbacks=[monitor, *more], **quiet)
    trainer.fit(model, train)
    step_j = (monitor.total.total_j or 0.0) / trainer.global_step
    print(f"{name}: {format_energy(step_j)} per step")


if __name__ == "__main__":
    main()
