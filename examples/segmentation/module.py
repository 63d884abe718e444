"""A LightningModule whose classes are prototypes of textures and colours."""

from __future__ import annotations

import torch
from pytorch_lightning import LightningModule
from scenes import CLASSES, UNSEEN
from segformer import SegFormer
from torch.nn.functional import cross_entropy, normalize
from torchmetrics.classification import MulticlassJaccardIndex

SHARPNESS = 10.0


def prototypes() -> torch.Tensor:
    """Return a direction for each class, ``(classes, 6)``: background, textures and colours.

    A class that is never trained on has one, too: that of its texture plus that of its colour.
    """
    codes = torch.zeros(1 + len(CLASSES), 6)
    codes[0, 0] = 1.0
    for place, (texture, colour) in enumerate(CLASSES, start=1):
        codes[place, 1 + texture] = codes[place, 3 + colour] = 1.0
    return normalize(codes, dim=1)


class Segmentation(LightningModule):
    """Gives each pixel the class whose prototype is nearest to the pixel's embedding."""

    prototypes: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.net = SegFormer(outputs=6)
        self.register_buffer("prototypes", prototypes())
        self.iou = MulticlassJaccardIndex(num_classes=UNSEEN)

    def forward(self, images: torch.Tensor, *, unseen: bool = False) -> torch.Tensor:
        """Return logits, ``(batch, classes, height, width)``, with or without the unseen class."""
        known = self.prototypes if unseen else self.prototypes[:UNSEEN]
        embeddings = normalize(self.net(images), dim=1)
        return SHARPNESS * torch.einsum("behw,ce->bchw", embeddings, known)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of the pixels of a batch."""
        images, labels = batch
        return cross_entropy(self(images), labels)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the mean intersection over union of the classes."""
        images, labels = batch
        self.iou.update(self(images).argmax(1), labels)
        self.log("val_miou", self.iou)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=3e-3)
