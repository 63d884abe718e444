"""Scenes of textured shapes: images, the class of each pixel, and a drift over time.

A class is a texture in a colour. One combination is never trained on: checks in blue.
"""

from __future__ import annotations

import torch
from torch.utils.data import TensorDataset

from greentrain.streams import Experience

SIDE = 32
BACKGROUND = 0
COLOURS = torch.tensor([[0.9, 0.2, 0.2], [0.2, 0.8, 0.2], [0.25, 0.3, 0.95]])
CLASSES = [(texture, colour) for texture in range(2) for colour in range(3)]
"""Texture (stripes, checks) and colour (red, green, blue) of the classes from 1 on."""
UNSEEN = len(CLASSES)
"""The last class."""


def scenes(count: int, *, seed: int, drift: float, unseen: bool = False) -> TensorDataset:
    """Return images with three shapes each.

    Args:
        count: Number of images.
        seed: Seed of shapes and noise.
        drift: From 0 to 1: darker, noisier, and with coarser textures.
        unseen: Whether the class that is never trained on occurs.

    Returns:
        Images ``(count, 3, 32, 32)`` in about [0, 1], and classes of pixels ``(count, 32, 32)``.
    """
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    images = torch.full((count, 3, SIDE, SIDE), 0.5)
    labels = torch.zeros(count, SIDE, SIDE, dtype=torch.long)
    period = 2 + round(2 * drift)
    textures = torch.stack(
        [(rows + columns) // period % 2, (rows // period + columns // period) % 2]
    )
    table = torch.tensor(CLASSES)
    for _ in range(3):
        y, x = torch.randint(4, SIDE - 4, (2, count, 1, 1), generator=random)
        size = torch.randint(5, 10, (count, 1, 1), generator=random)
        disc = torch.rand(count, 1, 1, generator=random) < 0.5
        down, right = rows - y, columns - x
        inside = torch.where(
            disc, down**2 + right**2 < size**2, (down.abs() < size) & (right.abs() < size)
        )
        kinds = torch.randint(1, UNSEEN + int(unseen), (count,), generator=random)
        texture, colour = table[kinds - 1].T
        pixels = COLOURS[colour][:, :, None, None] * (0.35 + 0.65 * textures[texture][:, None])
        images = torch.where(inside[:, None], pixels, images)
        labels = torch.where(inside, kinds[:, None, None], labels)
    noise = (0.05 + 0.1 * drift) * torch.randn(images.shape, generator=random)
    return TensorDataset((1 - 0.5 * drift) * images + noise, labels)


def stream(experiences: int, images: int) -> list[Experience]:
    """Return experiences of which each has drifted further than the one before."""
    found = []
    for number in range(experiences):
        drift = number / max(1, experiences - 1)
        train, val = (
            scenes(images // part, seed=10 * number + part, drift=drift) for part in (1, 4)
        )
        found.append(Experience(f"week {number + 1}", train, val))
    return found
