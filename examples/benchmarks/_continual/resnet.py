"""A ResNet-18 of a quarter of the usual width, trained until it fits its training data."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu

from _continual.models import Classifier

_WIDTHS = (16, 32, 64, 128)


class NarrowResNet(Classifier):
    """The network of Ash & Adams 2020, trained by Adam at 1e-3.

    Training ends with the first epoch in which enough samples were classified correctly, counted
    during the training steps.

    Args:
        until: Share of the training samples to classify correctly.
    """

    def __init__(self, until: float = 0.99) -> None:
        super().__init__()
        self.until = until
        self._right: list[torch.Tensor] = []
        self._seen = 0
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *_blocks(),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(_WIDTHS[-1], 10)),
        )

    def on_train_epoch_start(self) -> None:
        self._right, self._seen = [], 0

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        images, labels = batch
        logits = self(images)
        self._right.append((logits.detach().argmax(1) == labels).sum())
        self._seen += len(labels)
        return cross_entropy(logits, labels)

    def on_train_epoch_end(self) -> None:
        if int(sum(self._right)) >= self.until * self._seen:
            self.trainer.should_stop = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


class _Block(nn.Module):
    """Two convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
            *(nn.BatchNorm2d(after), nn.ReLU()),
            *(nn.Conv2d(after, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride=stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return relu(self.body(images) + self.shortcut(images))


def _blocks() -> list[_Block]:
    before, blocks = 16, []
    for width in _WIDTHS:
        blocks += [_Block(before, width, 1 if width == before else 2), _Block(width, width, 1)]
        before = width
    return blocks
