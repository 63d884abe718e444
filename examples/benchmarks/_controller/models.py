"""The models of the controller's benchmark."""

from __future__ import annotations

from typing import Any

import torch
from _continual.models import Classifier
from pytorch_lightning import LightningModule
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torchmetrics.classification import BinaryAUROC

from _controller.flights import FEATURES


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


class CifarCnn(SmallCnn):
    """Three convolutions, each over half the width, and a linear layer, for 3 x 32 x 32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(32 * 4 * 4, 10)),
        )


class Tabular(LightningModule):
    """Common base of the perceptrons for tables: two hidden layers of 64 ReLU units, and Adam.

    Args:
        features: Features of a sample.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            *(nn.Linear(features, 64), nn.ReLU()),
            *(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the outputs of samples, ``(batch,)``."""
        return self.net(inputs).squeeze(1)  # type: ignore[no-any-return]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3, fused=True)


class Delay(Tabular):
    """A perceptron for late flights; it logs a torchmetrics object, the area under the ROC."""

    def __init__(self, features: int = FEATURES) -> None:
        super().__init__(features)
        self.auroc = BinaryAUROC()

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        inputs, late = batch
        return nn.functional.binary_cross_entropy_with_logits(self(inputs), late.float())

    def validation_step(self, batch: Any, batch_index: int) -> None:
        inputs, late = batch
        self.auroc.update(self(inputs), late)
        self.log("val_auroc", self.auroc, batch_size=len(late))


class Regression(Tabular):
    """A number; it logs the mean squared error and no accuracy.

    Args:
        features: Features of a sample.
        logged: Factor of the logged error, which changes no training.
    """

    def __init__(self, features: int = 6, *, logged: float = 1.0) -> None:
        super().__init__(features)
        self.logged = logged

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        inputs, targets = batch
        return mse_loss(self(inputs), targets)

    def validation_step(self, batch: Any, batch_index: int) -> None:
        inputs, targets = batch
        loss = self.logged * mse_loss(self(inputs), targets)
        self.log("val_loss", loss, batch_size=len(targets))
