"""The models of the controller's benchmark."""

from __future__ import annotations

from typing import Any

import torch
from _continual.models import Classifier, Perceptron
from torch import nn
from torch.nn.functional import cross_entropy


class SmallCnn(Classifier):
    """Two convolutions with pooling and one linear layer, for images of 28 x 28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(16 * 7 * 7, 10)),
        )

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        images, labels = batch
        return cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)


def model_of(stream: str) -> type[Classifier]:
    """Return the model of a stream."""
    return SmallCnn if stream.endswith("_cnn") else Perceptron
