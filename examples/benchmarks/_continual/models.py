"""The perceptrons of the protocols, with their losses and learning rates."""

from __future__ import annotations

import math
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy, pad

_MEAN, _DEVIATION = 0.1307, 0.3081  # of MNIST's training pixels
_MOST, _LEAST = 0.05, 0.0005  # GDumb's learning rates
_MARGIN = 4  # pixels by which GDumb's random crops move an image


class Classifier(LightningModule):
    """Common base of the models: classification of images, and its accuracy."""

    net: nn.Module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images, ``(batch, classes)``."""
        return self.net(images)  # type: ignore[no-any-return]

    def validation_step(self, batch: Any, batch_index: int) -> None:
        images, labels = batch
        right = self(images).argmax(1) == labels
        self.log("val_acc", right.float().mean(), batch_size=len(labels))


class Perceptron(Classifier):
    """Two hidden layers of 400 ReLU units and Adam, as in van de Ven's Split MNIST.

    Args:
        classes: Number of logits: 10 class-incremental, 2 domain-incremental.
        new_share: Weight of the new half of a replay batch, the rest for the stored half; ``None``
            for the plain mean over the batch.
        pixels: Pixels of an image.
    """

    def __init__(
        self, classes: int = 10, new_share: float | None = None, pixels: int = 784
    ) -> None:
        super().__init__()
        self.new_share = new_share
        self.net = nn.Sequential(
            *(nn.Flatten(), nn.Linear(pixels, 400), nn.ReLU()),
            *(nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, classes)),
        )

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        images, labels = batch
        logits = self(images)
        if self.new_share is None:
            return cross_entropy(logits, labels)
        half = len(labels) // 2  # the new samples come first
        new = cross_entropy(logits[:half], labels[:half])
        stored = cross_entropy(logits[half:], labels[half:])
        return self.new_share * new + (1 - self.new_share) * stored

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)


class GDumb(Classifier):
    """GDumb's perceptron: BatchNorm after each layer, random crops, SGD with warm restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(784, 400, bias=False), nn.BatchNorm1d(400, eps=1e-6), nn.ReLU()),
            *(nn.Linear(400, 400, bias=False), nn.BatchNorm1d(400, eps=1e-6), nn.ReLU()),
            *(nn.Linear(400, 10, bias=False), nn.BatchNorm1d(10, eps=1e-6)),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward((images - _MEAN) / _DEVIATION)

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        images, labels = batch
        return cross_entropy(self(cropped(images)), labels)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=_MOST, momentum=0.9, weight_decay=1e-6)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: rate(epoch) / _MOST)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule}}


def rate(epoch: int) -> float:
    """Return GDumb's learning rate in an epoch, counted from 0.

    One epoch at a tenth, then cosines that restart after 1, 2, 4, 8... epochs (Prabhu et al. 2020,
    "GDumb", section 4; SGDR, Loshchilov & Hutter 2017, equation 5).

    Example:
        >>> [round(rate(epoch), 4) for epoch in range(5)]
        [0.005, 0.05, 0.05, 0.0253, 0.05]
    """
    if epoch == 0:
        return _MOST / 10
    length = 2 ** int(math.log2(epoch))
    done = (epoch - length) / length
    return _LEAST + (_MOST - _LEAST) * (1 + math.cos(math.pi * done)) / 2


def cropped(images: torch.Tensor) -> torch.Tensor:
    """Shift each image by up to four pixels in each direction, with black at the new edges.

    Args:
        images: ``(batch, channels, height, width)``.
    """
    height, width = images.shape[-2:]
    places = torch.randint(2 * _MARGIN + 1, (len(images), 2)).tolist()
    padded = pad(images, (_MARGIN,) * 4)
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, (top, left) in zip(padded, places, strict=True)
        ]
    )
