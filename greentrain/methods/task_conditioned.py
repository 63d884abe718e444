"""Base of networks with parts for each task."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn

from greentrain.errors import ConfigurationError
from greentrain.units import is_whole


class TaskConditioned(nn.Module, abc.ABC):
    """A network whose forward pass depends on the number of a task.

    Give the task with the batch, ``net(inputs, task)``, or set it before: ``net.task = 2``. Tasks
    count from 0. A tensor of tasks may differ within a batch, if outputs have one shape.

    A subclass defines :meth:`forward_task` and :meth:`add_task`. Outputs are logits of classes or
    values of a regression.

    Args:
        tasks: Number of tasks to start with, at least 1.

    Attributes:
        tasks: Number of tasks.

    Raises:
        ConfigurationError: If there is no task.
    """

    def __init__(self, tasks: int = 1) -> None:
        super().__init__()
        if not is_whole(tasks, 1):
            raise ConfigurationError(f"tasks is {tasks!r}; it must be a whole number from 1 on")
        self.tasks = 0
        self._task = 0

    @property
    def task(self) -> int:
        """The task of a forward pass without one."""
        return self._task

    @task.setter
    def task(self, task: int) -> None:
        self._task = self.checked(task)

    @abc.abstractmethod
    def forward_task(self, inputs: Tensor, task: int) -> Tensor:
        """Return the outputs for one task, ``(batch, outputs)``."""

    @abc.abstractmethod
    def add_task(self) -> int:
        """Add the parts of one more task, and return its number.

        Optimizers are made before a fit, so add tasks between fits. To load a checkpoint, make the
        network with as many tasks first.
        """

    @property
    @abc.abstractmethod
    def bytes_per_task(self) -> int:
        """Bytes that the last task adds to the stored model."""

    def forward(self, inputs: Tensor, task: int | Tensor | None = None) -> Tensor:
        """Return the outputs for the task of the batch, or of each sample.

        Args:
            inputs: A batch, ``(batch, ...)``.
            task: The task; that of each sample, ``(batch,)``; or ``None`` for :attr:`task`.

        Raises:
            ConfigurationError: If there is no such task, or not one for each sample.
        """
        if not isinstance(task, Tensor):
            return self.forward_task(inputs, self._task if task is None else self.checked(task))
        numbers = torch.unique(task).tolist()
        if len(numbers) == 1:
            return self.forward_task(inputs, self.checked(numbers[0]))
        if task.shape != inputs.shape[:1]:
            raise ConfigurationError(
                f"tasks are {list(task.shape)} for a batch of {len(inputs)}; give one for each "
                "sample"
            )
        places = [(task == number).nonzero().flatten() for number in numbers]
        parts = [
            self.forward_task(inputs[at.to(inputs.device)], self.checked(number))
            for number, at in zip(numbers, places, strict=True)
        ]
        order = torch.cat(places).argsort()
        return torch.cat(parts)[order.to(inputs.device)]

    def checked(self, task: object) -> int:
        """Return the number of a task.

        Raises:
            ConfigurationError: If there is no such task.
        """
        if not is_whole(task) or not 0 <= int(task) < self.tasks:
            raise ConfigurationError(
                f"the task is {task!r}, and there are {self.tasks}, counted from 0; call "
                "add_task() before the first fit of a new one"
            )
        return int(task)


def set_task(module: nn.Module, task: int) -> None:
    """Set the task of all parts of a module that have tasks.

    Raises:
        ConfigurationError: If no part has tasks, or one has no such task.

    Example:
        >>> from greentrain.methods import MultiHead, set_task
        >>> model = nn.ModuleDict({"heads": MultiHead(4, 2, tasks=3)})
        >>> set_task(model, 2)
        >>> model["heads"].task
        2
    """
    parts = [each for each in module.modules() if isinstance(each, TaskConditioned)]
    if not parts:
        raise ConfigurationError(
            f"{type(module).__name__} has no part with tasks, so no task can be set; use a network "
            "such as MultiHead or Piggyback in it"
        )
    for each in parts:
        each.task = task


def size_bytes(module: nn.Module) -> int:
    """Return the bytes of all parameters of a module."""
    return sum(each.numel() * each.element_size() for each in module.parameters())
