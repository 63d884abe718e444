"""A light SegFormer (Xie et al. 2021, arXiv 2105.15203) for images of 32 x 32 pixels."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import interpolate


class Attention(nn.Module):
    """Efficient self-attention: keys and values are of an image that is smaller by a factor."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(width, width), nn.Linear(width, width)
        self.reduce = nn.Conv2d(width, width, reduction, stride=reduction)
        self.norm, self.key_value = nn.LayerNorm(width), nn.Linear(width, 2 * width)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image of the same shape, ``(batch, width, height, width)``."""
        query = self._split(self.query(image.flatten(2).mT))
        small = self.norm(self.reduce(image).flatten(2).mT)
        key, value = (self._split(each) for each in self.key_value(small).chunk(2, dim=2))
        weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(3)
        return self.out((weights @ value).mT.flatten(1, 2).mT).mT.view_as(image)

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Attention, then a perceptron with a convolution in it, which carries positions."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(1, width) for _ in range(2))
        self.attention = Attention(width, heads, reduction)
        self.mix = nn.Sequential(
            nn.Conv2d(width, 4 * width, 1),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1, groups=4 * width),
            *(nn.GELU(), nn.Conv2d(4 * width, width, 1)),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return an image of the same shape."""
        image = image + self.attention(self.norms[0](image))
        return image + self.mix(self.norms[1](image))


class SegFormer(nn.Module):
    """Two stages of overlapping patches and blocks, whose outputs a 1 x 1 convolution joins."""

    def __init__(self, outputs: int, widths: tuple[int, int] = (24, 48)) -> None:
        super().__init__()
        first, second = widths
        self.patches = nn.ModuleList(
            [nn.Conv2d(3, first, 5, 2, 2), nn.Conv2d(first, second, 3, 2, 1)]
        )
        self.blocks = nn.ModuleList([Block(first, 1, 4), Block(second, 2, 2)])
        self.project = nn.ModuleList(nn.Conv2d(width, 32, 1) for width in widths)
        self.join = nn.Sequential(nn.Conv2d(64, 32, 1), nn.ReLU(), nn.Conv2d(32, outputs, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the outputs of each pixel, ``(batch, outputs, height, width)``."""
        parts, each = [], images
        for patch, block, project in zip(self.patches, self.blocks, self.project, strict=True):
            each = block(patch(each))
            parts.append(interpolate(project(each), images.shape[2:], mode="bilinear"))
        return self.join(torch.cat(parts, dim=1))
