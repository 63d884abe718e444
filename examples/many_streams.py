"""Share one budget between two streams of digits: one never changes, one rotates further each time.

Run ``python examples/many_streams.py``; ``--quick`` takes two experiences of each stream.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack

import torch

from greentrain import StreamTrainer
from greentrain.demo import DigitsModel
from greentrain.streams import digits, rotated
from greentrain.training import EvaluationConfig
from greentrain.units import format_energy


class Digits(DigitsModel):
    """The demo's perceptron, for images with a height and a width."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(batch, 10)`` of images ``(batch, 1, 8, 8)``."""
        return super().forward(images.flatten(1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="0.1 Wh", help="for both streams together")
    parser.add_argument("--quick", action="store_true", help="two experiences of each stream")
    options = parser.parse_args()

    rounds = 2 if options.quick else 8
    train, _ = digits()
    streams = {
        "steady": rotated(train, angles=[0.0] * rounds),
        "turning": rotated(train, angles=[30.0 * number for number in range(rounds)]),
    }
    used_j = dict.fromkeys(streams, 0.0)
    with ExitStack() as stack:
        trainers = {}
        for name in streams:
            trainers[name] = StreamTrainer(
                Digits,
                name=name,
                shared_budget="team",  # the first stream opens it
                budget=options.budget,
                num_experiences=rounds * len(streams),  # experiences of both
                monitor="val_acc",
                evaluation=EvaluationConfig(eval_on="current"),
                ledger="sqlite:///team.db",
                trainer={"max_epochs": 15, "accelerator": "auto", "devices": 1},
                loader={"batch_size": 16},
            )
            stack.enter_context(trainers[name])
        for number in range(rounds):
            for name, stream in streams.items():
                result = trainers[name].update(stream[number])
                used_j[name] += result.energy_j
                print(f"{name} {number}: {result.decision.action}: {result.reason}")
    for name, energy_j in used_j.items():
        print(f"{name}: {format_energy(energy_j)} used")


if __name__ == "__main__":
    main()
