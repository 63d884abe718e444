"""Control training in plain PyTorch, without Lightning, within an energy budget.

Run ``python examples/own_training.py --quick`` for three experiences, then without ``--quick`` for
the other five. ``greentrain explain --ledger own.db`` shows each decision and its reason.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, RandomSampler

from greentrain import UpdateMode, candidates_of, open_controller
from greentrain.streams import digits_stream


def train(model: nn.Module, data: Dataset, steps: int) -> None:
    """Train for a number of steps; put your own training here."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for images, labels in DataLoader(data, 32, sampler=RandomSampler(data, True, 32 * steps)):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model: nn.Module, data: Dataset) -> float:
    """Return the share of samples that a model gets right."""
    return sum(int((model(x).argmax(1) == y).sum()) for x, y in DataLoader(data, 256)) / len(data)


def fresh() -> nn.Module:
    """Return an untrained model."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))


def main() -> None:
    model, saved = fresh(), Path("own.pt")
    arrivals = digits_stream()[: 3 if "--quick" in sys.argv else 8]
    with open_controller("own", budget="0.1 Wh", num_experiences=8, ledger="own.db") as controller:
        if saved.exists():
            model.load_state_dict(torch.load(saved))
        if not controller.calibrated:
            controller.calibrate(lambda steps: train(fresh(), arrivals[0].train, steps))
        for number, new in enumerate(arrivals):
            if new.id in controller.experiences:
                continue  # done by an earlier process
            past = ConcatDataset([each.train for each in arrivals[: number + 1]])
            held_out = ConcatDataset([each.val for each in arrivals[: number + 1]])
            known = {"n_new": len(new.train)}
            if saved.exists():  # there is a model
                known |= {"metric_before": accuracy(model, held_out)}
                known |= {"metric_new": accuracy(model, new.train)}
            each = candidates_of({"WARM_START": len(past) // 8, "FULL_RETRAIN": len(past) // 2})
            with controller.update(new.id, candidates=each, **known) as update:
                if update.action.mode is not UpdateMode.SKIP:
                    model = fresh() if update.action.mode is UpdateMode.FULL_RETRAIN else model
                    train(model, past, update.steps)
                    torch.save(model.state_dict(), saved)
                    update.done(metric_after=accuracy(model, held_out))
            print(f"{new.id}: {update.action}: {update.decision.sentence}")


if __name__ == "__main__":
    main()
