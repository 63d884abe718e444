"""One head for each task."""

from __future__ import annotations

from torch import Tensor, nn

from greentrain.errors import ConfigurationError
from greentrain.methods.task_conditioned import TaskConditioned, size_bytes
from greentrain.units import is_whole


class MultiHead(TaskConditioned):
    """One linear head for each task, on features that all tasks share.

    A head of another task gets no gradient, and stays as it is. The shared layers do change: add
    an anchor or LwF, or freeze them.

    Args:
        features: Number of features.
        outputs: Outputs of each head.
        tasks: Number of heads to start with.

    Raises:
        ConfigurationError: If a number is below 1.

    Example:
        >>> import torch
        >>> heads = MultiHead(8, 2, tasks=2)
        >>> heads.task = 1
        >>> tuple(heads(torch.zeros(3, 8)).shape), heads.add_task(), heads.bytes_per_task
        ((3, 2), 2, 72)
    """

    def __init__(self, features: int, outputs: int, *, tasks: int = 1) -> None:
        super().__init__(tasks)
        for name, value in (("features", features), ("outputs", outputs)):
            if not is_whole(value, 1):
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a whole number from 1 on"
                )
        self.features, self.outputs = int(features), int(outputs)
        self.heads = nn.ModuleList()
        for _ in range(tasks):
            self.add_task()

    def add_task(self) -> int:
        """Add a head, and return its number."""
        like = next(self.heads.parameters(), None)
        head = nn.Linear(self.features, self.outputs)
        self.heads.append(head if like is None else head.to(like))
        self.tasks += 1
        return self.tasks - 1

    @property
    def bytes_per_task(self) -> int:
        """Bytes of a head."""
        return size_bytes(self.heads[-1])

    def weight(self, task: int) -> Tensor:
        """Return the weights of one head, ``(outputs, features)``."""
        head = self.heads[self.checked(task)]
        assert isinstance(head, nn.Linear)  # the only kind that is added
        return head.weight

    def forward_task(self, inputs: Tensor, task: int) -> Tensor:
        """Return the outputs of one head, ``(batch, outputs)``."""
        return self.heads[task](inputs)  # type: ignore[no-any-return]
