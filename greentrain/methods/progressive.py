"""Progressive neural networks: a new column for each task, and a router by reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from greentrain.errors import ConfigurationError
from greentrain.methods.task_conditioned import TaskConditioned, size_bytes
from greentrain.units import is_whole


class ProgressiveNetwork(TaskConditioned):
    """A column of layers for each task, with lateral connections from the earlier ones.

    Rusu et al. 2016, equation 2: a layer also takes the hidden units of all earlier columns, times
    a learned factor, through an adapter of one hidden layer. :meth:`add_task` freezes the columns
    so far, so nothing is forgotten. Weights and operations grow with each task.

    Args:
        widths: Inputs, units of each hidden layer, and outputs of a column.
        adapter: Hidden units of an adapter.
        tasks: Number of columns to start with; all but the last are frozen.

    Raises:
        ConfigurationError: If there is no hidden layer, or a number is below 1.

    Example:
        >>> net = ProgressiveNetwork([4, 6, 2], adapter=3)
        >>> first = net.bytes_per_task  # 4 * (4 * 6 + 6 + 6 * 2 + 2)
        >>> net.add_task(), first, net.bytes_per_task  # more by 6 * 3 + 3 + 3 * 2 + 1
        (1, 176, 288)
        >>> tuple(net(torch.zeros(5, 4), 1).shape)
        (5, 2)
    """

    def __init__(self, widths: Sequence[int], *, adapter: int = 16, tasks: int = 1) -> None:
        super().__init__(tasks)
        if len(widths) < 3 or not all(is_whole(each, 1) for each in (*widths, adapter)):
            raise ConfigurationError(
                f"widths is {list(widths)!r} and adapter {adapter!r}; give inputs, one or more "
                "hidden layers and outputs, such as [784, 100, 100, 2], all from 1 on"
            )
        self.widths, self.adapter = [int(each) for each in widths], int(adapter)
        self.columns = nn.ModuleList()
        for _ in range(tasks):
            self.add_task()

    def add_task(self) -> int:
        """Freeze the columns so far, add one, and return its number."""
        like = next(self.columns.parameters(), None)
        self.columns.requires_grad_(False)
        column = _Column(self.widths, self.adapter, self.tasks)
        self.columns.append(column if like is None else column.to(like))
        self.tasks += 1
        return self.tasks - 1

    @property
    def bytes_per_task(self) -> int:
        """Bytes of the last column, with its adapters."""
        return size_bytes(self.columns[-1])

    def forward_task(self, inputs: Tensor, task: int) -> Tensor:
        """Return the outputs of one column, ``(batch, outputs)``."""
        hidden: list[Tensor] = [inputs.flatten(1)] * (task + 1)
        columns = [each for each in self.columns if isinstance(each, _Column)][: task + 1]
        for layer in range(len(self.widths) - 1):
            hidden = [
                column.layer(layer, hidden[number], hidden[:number])
                for number, column in enumerate(columns)
            ]
        return hidden[task]


class _Column(nn.Module):
    """The layers of one column, and its adapters to the earlier ones."""

    def __init__(self, widths: Sequence[int], adapter: int, earlier: int) -> None:
        super().__init__()
        pairs = list(pairwise(widths))
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairs)
        self.factors = nn.ParameterList()
        self.adapters = nn.ModuleList()
        for width, after in pairs[1:] if earlier else ():
            self.factors.append(nn.Parameter(torch.full((earlier,), 1.0 / earlier)))
            self.adapters.append(
                nn.Sequential(
                    nn.Linear(earlier * width, adapter),
                    nn.ReLU(),
                    nn.Linear(adapter, after, bias=False),
                )
            )

    def layer(self, number: int, own: Tensor, earlier: Sequence[Tensor]) -> Tensor:
        """Return what a layer computes from its own column and the earlier ones."""
        result: Tensor = self.layers[number](own)
        if number and earlier:
            factors = self.factors[number - 1]
            scaled = [factor * each for factor, each in zip(factors, earlier, strict=True)]
            result = result + self.adapters[number - 1](torch.cat(scaled, dim=1))
        return result if number == len(self.layers) - 1 else result.relu()


class ColumnRouter(nn.Module):
    """An autoencoder for each task: samples go to the task that reconstructs them best.

    With a :class:`ProgressiveNetwork`, this builds columns without known tasks (Sadowski et al.
    2021 route by reconstruction loss, too). The rule for a new column is ours: it is due if most
    samples of a batch are reconstructed worse than ``tolerance`` times the mean error that
    :meth:`finish` measured.

    Args:
        features: Values of an input.
        hidden: Hidden units of an autoencoder.
        tolerance: Factor on the mean error, above 1.

    Raises:
        ConfigurationError: If a number is out of range.

    Example:
        >>> router = ColumnRouter(3, hidden=2)
        >>> router.is_new(torch.zeros(4, 3))  # no task yet
        True
        >>> router.add_task()
        0
        >>> router.route(torch.zeros(2, 3)).tolist()
        [0, 0]
    """

    known_error: Tensor

    def __init__(self, features: int, *, hidden: int = 32, tolerance: float = 2.0) -> None:
        super().__init__()
        if not (is_whole(features, 1) and is_whole(hidden, 1)) or not tolerance > 1:
            raise ConfigurationError(
                f"features is {features!r}, hidden {hidden!r} and tolerance {tolerance!r}; the "
                "first two are whole numbers from 1 on, and the last is above 1"
            )
        self.features, self.hidden = int(features), int(hidden)
        self.tolerance = float(tolerance)
        self.coders = nn.ModuleList()
        self.register_buffer("known_error", torch.zeros(0))

    def add_task(self) -> int:
        """Add an autoencoder, and return the number of its task."""
        like = next(self.coders.parameters(), None)
        self.coders.requires_grad_(False)
        coder = nn.Sequential(
            nn.Linear(self.features, self.hidden),
            nn.ReLU(),
            nn.Linear(self.hidden, self.features),
        )
        self.coders.append(coder if like is None else coder.to(like))
        self.known_error = torch.cat([self.known_error, self.known_error.new_full((1,), torch.inf)])
        return len(self.coders) - 1

    def loss(self, inputs: Tensor, task: int) -> Tensor:
        """Return the mean squared error of a task's reconstruction; train on it."""
        flat = inputs.flatten(1)
        return mse_loss(self.coders[task](flat), flat)

    @torch.no_grad()
    def errors(self, inputs: Tensor) -> Tensor:
        """Return the error of each task for each sample, ``(batch, tasks)``."""
        flat = inputs.flatten(1)
        parts = [(coder(flat) - flat).square().mean(dim=1) for coder in self.coders]
        return torch.stack(parts, dim=1)

    def finish(self, inputs: Tensor, task: int) -> None:
        """Measure the mean error of a task that was learned, on some of its samples."""
        self.known_error[task] = self.errors(inputs)[:, task].mean()

    def route(self, inputs: Tensor) -> Tensor:
        """Return the task of each sample, ``(batch,)``, for ``net(inputs, tasks)``."""
        return self.errors(inputs).argmin(dim=1)

    def is_new(self, inputs: Tensor) -> bool:
        """Return whether a batch needs a new column."""
        if not len(self.coders):
            return True
        relative = (self.errors(inputs) / self.known_error).amin(dim=1)
        return bool((relative > self.tolerance).float().mean() > 0.5)
