"""InterContiNet: weights as intervals, whose outputs have bounds that later tasks keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, mse_loss

from greentrain.errors import ConfigurationError
from greentrain.methods.multi_head import MultiHead
from greentrain.methods.task_conditioned import TaskConditioned
from greentrain.units import is_whole

_LEAST = 1e-12
"""The least radius: its logarithm is learned."""
_GAIN = 10.0
"""Factor of the learned logarithms: a step of Adam at 0.001 changes a radius by about 1 %."""


class Box(NamedTuple):
    """Values of the centre weights, and bounds for all weights of the intervals.

    Args:
        point: Values with the centre weights.
        lower: Lower bounds, of the same shape.
        upper: Upper bounds, of the same shape.
    """

    point: Tensor
    lower: Tensor
    upper: Tensor


class IntervalLinear(nn.Module):
    """A linear layer each of whose weights is an interval: a centre and a radius.

    Wolczyk et al. 2022. Bounds are computed from the centre and the radius of the inputs (Rump
    1999): radius of outputs ``|W| r + R (|x| + r)``. They hold for inputs of any sign, and are at
    most 1.5 times as wide as the tightest ones.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        radius: Radius of a fresh weight, relative to ``1 / sqrt(inputs)``.

    Example:
        >>> layer = IntervalLinear(2, 1, radius=0.0)
        >>> with torch.no_grad():
        ...     _ = layer.centre.copy_(torch.tensor([[1.0, -2.0, 0.5]]))  # the last is the bias
        ...     layer.set_radius(torch.tensor([[0.1, 0.1, 0.0]]))
        >>> x = torch.tensor([[3.0, 1.0]])  # 1.5, give or take 0.1 * 3 + 0.1 * 1
        >>> [round(part.item(), 4) for part in layer(Box(x, x, x))]
        [1.5, 1.1, 1.9]
    """

    lowest: Tensor
    highest: Tensor

    def __init__(self, inputs: int, outputs: int, *, radius: float) -> None:
        super().__init__()
        size = 1 / math.sqrt(inputs)
        self.centre = nn.Parameter(torch.empty(outputs, inputs + 1).uniform_(-size, size))
        self.raw_radius = nn.Parameter(torch.empty(outputs, inputs + 1))
        self.set_radius(torch.full((outputs, inputs + 1), radius * size))
        self.register_buffer("lowest", torch.full((outputs, inputs + 1), -torch.inf))
        self.register_buffer("highest", torch.full((outputs, inputs + 1), torch.inf))

    @property
    def radius(self) -> Tensor:
        """Radius of each weight, ``(outputs, inputs + 1)``; the last is that of the bias."""
        return self.log_radius.exp()

    @property
    def log_radius(self) -> Tensor:
        """Natural logarithm of the radius of each weight."""
        return _GAIN * self.raw_radius

    @torch.no_grad()
    def set_radius(self, radius: Tensor) -> None:
        """Set the radius of each weight."""
        self.raw_radius.copy_(radius.clamp_min(_LEAST).log() / _GAIN)

    def forward(self, box: Box, *, radii_only: bool = False) -> Box:
        """Return the outputs of the centre, and their bounds.

        Args:
            box: The inputs.
            radii_only: Whether gradients reach the radii only.
        """
        centres = self.centre.detach() if radii_only else self.centre
        weight, bias = centres[:, :-1], centres[:, -1]
        point = linear(box.point, weight, bias)
        middle, half = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
        centre = linear(middle, weight, bias)
        radius = self.radius
        wide = linear(middle.abs() + half, radius[:, :-1], radius[:, -1])
        wide = wide + linear(half, weight.abs())
        return Box(point, centre - wide, centre + wide)

    @torch.no_grad()
    def project(self) -> None:
        """Move centre and radius so that the interval is within that of the earlier tasks."""
        self.centre.copy_(self.centre.clamp(self.lowest, self.highest))
        room = torch.minimum(self.highest - self.centre, self.centre - self.lowest)
        self.set_radius(torch.minimum(self.radius, room))

    @torch.no_grad()
    def consolidate(self) -> None:
        """Keep later tasks within the present interval."""
        self.project()
        self.lowest.copy_(self.centre - self.radius)
        self.highest.copy_(self.centre + self.radius)


class InterContiNet(TaskConditioned):
    """A perceptron of interval weights, with one head of plain weights for each task.

    Wolczyk et al. 2022. All weights within the hyperrectangle of a task keep its outputs within
    bounds. Later tasks stay within it, so its worst case holds after them. Train on
    :meth:`loss`, call :meth:`project` after each optimizer step, and :meth:`consolidate` after each
    task. The memory of the hidden layers is four numbers a weight, for any number of tasks.

    The paper trains centres and radii in turns, and keeps intervals in shape by a change of
    variables. Here both are trained at once, and projected; radii are learned as logarithms.

    Args:
        widths: Inputs, and units of each hidden layer.
        outputs: Outputs of each head.
        tasks: Number of heads to start with.
        radius: Radius of fresh weights, relative to ``1 / sqrt(inputs)`` of a layer.

    Raises:
        ConfigurationError: If there is no hidden layer, or a number is out of range.

    Example:
        >>> net = InterContiNet([4, 8], 2, tasks=2)
        >>> box = net.bounds(torch.rand(3, 4), 1)
        >>> bool((box.lower <= box.point).all() and (box.point <= box.upper).all())
        True
    """

    def __init__(
        self, widths: Sequence[int], outputs: int, *, tasks: int = 1, radius: float = 0.01
    ) -> None:
        super().__init__(tasks)
        if len(widths) < 2 or not all(is_whole(each, 1) for each in widths) or not radius >= 0:
            raise ConfigurationError(
                f"widths is {list(widths)!r} and radius {radius!r}; give inputs and one or more "
                "hidden layers, such as [784, 400, 400], and a radius of 0 or more"
            )
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(IntervalLinear(*pair, radius=radius) for pair in pairs)
        self.heads = MultiHead(widths[-1], outputs, tasks=tasks)
        self.tasks = self.heads.tasks

    def add_task(self) -> int:
        """Add a head, and return its number."""
        self.tasks += 1
        return self.heads.add_task()

    @property
    def bytes_per_task(self) -> int:
        """Bytes of a head."""
        return self.heads.bytes_per_task

    def forward_task(self, inputs: Tensor, task: int) -> Tensor:
        """Return the outputs of the centre, ``(batch, outputs)``."""
        hidden = inputs.flatten(1)
        for layer in self._layers():
            hidden = linear(hidden, layer.centre[:, :-1], layer.centre[:, -1]).relu()
        return self.heads.forward_task(hidden, task)

    def bounds(self, inputs: Tensor, task: int | None = None, *, radii_only: bool = False) -> Box:
        """Return the outputs of the centre, and bounds for all weights of the intervals.

        Args:
            inputs: A batch.
            task: The task; :attr:`task` unless given.
            radii_only: Whether gradients reach the radii only.
        """
        number = self.task if task is None else self.checked(task)
        flat = inputs.flatten(1)
        box = Box(flat, flat, flat)
        for layer in self._layers():
            box = Box(*(part.relu() for part in layer(box, radii_only=radii_only)))
        middle, half = (box.upper + box.lower) / 2, (box.upper - box.lower) / 2
        centre = self.heads.forward_task(middle, number)
        wide = linear(half, self.heads.weight(number).abs())
        point = self.heads.forward_task(box.point, number)
        return Box(point, centre - wide, centre + wide)

    def loss(
        self,
        inputs: Tensor,
        targets: Tensor,
        task: int | None = None,
        *,
        robust: float = 1.0,
        width: float = 0.1,
    ) -> Tensor:
        """Return the loss of the centre, of the worst case, and minus the size of intervals.

        The worst case teaches the radii only. Else it would teach the centres to use few units,
        and leave nothing for later tasks.

        The worst case of classes is the lower bound of the right logit, and the upper ones of the
        others. That of a regression is the bound that is farther from the target.

        Args:
            inputs: A batch.
            targets: Classes ``(batch,)``, or values ``(batch, outputs)`` of a regression.
            task: The task; :attr:`task` unless given.
            robust: Weight of the worst case.
            width: Weight of the mean logarithm of the radii: larger intervals leave more room for
                later tasks.
        """
        number = self.task if task is None else self.checked(task)
        outputs = self.forward_task(inputs, number)
        box = self.bounds(inputs, number, radii_only=True)
        if targets.is_floating_point():
            farther = torch.maximum((box.lower - targets).square(), (box.upper - targets).square())
            point, worst = mse_loss(outputs, targets), farther.mean()
        else:
            right = torch.nn.functional.one_hot(targets, outputs.shape[1]).bool()
            point = cross_entropy(outputs, targets)
            worst = cross_entropy(torch.where(right, box.lower, box.upper), targets)
        radii = [layer.log_radius.mean() for layer in self._layers()]
        return point + robust * worst - width * torch.stack(radii).mean()

    def project(self) -> None:
        """Move all weights back into the hyperrectangle of the earlier tasks."""
        for layer in self._layers():
            layer.project()

    def consolidate(self) -> None:
        """Keep later tasks within the present hyperrectangle."""
        for layer in self._layers():
            layer.consolidate()

    def _layers(self) -> list[IntervalLinear]:
        return [layer for layer in self.layers if isinstance(layer, IntervalLinear)]
