"""Rehearse the stored samples of a buffer, in a plain fit for each experience."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset, default_collate

from greentrain.callbacks.output_term import OutputTerm
from greentrain.memory import Buffer


class Rehearsal(OutputTerm):
    """Add the loss of as many stored samples as the batch has: experience replay.

    Args:
        buffer: Where samples of each experience are stored at its end.
        seed: Seed of the choice of samples in a step.
    """

    def __init__(self, buffer: Buffer, *, seed: int) -> None:
        super().__init__()
        self.buffer = buffer
        self._generator = torch.Generator().manual_seed(seed)
        self._stored: tuple[Tensor, Tensor] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Read the stored samples once."""
        stored = self.buffer.select(lambda origin: True)
        if len(self.buffer):
            images, labels = default_collate([stored[row] for row in range(len(self.buffer))])
            self._stored = images, labels

    def combined_loss(self, pl_module: Any, batch: Any, loss: Tensor) -> Tensor:
        """Return the loss with that of stored samples."""
        if self._stored is None:
            return loss
        images, labels = self._stored
        chosen = torch.randint(len(labels), (len(batch[1]),), generator=self._generator)
        return loss + cross_entropy(pl_module(images[chosen]), labels[chosen])

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Store samples of the experience."""
        data = TensorDataset(*trainer.train_dataloader.dataset.tensors)
        self.buffer.add(data, origin=f"experience {len(self.buffer)}")

    def state_dict(self) -> dict[str, Any]:
        """Return the stored samples."""
        return {"buffer": self.buffer.state_dict()}
