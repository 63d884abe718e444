"""Augment batches of images, on any device: shifts, turns, cut-outs and changes of contrast."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

from greentrain.errors import ConfigurationError

_MOST_TURN = math.pi / 6
_MOST_STRETCH = 0.2
_MOST_SHEAR = 0.3


def weakly_augmented(images: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its size (Sohn et al. 2020, section 2.3).

    Args:
        images: ``(batch, channels, height, width)``.

    Returns:
        The same shape, with the smallest value of the batch at the new edges.

    Raises:
        ConfigurationError: If the inputs are no images.

    Example:
        >>> weakly_augmented(torch.ones(2, 1, 16, 16)).shape
        torch.Size([2, 1, 16, 16])
    """
    if images.ndim != 4:
        raise ConfigurationError(
            f"the inputs have {images.ndim} dimensions, and only images (batch, channels, height, "
            "width) can be shifted; reshape them, or give functions for other inputs"
        )
    height, width = images.shape[-2:]
    most = max(1, height // 8), max(1, width // 8)
    padded = pad(images, (most[1], most[1], most[0], most[0]), value=float(images.amin()))
    count, device = len(images), images.device
    top = torch.randint(2 * most[0] + 1, (count, 1), device=device)
    left = torch.randint(2 * most[1] + 1, (count, 1), device=device)
    rows = top + torch.arange(height, device=device)
    columns = left + torch.arange(width, device=device)
    samples = torch.arange(count, device=device)[:, None, None]
    return padded[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def strongly_augmented(images: Tensor) -> Tensor:
    """Shift, turn, stretch and shear each image, change its contrast, and cut a square out.

    Turns are up to 30 degrees, stretches up to 20 %, and shears up to 0.3, as in RandAugment (Cubuk
    et al. 2020, arXiv 1909.13719), which FixMatch uses. Contrast and brightness change as well. The
    cut-out has half the width (DeVries & Taylor 2017, arXiv 1708.04552).

    Args:
        images: ``(batch, channels, height, width)``.

    Example:
        >>> strongly_augmented(torch.ones(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """
    shifted = _moved(weakly_augmented(images))
    count, device = len(images), images.device
    least, most = float(images.amin()), float(images.amax())
    scale = 0.5 + torch.rand(count, 1, 1, 1, device=device)
    offset = 0.4 * (torch.rand(count, 1, 1, 1, device=device) - 0.5) * (most - least)
    mean = shifted.mean((1, 2, 3), keepdim=True)
    changed = ((shifted - mean) * scale + mean + offset).clamp(least, most)
    height, width = images.shape[-2:]
    center = torch.rand(count, 2, device=device) * torch.tensor([height, width], device=device)
    rows = (torch.arange(height, device=device) - center[:, :1]).abs() < height / 4
    columns = (torch.arange(width, device=device) - center[:, 1:]).abs() < width / 4
    cut = (rows[:, :, None] & columns[:, None, :])[:, None]
    return torch.where(cut, mean, changed).to(images.dtype)


def _moved(images: Tensor) -> Tensor:
    """Turn, stretch and shear each image by chance, with the smallest value at the new edges."""
    count, device, floating = len(images), images.device, images.float()

    def chance(most: float) -> Tensor:
        return most * (2 * torch.rand(count, device=device) - 1)

    turn, shear, stretch = chance(_MOST_TURN), chance(_MOST_SHEAR), 1 + chance(_MOST_STRETCH)
    cosine, sine = turn.cos() / stretch, turn.sin() / stretch
    zero = torch.zeros_like(turn)
    first = torch.stack([cosine, shear * cosine - sine, zero], 1)
    second = torch.stack([sine, shear * sine + cosine, zero], 1)
    grid = affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    least = floating.amin()
    moved = grid_sample(floating - least, grid, align_corners=False) + least
    return moved.to(images.dtype)
