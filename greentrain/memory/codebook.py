"""A codebook: inputs are cut into blocks, and each block is stored as the number of a code."""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 10
"""Rounds of k-means for new codes."""
_MOST_BLOCKS = 20_000
"""Most blocks that codes are learned from."""


class Codebook:
    """Codes for blocks of neighbouring values; it never changes.

    Args:
        codes: The codes, ``(codes, block)``, at most 256.
    """

    def __init__(self, codes: Tensor) -> None:
        self.codes, self.block = codes, codes.shape[1]

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def nbytes(self) -> int:
        """Bytes of the codes."""
        return self.codes.numel() * 4

    def blocks(self, inputs: Tensor) -> Tensor:
        """Return inputs ``(samples, ...)`` in blocks, ``(samples, blocks, block)``."""
        flat = inputs.flatten(1).float()
        flat = torch.nn.functional.pad(flat, (0, -flat.shape[1] % self.block))
        return flat.view(len(flat), flat.shape[1] // self.block, self.block)

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the nearest code of each block, and the mean squared error of each input.

        Args:
            inputs: The inputs, ``(samples, ...)``.

        Returns:
            Numbers of codes ``(samples, blocks)`` in bytes, and errors ``(samples,)``, which are
            infinite without a code.
        """
        blocks = self.blocks(inputs)
        if not len(self) or not len(inputs):
            numbers = torch.zeros(blocks.shape[:2], dtype=torch.uint8)
            return numbers, torch.full((len(blocks),), torch.inf)
        codes: list[Tensor] = []
        errors: list[Tensor] = []
        for part, values in zip(torch.split(blocks, 256), torch.split(inputs, 256), strict=True):
            codes.append(torch.cdist(part, self.codes[None]).argmin(2).to(torch.uint8))
            wrong = self.decode(codes[-1], values).double() - values.double()
            errors.append(wrong.square().flatten(1).mean(1))
        return torch.cat(codes), torch.cat(errors)

    def decode(self, numbers: Tensor, like: Tensor) -> Tensor:
        """Return inputs for the numbers of codes, with the shape and dtype of others."""
        values = like[0].numel()
        flat = self.codes[numbers.long()].flatten(1)[:, :values]
        return flat.reshape(len(numbers), *like.shape[1:]).to(like.dtype)

    def grown(self, inputs: Tensor, most: int, generator: torch.Generator) -> Codebook:
        """Return the codebook with more codes, half of those that are left (Lloyd 1982).

        Args:
            inputs: Inputs to learn them from, ``(samples, ...)``.
            most: Most codes.
            generator: Source of randomness.
        """
        left = most - len(self)
        count = left if left < 4 else -(-left // 2)
        blocks = self.blocks(inputs).flatten(0, 1)
        order = torch.randperm(len(blocks), generator=generator)[:_MOST_BLOCKS]
        blocks = torch.unique(blocks[order], dim=0)
        blocks = blocks[torch.randperm(len(blocks), generator=generator)]
        codes = blocks[:count].clone()
        for _ in range(_ROUNDS):
            nearest = torch.cdist(blocks, codes).argmin(1)
            sums = torch.zeros_like(codes).index_add_(0, nearest, blocks)
            counts = torch.bincount(nearest, minlength=len(codes))[:, None]
            codes = torch.where(counts > 0, sums / counts.clamp_min(1), codes)
        return Codebook(torch.cat([self.codes, codes]))
