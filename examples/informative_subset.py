"""Warm starts on new digits and half of the stored ones: which half, at equal steps.

python examples/informative_subset.py
"""

from __future__ import annotations

import statistics
import sys

import torch
from pytorch_lightning import Trainer, seed_everything
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, SubsetRandomSampler

from greentrain.callbacks import InformativeSubset
from greentrain.demo import DigitsModel
from greentrain.streams import digits_stream

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


class Scored(DigitsModel):
    """The model of the demo, with what the scores need."""

    def training_step(self, batch, batch_idx):
        """Return the loss, the logits and the losses of a batch."""
        logits = self(batch[0])
        losses = nn.functional.cross_entropy(logits, batch[1], reduction="none")
        return {"loss": losses.mean(), "logits": logits, "sample_losses": losses}


def fit(model, data, sampler, steps, callbacks=()):
    loader = DataLoader(data, 16, sampler=sampler)
    options = {**QUIET, "enable_model_summary": False, "accelerator": "cpu"}
    Trainer(max_steps=steps, callbacks=list(callbacks), **options).fit(model, loader)


def main() -> None:
    quick = "--quick" in sys.argv
    accuracies = {name: [] for name in ("all", "random", "forgetting", "margin", "loss")}
    for seed in range(1 if quick else 5):
        first, more, _, new, inverted = digits_stream(seed=seed)[:5]
        parts = (first, more, new, inverted)
        old, whole = (ConcatDataset([each.train for each in some]) for some in (parts[:2], parts))
        held = ConcatDataset([each.val for each in parts])
        images, labels = next(iter(DataLoader(held, len(held))))
        for name, found in accuracies.items():
            seed_everything(seed, verbose=False)
            by = name if name in ("forgetting", "margin", "loss") else "loss"
            subset, model = InformativeSubset(by, share=0.5), Scored()
            fit(model, old, subset.sampler(old), 40 if quick else 400, [subset])
            sampler = subset.sampler(whole)
            if name in ("all", "random"):
                kept = torch.randperm(len(old))[: len(old) // (1 if name == "all" else 2)]
                sampler = SubsetRandomSampler([*kept.tolist(), *range(len(old), len(whole))])
            fit(model, whole, sampler, 20 if quick else 120)
            with torch.no_grad():
                found.append(float((model(images).argmax(1) == labels).float().mean()) * 100)
    for name, found in accuracies.items():
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        print(f"{name:>10}: {statistics.fmean(found):.1f} % ({spread:.1f} between seeds)")


if __name__ == "__main__":
    main()
