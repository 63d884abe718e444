"""Binary masks over fixed weights: Piggyback, and supermasks in superposition."""

from __future__ import annotations

import abc
import math
from typing import Self

import torch
from torch import Tensor, nn
from torch.func import functional_call

from greentrain.errors import ConfigurationError
from greentrain.methods.task_conditioned import TaskConditioned

_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, nn.GroupNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.LayerNorm),
    *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []),  # torch 2.4
)
"""Modules of normalisation: never masked, and always in evaluation mode."""


class MaskedNetwork(TaskConditioned, abc.ABC):
    """Binary masks over the fixed weights of a network, one set for each task.

    Tensors with two or more dimensions are masked. Others, such as biases, are fixed and shared. So
    is all normalisation: it stays in evaluation mode, and its statistics never change.

    A mask is learned by a real score for each weight, and its gradient goes through the mask
    unchanged. Scores take 4 bytes a weight while they are learned. What has to be stored of a task
    is a bit a weight: :meth:`mask_bits`.

    Args:
        net: The network; its parameters are fixed.
        tasks: Number of masks to start with.

    Raises:
        ConfigurationError: If the network has no weight to mask.
    """

    def __init__(self, net: nn.Module, *, tasks: int = 1) -> None:
        super().__init__(tasks)
        self.net = net.requires_grad_(False)
        fixed = {
            id(each)
            for part in net.modules()
            if isinstance(part, _NORMS)
            for each in part.parameters(recurse=False)
        }
        self._masked = [
            name for name, each in net.named_parameters() if each.ndim > 1 and id(each) not in fixed
        ]
        if not self._masked:
            raise ConfigurationError(
                f"{type(net).__name__} has no weights of two or more dimensions, so nothing can "
                "be masked; give a network with linear or convolutional layers"
            )
        self.scores = nn.ModuleList()
        self._fix_norms()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of training or evaluation of all parts but normalisation."""
        super().train(mode)
        self._fix_norms()
        return self

    def _fix_norms(self) -> None:
        for each in self.net.modules():
            if isinstance(each, _NORMS):
                each.eval()

    @abc.abstractmethod
    def first_score(self, weight: Tensor) -> Tensor:
        """Return the scores that a new task starts with, of the shape of a weight."""

    @abc.abstractmethod
    def mask_of(self, scores: Tensor) -> Tensor:
        """Return the mask of some scores: 0 and 1, without a gradient."""

    @abc.abstractmethod
    def scores_of(self, mask: Tensor) -> Tensor:
        """Return scores that have this mask."""

    def add_task(self) -> int:
        """Add a mask, and return its number."""
        self.scores.append(
            nn.ParameterList(self.first_score(each) for each in self.weights().values())
        )
        self.tasks += 1
        return self.tasks - 1

    @property
    def bytes_per_task(self) -> int:
        """Bytes of a mask: a bit for each weight."""
        return math.ceil(sum(each.numel() for each in self.weights().values()) / 8)

    def weights(self) -> dict[str, Tensor]:
        """Return the fixed weights that are masked, by name."""
        named = dict(self.net.named_parameters())
        return {name: named[name] for name in self._masked}

    def masks(self, task: int) -> list[Tensor]:
        """Return the masks of a task, in the order of the weights; scores get their gradients."""
        scores = self.scores[self.checked(task)].parameters()
        return [self.mask_of(each) + (each - each.detach()) for each in scores]

    def forward_task(self, inputs: Tensor, task: int) -> Tensor:
        """Return the outputs of the network with the masks of one task."""
        return self.forward_masks(inputs, self.masks(task))

    def forward_masks(self, inputs: Tensor, masks: list[Tensor]) -> Tensor:
        """Return the outputs of the network with given masks."""
        weights = self.weights()
        masked = {
            name: weight * mask for (name, weight), mask in zip(weights.items(), masks, strict=True)
        }
        return functional_call(self.net, masked, (inputs,))  # type: ignore[no-any-return]

    @torch.no_grad()
    def mask_bits(self, task: int) -> Tensor:
        """Return the masks of a task, eight to a byte, ``(bytes_per_task,)``."""
        flat = torch.cat([each.flatten() for each in self.masks(task)]).to(torch.uint8)
        padded = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(-1, 8)
        return (padded << torch.arange(8, dtype=torch.uint8, device=flat.device)).sum(1).byte()

    @torch.no_grad()
    def load_mask_bits(self, task: int, bits: Tensor) -> None:
        """Set the masks of a task to those of :meth:`mask_bits`.

        Raises:
            ConfigurationError: If they are of another network.
        """
        if bits.shape != (self.bytes_per_task,):
            raise ConfigurationError(
                f"the masks are {list(bits.shape)} bytes, and those of this network "
                f"[{self.bytes_per_task}]; give those of a network with the same weights"
            )
        shifts = torch.arange(8, dtype=torch.uint8, device=bits.device)
        flat = ((bits[:, None] >> shifts) & 1).flatten()
        for each in self.scores[self.checked(task)].parameters():
            mask, flat = flat[: each.numel()].view_as(each), flat[each.numel() :]
            each.copy_(self.scores_of(mask.to(each)))


class Piggyback(MaskedNetwork):
    """Learn which weights of a pretrained network a task uses.

    Mallya et al. 2018. A weight is used if its score is above the threshold. Scores start above
    it, so a task starts from the whole network. Use a :class:`MultiHead` on its features.

    Args:
        net: The pretrained network.
        tasks: Number of masks to start with.
        threshold: Scores above it use their weight.
        start: Scores of a new task.

    Raises:
        ConfigurationError: If the start is not above the threshold.

    Example:
        >>> net = Piggyback(nn.Linear(4, 3), tasks=2)
        >>> net.bytes_per_task  # 12 weights
        2
        >>> net.mask_bits(0).tolist()  # all weights are used
        [255, 15]
    """

    def __init__(
        self, net: nn.Module, *, tasks: int = 1, threshold: float = 5e-3, start: float = 1e-2
    ) -> None:
        super().__init__(net, tasks=tasks)
        if not start > threshold:
            raise ConfigurationError(
                f"start is {start!r} and threshold {threshold!r}; a new task uses all weights, so "
                "start must be above the threshold"
            )
        self.threshold, self.start = float(threshold), float(start)
        for _ in range(tasks):
            self.add_task()

    def first_score(self, weight: Tensor) -> Tensor:
        """Return scores of the start."""
        return torch.full_like(weight, self.start)

    def mask_of(self, scores: Tensor) -> Tensor:
        """Return 1 where a score is above the threshold."""
        return (scores > self.threshold).to(scores)

    def scores_of(self, mask: Tensor) -> Tensor:
        """Return the start where the mask is 1, and 0 below the threshold elsewhere."""
        return torch.where(mask > 0, self.start, 2 * self.threshold - self.start)


class SuperMasks(MaskedNetwork):
    """Learn a subnetwork of random weights for each task, and infer the task if it is unknown.

    Wortsman et al. 2020, "Supermasks in Superposition". Weights are set to random signs times a
    constant, and biases of their layers to 0, so a seed is enough to store them. Other parameters,
    such as the scale and shift of normalisation, keep their values. The largest scores of each
    layer are its mask.

    Args:
        net: The network; its weights are replaced.
        tasks: Number of masks to start with.
        density: Share of the weights of a layer that a task uses, above 0 and at most 1.
        seed: Seed of the random weights.

    Raises:
        ConfigurationError: If the density is out of range.

    Example:
        >>> net = SuperMasks(nn.Linear(8, 2), tasks=3, density=0.25)
        >>> [int(mask.sum()) for mask in net.masks(0)], net.bytes_per_task
        ([4], 2)
    """

    def __init__(
        self, net: nn.Module, *, tasks: int = 1, density: float = 0.5, seed: int = 0
    ) -> None:
        super().__init__(net, tasks=tasks)
        if not 0 < density <= 1:
            raise ConfigurationError(
                f"density is {density!r}; it is a share of the weights, above 0 and at most 1"
            )
        self.density = float(density)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            layers = {name.rpartition(".")[0] for name in self._masked}
            for layer in layers:
                for each in net.get_submodule(layer).parameters(recurse=False):
                    each.zero_()
            for weight in self.weights().values():
                signs = torch.randint(2, weight.shape, generator=generator) * 2 - 1
                weight.copy_(signs * math.sqrt(2.0 / weight[0].numel()))
        for _ in range(tasks):
            self.add_task()

    def first_score(self, weight: Tensor) -> Tensor:
        """Return random scores (Kaiming's uniform distribution)."""
        scores = torch.empty_like(weight)
        return nn.init.kaiming_uniform_(scores, a=math.sqrt(5))

    def mask_of(self, scores: Tensor) -> Tensor:
        """Return 1 for the largest scores."""
        count = max(1, round(self.density * scores.numel()))
        mask = torch.zeros(scores.numel(), dtype=scores.dtype, device=scores.device)
        mask[scores.detach().flatten().topk(count).indices] = 1.0
        return mask.view_as(scores)

    def scores_of(self, mask: Tensor) -> Tensor:
        """Return the mask itself."""
        return mask

    def infer(self, inputs: Tensor) -> int:
        """Return the task of a batch of one unknown task, in one gradient.

        Wortsman et al. 2020, equation 4: all masks are superposed with the same weight. The task is
        that whose weight, if raised, lowers the entropy of the outputs most. It takes outputs that
        are logits of classes.

        Args:
            inputs: A batch of one task.
        """
        with torch.enable_grad():
            shares = torch.full((self.tasks,), 1.0 / self.tasks, device=inputs.device)
            shares.requires_grad_(True)
            each = [[mask.detach() for mask in self.masks(task)] for task in range(self.tasks)]
            mixed = [
                sum(share * mask for share, mask in zip(shares, masks, strict=True))
                for masks in zip(*each, strict=True)
            ]
            log = self.forward_masks(inputs, mixed).log_softmax(dim=1)
            entropy = -(log.exp() * log).sum(dim=1).mean()
            [gradient] = torch.autograd.grad(entropy, shares)
        return int(gradient.argmin())
