"""The network of the benchmark of reuse, and the operations of its parts for one sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from _continual.models import Classifier
from pytorch_lightning import Trainer
from torch import nn
from torch.nn.functional import avg_pool2d, cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from _reuse.counting import J_PER_OPERATION, counted


class Cnn(Classifier):
    """Two convolutions with pooling, the trunk, and two linear layers, the head.

    For images of 14 x 14 pixels: see :func:`halved`.

    Args:
        epochs: Epochs of the fit, over which Adam's rate falls from 0.001 in a line to 0.
    """

    def __init__(self, epochs: int = 1) -> None:
        super().__init__()
        self.epochs = epochs
        self.trunk = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        )
        self.head = nn.Sequential(nn.Linear(16 * 3 * 3, 32), nn.ReLU(), nn.Linear(32, 10))
        self.net = nn.Sequential(self.trunk, self.head)

    def training_step(self, batch: Any, batch_index: int) -> dict[str, torch.Tensor]:
        images, labels = batch
        losses = cross_entropy(self(images), labels, reduction="none")
        return {"loss": losses.mean(), "sample_losses": losses}

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda epoch: 1 - epoch / max(1, self.epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule}}


def halved(data: TensorDataset) -> TensorDataset:
    """Return images with half the width and height, the means of 2 x 2 pixels."""
    images, labels = data.tensors
    return TensorDataset(avg_pool2d(images, 2), labels)


def joules_of_a_sample() -> dict[str, float]:
    """Return the joules of one sample: through the trunk, the net, and in a step of each kind."""
    model, image = Cnn(), torch.zeros(1, 1, 14, 14)
    with counted() as trunk, torch.no_grad():
        features = model.trunk(image)
    with counted() as forward, torch.no_grad():
        model(image)
    with counted() as step:
        model(image).sum().backward()
    with counted() as head_step:
        model.head(features).sum().backward()
    parts = {"trunk": trunk, "forward": forward, "step": step, "head_step": head_step}
    return {name: each.total * J_PER_OPERATION for name, each in parts.items()}


def fit(model: Cnn, loader: DataLoader[Any], epochs: int, callbacks: Sequence[Any] = ()) -> None:
    """Train a model for some epochs."""
    model.epochs = epochs
    quiet = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=list(callbacks),
        **dict.fromkeys(quiet, False),  # type: ignore[arg-type]
    )
    trainer.fit(model, loader)


@torch.no_grad()
def accuracy(model: Classifier, test: TensorDataset) -> float:
    """Return the accuracy on test data, in percent."""
    model.eval()
    images, labels = test.tensors
    right = sum(
        int((model(part).argmax(1) == given).sum())
        for part, given in zip(images.split(500), labels.split(500), strict=True)
    )
    model.train()
    return 100 * right / len(labels)
