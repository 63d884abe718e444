"""Changes of images: permuted pixels, rotation, and corruption by degrees.

Each function is deterministic, and returns an image of the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn import functional

# Seed of a sample's noise, made of seed, split and index, so that it is the same each time.
Key = tuple[int, ...]
_BLUR_PER_SIDE = 0.1


def permute(image: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Put the values of an image of any shape in another order."""
    return image.flatten()[order].reshape(image.shape)


def rotate(image: torch.Tensor, angle_deg: float) -> torch.Tensor:
    """Rotate an image about its centre by bilinear interpolation; new pixels at the edges are 0.

    Args:
        image: ``(..., height, width)``.
        angle_deg: Degrees, counter-clockwise.

    Example:
        >>> rotate(torch.tensor([[1.0, 0.0], [0.0, 0.0]]), 90.0).round(decimals=3)
        tensor([[0., 0.],
                [1., 0.]])
    """
    if angle_deg == 0.0:
        return image
    height, width = image.shape[-2:]
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    # The grid's unit is half a side, so the rotation of an oblong image needs the sides' ratio.
    turn = [[cos, -sin * height / width, 0.0], [sin * width / height, cos, 0.0]]
    flat = image.reshape(1, -1, height, width)
    grid = functional.affine_grid(
        torch.tensor([turn], dtype=image.dtype), list(flat.shape), align_corners=False
    )
    return functional.grid_sample(flat, grid, align_corners=False).reshape(image.shape)


def noise(image: torch.Tensor, severity: float, key: Key) -> torch.Tensor:
    """Add Gaussian noise with a standard deviation of ``severity``, and clamp to [0, 1]."""
    values = np.random.default_rng(key).standard_normal(tuple(image.shape), dtype=np.float32)
    return (image + severity * torch.from_numpy(values).to(image.dtype)).clamp(0.0, 1.0)


def blur(image: torch.Tensor, severity: float, key: Key) -> torch.Tensor:
    """Blur by a Gaussian with a standard deviation of ``severity`` tenths of the shorter side.

    Beyond its edges the image continues with the pixels at the edge.

    Args:
        image: ``(..., height, width)``.
        severity: Above 0 and up to 1.
        key: Not used.
    """
    height, width = image.shape[-2:]
    sigma = severity * _BLUR_PER_SIDE * min(height, width)
    reach = max(1, math.ceil(3 * sigma))
    # Integrated over each pixel: the value at its centre is wrong for a narrower Gaussian.
    edges = (torch.arange(-reach, reach + 2) - 0.5) / sigma
    weights = torch.special.ndtr(edges).diff().to(image.dtype)
    weights = weights / weights.sum()
    planes = image.reshape(-1, 1, height, width)
    planes = functional.pad(planes, (reach,) * 4, mode="replicate")
    planes = functional.conv2d(planes, weights.reshape(1, 1, 1, -1))
    planes = functional.conv2d(planes, weights.reshape(1, 1, -1, 1))
    return planes.reshape(image.shape)


def contrast(image: torch.Tensor, severity: float, key: Key) -> torch.Tensor:
    """Move each pixel towards the image's mean; at 1 only the mean is left."""
    mean = image.mean()
    return mean + (1.0 - severity) * (image - mean)


def invert(image: torch.Tensor, severity: float, key: Key) -> torch.Tensor:
    """Blend the image with its negative: even grey at 0.5, the negative at 1."""
    return (1.0 - severity) * image + severity * (1.0 - image)


KINDS: Mapping[str, Callable[[torch.Tensor, float, Key], torch.Tensor]] = {
    "blur": blur,
    "contrast": contrast,
    "invert": invert,
    "noise": noise,
}
