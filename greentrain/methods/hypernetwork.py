"""A network that generates the weights of another one for each task."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.func import functional_call

from greentrain.errors import ConfigurationError
from greentrain.methods.task_conditioned import TaskConditioned
from greentrain.units import is_whole


class HyperNetwork(TaskConditioned):
    """Generate the weights of a network from the embedding of a task, chunk by chunk.

    von Oswald et al. 2020, sections 2 and 3. A small network maps the embedding of a task and of a
    chunk to the weights of that chunk. So a task adds its embedding only. Call :meth:`consolidate`
    at the end of each task. From then on, add ``strength * net.penalty()`` to the loss: it keeps
    the weights that are generated for earlier tasks. The paper's look-ahead step is left out.

    Generated values are scaled by ``1 / sqrt(inputs)`` of their layer, so that fresh weights have
    the usual size.

    Args:
        net: The network whose weights are generated; its own are not used, nor stored.
        tasks: Number of embeddings to start with.
        embedding: Values of an embedding, of a task and of a chunk.
        hidden: Units of the generator's hidden layers.
        chunk: Weights of a chunk.

    Raises:
        ConfigurationError: If a number is below 1.

    Example:
        >>> net = HyperNetwork(nn.Linear(4, 2), tasks=2, embedding=8, chunk=5)
        >>> tuple(net(torch.zeros(3, 4), 1).shape), net.bytes_per_task, float(net.penalty())
        ((3, 2), 32, 0.0)
    """

    finished: Tensor
    scale: Tensor

    def __init__(
        self,
        net: nn.Module,
        *,
        tasks: int = 1,
        embedding: int = 16,
        hidden: int = 64,
        chunk: int = 1000,
    ) -> None:
        super().__init__(tasks)
        numbers = {"embedding": embedding, "hidden": hidden, "chunk": chunk}
        for name, value in numbers.items():
            if not is_whole(value, 1):
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a whole number from 1 on"
                )
        self._net = (net,)  # not a part of this module: only its structure is used
        self._shapes = {name: each.shape for name, each in net.named_parameters()}
        fan = [
            (each.numel(), each[0].numel() if each.ndim > 1 else each.numel())
            for each in net.parameters()
        ]
        scale = torch.cat([torch.full((count,), 1 / math.sqrt(inputs)) for count, inputs in fan])
        self.register_buffer("scale", scale, persistent=False)
        self.embeddings = nn.ParameterList()
        self._embedding = int(embedding)
        self.generator = _Generator(len(scale), int(embedding), int(hidden), int(chunk))
        self.kept = copy.deepcopy(self.generator).requires_grad_(False)
        self.register_buffer("finished", torch.tensor(0))
        self._targets: list[Tensor] | None = None
        for _ in range(tasks):
            self.add_task()

    def add_task(self) -> int:
        """Add an embedding, and return the number of its task."""
        value = torch.randn(self._embedding, device=self.scale.device)
        self.embeddings.append(nn.Parameter(value))
        self.tasks += 1
        return self.tasks - 1

    @property
    def bytes_per_task(self) -> int:
        """Bytes of an embedding."""
        return self._embedding * self.scale.element_size()

    def forward_task(self, inputs: Tensor, task: int) -> Tensor:
        """Return the outputs of the network with the weights of one task."""
        flat = self.generated(self.embeddings[task])
        parts = torch.split(flat, [shape.numel() for shape in self._shapes.values()])
        named = zip(self._shapes.items(), parts, strict=True)
        weights = {name: part.view(shape) for (name, shape), part in named}
        return functional_call(self._net[0], weights, (inputs,))  # type: ignore[no-any-return]

    def generated(self, embedding: Tensor) -> Tensor:
        """Return all weights for the embedding of a task, ``(weights,)``."""
        return self.generator(embedding) * self.scale  # type: ignore[no-any-return]

    def consolidate(self) -> None:
        """Keep what is generated for the tasks so far: up to :attr:`task`."""
        self.kept.load_state_dict(self.generator.state_dict())
        self.finished.fill_(max(int(self.finished), self.task + 1))
        self._targets = None

    def penalty(self) -> Tensor:
        """Return the squared change of the generated weights, the mean over finished tasks.

        von Oswald et al. 2020, equation 2. It costs a pass of the generator for each of them.
        """
        count = int(self.finished)
        if not count:
            return self.scale.new_zeros(())
        past = [each.detach() for each in list(self.embeddings)[:count]]
        if self._targets is None or len(self._targets) != count:
            with torch.no_grad():
                self._targets = [self.kept(each) * self.scale for each in past]
        changes = [
            (self.generated(each) - target).square().sum()
            for each, target in zip(past, self._targets, strict=True)
        ]
        return torch.stack(changes).mean()

    def _load_from_state_dict(self, *given: object) -> None:
        self._targets = None  # of what was loaded before
        super()._load_from_state_dict(*given)


class _Generator(nn.Module):
    """Maps the embedding of a task to weights of size 1, chunk by chunk."""

    def __init__(self, weights: int, embedding: int, hidden: int, chunk: int) -> None:
        super().__init__()
        self.weights = weights
        self.chunks = nn.Parameter(torch.randn(math.ceil(weights / chunk), embedding))
        self.layers = nn.Sequential(
            *(nn.Linear(2 * embedding, hidden), nn.ReLU()),
            *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, chunk)),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Return weights, ``(weights,)``."""
        repeated = embedding.expand(len(self.chunks), -1)
        parts = self.layers(torch.cat([repeated, self.chunks], dim=1))
        return parts.flatten()[: self.weights]  # type: ignore[no-any-return]
