"""Keep a light SegFormer up to date under a budget, and find a class that it never saw.

Run ``python examples/segmentation/run.py``; ``--quick`` has two experiences of few images. Joules
are 15 W times the processor's seconds; ``--measured`` selects the meter of the machine.
"""

from __future__ import annotations

import argparse
import time

import torch
from module import Segmentation
from scenes import UNSEEN, scenes, stream
from torchmetrics.functional.classification import multiclass_jaccard_index

from greentrain import StreamTrainer, measure
from greentrain.energy import ConstantMeter, detect
from greentrain.metrics import frugality_score
from greentrain.units import format_energy

LEDGER = "sqlite:///segmentation.db"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", default="40 % of full", help="such as '0.05 Wh'")
    parser.add_argument("--quick", action="store_true", help="two experiences of few images")
    parser.add_argument("--measured", action="store_true", help="use the machine's meter")
    options = parser.parse_args()
    meter = detect() if options.measured else ConstantMeter(15.0, clock=time.process_time)
    torch.manual_seed(0)
    experiences, images, epochs = (2, 64, 2) if options.quick else (4, 600, 15)
    used_j = 0.0
    with StreamTrainer(
        Segmentation,
        budget=options.budget,
        num_experiences=experiences,
        monitor="val_miou",
        ledger=LEDGER,
        meter=meter,
        trainer={"max_epochs": epochs, "accelerator": "auto", "devices": 1},
        loader={"batch_size": 16},
    ) as trainer:
        for experience in stream(experiences, images):
            result = trainer.update(experience)
            used_j += result.energy_j
            print(f"{experience.id}: {result.decision.action}: {result.reason}")
        budget = trainer.budget
    model = trainer.model.eval()
    pictures, labels = scenes(20 * epochs, seed=999, drift=1.0, unseen=True).tensors
    with torch.no_grad(), measure("predict", ledger=LEDGER, meter=meter) as measured:
        seen = model(pictures).argmax(1)
    with torch.no_grad():
        found = model(pictures, unseen=True).argmax(1)
    old = labels < UNSEEN
    known = multiclass_jaccard_index(seen[old], labels[old], num_classes=UNSEEN)
    new = multiclass_jaccard_index(found, labels, num_classes=UNSEEN + 1, average=None)[UNSEEN]
    joules, scale_j = (measured.total_j or 0.0) / len(pictures), budget.energy_j or used_j
    score = frugality_score(float(known), used_j, scale=scale_j, weight=0.5)
    weights = sum(each.numel() for each in model.parameters())
    print(f"{weights} weights; budget {budget}, {format_energy(used_j)} used")
    print(f"mIoU {known:.3f} of the classes that were trained on, {joules:.4f} J per image")
    print(f"frugality score {score:.3f} (weight 0.5, scale: the budget)")
    print(f"zero-shot IoU of the unseen class {new:.3f}; without its prototype it is 0")


if __name__ == "__main__":
    main()
