"""Models with a structure for each task, by the protocol's perceptron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from _methods.protocol import CLASSES, CONTEXTS, LEFT_OUT, MaskedPerceptron
from greentrain.methods import (
    HyperNetwork,
    InterContiNet,
    MultiHead,
    Piggyback,
    ProgressiveNetwork,
    SuperMasks,
    TaskConditioned,
)

UNITS, PIXELS, WAYS = 400, 784, CLASSES // CONTEXTS


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A network for tasks, and what its training needs.

    Args:
        net: Makes the network, with one task.
        extra: Returns what is added to the cross-entropy.
        loss: Returns the whole loss of images and labels, in place of the cross-entropy.
        after_step: Called after each step.
        after_task: Called after each experience.
    """

    net: Callable[[], TaskConditioned]
    extra: Callable[[TaskConditioned], Tensor] | None = None
    loss: Callable[[TaskConditioned, Tensor, Tensor], Tensor] | None = None
    after_step: Callable[[TaskConditioned], None] | None = None
    after_task: Callable[[TaskConditioned], None] | None = None


class TaskPerceptron(MaskedPerceptron):
    """A model of one structure: each experience is a task with its own outputs.

    Args:
        structure: The structure.
    """

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.net = structure.net()
        self.known: list[tuple[int, ...]] = []

    def activate(self, outputs: Sequence[int]) -> None:
        """Choose the task with these outputs; the first time, add it."""
        active = tuple(outputs)
        if active not in self.known:
            if self.known:
                if self.structure.after_task is not None:
                    self.structure.after_task(self.net)
                self.net.add_task()
            self.known.append(active)
        self.net.task = self.known.index(active)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of all classes, far below the others for those of other tasks."""
        logits = images.new_full((len(images), CLASSES), LEFT_OUT)
        logits[:, list(self._active())] = self.net(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        own = (labels[:, None] == torch.tensor(self._active())).int().argmax(1)
        if self.structure.loss is not None:
            return self.structure.loss(self.net, images, own)
        loss = cross_entropy(self.net(images), own)
        return loss if self.structure.extra is None else loss + self.structure.extra(self.net)

    def on_train_batch_end(self, outputs: object, batch: object, batch_idx: int) -> None:
        if self.structure.after_step is not None:
            self.structure.after_step(self.net)

    def _active(self) -> tuple[int, ...]:
        return self.known[self.net.task]


class PiggybackHeads(TaskConditioned):
    """Layers that the first task trains, masks over them for the others, and a head for each."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Linear(PIXELS, UNITS), nn.ReLU(), nn.Linear(UNITS, UNITS), nn.ReLU())
        )
        self.heads = MultiHead(UNITS, WAYS)
        self.masked: Piggyback | None = None
        self.tasks = 1

    def add_task(self) -> int:
        if self.masked is None:
            self.masked = Piggyback(self.layers)
        else:
            self.masked.add_task()
        self.tasks += 1
        return self.heads.add_task()

    @property
    def bytes_per_task(self) -> int:
        return self.heads.bytes_per_task + (self.masked.bytes_per_task if self.masked else 0)

    def forward_task(self, inputs: Tensor, task: int) -> Tensor:
        if self.masked is None or not task:
            return self.heads(self.layers(inputs), task)
        return self.heads(self.masked(inputs, task - 1), task)


def perceptron() -> nn.Sequential:
    """Return the protocol's layers with the outputs of one task."""
    return nn.Sequential(
        *(nn.Linear(PIXELS, UNITS), nn.ReLU()),
        *(nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Linear(UNITS, WAYS)),
    )


def progressive() -> MaskedPerceptron:
    """Return a progressive network."""
    widths = [PIXELS, UNITS, UNITS, WAYS]
    return TaskPerceptron(Structure(net=lambda: ProgressiveNetwork(widths, adapter=50)))


def piggyback() -> MaskedPerceptron:
    """Return masks over the layers that the first task trained."""
    return TaskPerceptron(Structure(net=PiggybackHeads))


def supermasks() -> MaskedPerceptron:
    """Return supermasks of random weights."""
    return TaskPerceptron(Structure(net=lambda: SuperMasks(perceptron())))


def hypernetwork(strength: float) -> MaskedPerceptron:
    """Return a hypernetwork with a penalty of this strength."""
    return TaskPerceptron(
        Structure(
            net=lambda: HyperNetwork(perceptron(), embedding=16, hidden=64, chunk=4000),
            extra=lambda net: strength * net.penalty(),
            after_task=HyperNetwork.consolidate,
        )
    )


def intervals(strength: float) -> MaskedPerceptron:
    """Return weights as intervals, whose width counts with this strength."""
    return TaskPerceptron(
        Structure(
            net=lambda: InterContiNet([PIXELS, UNITS, UNITS], WAYS),
            loss=lambda net, images, labels: net.loss(images, labels, width=strength),
            after_step=InterContiNet.project,
            after_task=InterContiNet.consolidate,
        )
    )
