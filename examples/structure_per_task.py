"""Learn pairs of digits one after another, with parts of the network for each task.

Run ``python examples/structure_per_task.py``; ``--quick`` learns two tasks, in one epoch each.
"""

from __future__ import annotations

import sys

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from greentrain.callbacks import EnergyMonitor
from greentrain.methods import HyperNetwork, InterContiNet, ProgressiveNetwork, SuperMasks
from greentrain.streams import class_incremental, digits
from greentrain.units import format_energy

QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)


class Tasks(LightningModule):
    """Any of the networks; the labels of task t are 2 t and 2 t + 1."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss of the network's kind."""
        images, labels = batch[0].flatten(1), batch[1] % 2
        if isinstance(self.net, InterContiNet):
            self.net.project()
            return self.net.loss(images, labels)
        loss = nn.functional.cross_entropy(self.net(images), labels)
        return loss + 0.1 * self.net.penalty() if isinstance(self.net, HyperNetwork) else loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam; parts of other tasks have no gradient, and stay as they are."""
        return torch.optim.Adam(self.parameters(), lr=5e-3)


def main() -> None:
    quick = "--quick" in sys.argv
    stream = class_incremental(digits()[0], n_experiences=5, val_share=0.3)[: 2 if quick else 5]
    layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    masked, generated = SuperMasks(layers), HyperNetwork(layers, chunk=500)
    for net in (ProgressiveNetwork([64, 64, 2]), masked, generated, InterContiNet([64, 64], 2)):
        seed_everything(0, verbose=False)
        used_j, right = 0.0, 0.0
        for task, experience in enumerate(stream):
            net.task = net.add_task() if task else 0
            monitor = EnergyMonitor(ledger=False, summary=False)
            trainer = Trainer(max_epochs=1 if quick else 10, callbacks=[monitor], **QUIET)
            trainer.fit(Tasks(net), DataLoader(experience.train, 16, shuffle=True))
            used_j += monitor.total.total_j or 0.0
            if isinstance(net, (HyperNetwork, InterContiNet)):
                net.consolidate()
        for task, experience in enumerate(stream):
            images, labels = next(iter(DataLoader(experience.val, 1000)))
            found = net(images.flatten(1), task).argmax(1) == labels % 2
            right += 100 * float(found.float().mean()) / len(stream)
        energy, size = format_energy(used_j), f"{net.bytes_per_task:,} bytes for a task"
        print(f"{type(net).__name__}: {right:.1f} % of all experiences, {energy}, {size}")


if __name__ == "__main__":
    main()
