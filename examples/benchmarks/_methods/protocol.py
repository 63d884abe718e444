"""Split MNIST and Fashion-MNIST by van de Ven & Tolias 2019, one Lightning fit an experience."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from _continual.models import Perceptron
from pytorch_lightning import Callback, Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from greentrain.callbacks import GenerativeReplay, ICaRL
from greentrain.streams import fashion_mnist, mnist

Data = Literal["mnist", "fashion"]
Scenario = Literal["task", "domain", "class"]
CONTEXTS, CLASSES, BATCH_SIZE = 5, 10, 128
LEFT_OUT = -1e4
"""Added to the logit of an output that is left out: its probability is 0."""
HELD_OUT = 0.1
"""Share of the training data that strengths are chosen on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One experience.

    Args:
        train: Images ``(samples, 784)`` and labels to train on.
        test: Images and labels to measure on.
        active: The outputs that are learned: in the class-incremental scenario those of all classes
            so far.
    """

    train: TensorDataset
    test: TensorDataset
    active: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """Result of a stream.

    Args:
        accuracy: Mean accuracy over all experiences at the end, in percent.
        cpu_s: Processor seconds.
        bytes: Bytes that the method keeps after the last experience, without those of the
            perceptron: tensors of its callbacks, and what its model has more. ``None`` if they
            were not counted.
    """

    accuracy: float
    cpu_s: float
    bytes: int | None = None


class MaskedPerceptron(Perceptron):
    """The protocol's perceptron; outputs of other tasks, or of unseen classes, are left out.

    The mask is a part of the state, so a teacher leaves out what its model did.

    Args:
        classes: Number of logits.
    """

    mask: Tensor

    def __init__(self, classes: int = CLASSES) -> None:
        super().__init__(classes)
        self.register_buffer("mask", torch.zeros(classes))

    def activate(self, outputs: Sequence[int]) -> None:
        """Leave out all other outputs."""
        self.mask.fill_(LEFT_OUT)
        self.mask[list(outputs)] = 0.0

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits, which are far below all others where an output is left out."""
        return self.net(images) + self.mask

    def training_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> Tensor:
        images, labels = batch
        return cross_entropy(self(images), labels)


class ByBatch(TensorDataset):
    """Tensors whose samples are taken a batch at a time, which saves the processor time."""

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, ...]]:
        chosen = torch.tensor(indices)
        return [tuple(each[chosen] for each in self.tensors)]


def contexts(
    scenario: Scenario, seed: int, *, held_out: bool = False, data: Data = "mnist"
) -> list[Context]:
    """Return the experiences: pairs of classes, in order for seed 0 and shuffled for others.

    Args:
        scenario: Task-, domain- or class-incremental.
        seed: Seed of the order of the classes.
        held_out: Whether to measure on a tenth of the training data instead of the test data.
        data: MNIST or Fashion-MNIST.
    """
    loaded = fashion_mnist() if data == "fashion" else mnist()
    train, test = ((part.tensors[0].flatten(1), part.tensors[1]) for part in loaded)
    if held_out:
        order = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(1))
        cut = round(HELD_OUT * len(order))
        test = tuple(each[order[:cut]] for each in train)
        train = tuple(each[order[cut:]] for each in train)
    found = []
    so_far: tuple[int, ...] = ()
    for group in class_groups(seed):
        so_far += group
        labels = tuple(range(len(group))) if scenario == "domain" else group
        parts = [_part(part, group, labels) for part in (train, test)]
        active = so_far if scenario == "class" else labels
        found.append(Context(train=parts[0], test=parts[1], active=active))
    return found


def class_groups(seed: int) -> list[tuple[int, ...]]:
    """Return the classes of each experience: in order for seed 0, shuffled for others."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(CLASSES, generator=generator) if seed else torch.arange(CLASSES)
    return [tuple(group.tolist()) for group in order.chunk(CONTEXTS)]


def learn(
    scenario: Scenario,
    callbacks: Sequence[Callback],
    *,
    steps: int,
    seed: int,
    held_out: bool = False,
    make: Callable[[], MaskedPerceptron] | None = None,
    data: Data = "mnist",
) -> Learned:
    """Learn one experience after another.

    Args:
        scenario: Task-, domain- or class-incremental.
        callbacks: The method; none for fine-tuning.
        steps: Steps on each experience.
        seed: Seed of classes, weights and batches.
        held_out: Whether to measure on held-out training data.
        make: Makes the model; the protocol's perceptron unless given.
        data: MNIST or Fashion-MNIST.
    """
    began_s = time.process_time()
    stream = contexts(scenario, seed, held_out=held_out, data=data)
    torch.manual_seed(seed)
    model = make_model(scenario) if make is None else make()
    for each in callbacks:
        if isinstance(each, GenerativeReplay):
            each.buffer.steps = steps  # of the generator, too
    for context in stream:
        model.activate(context.active)
        fit(model, _loader(context.train), callbacks, steps)
    return Learned(
        accuracy=accuracy(model, stream, scenario, callbacks),
        cpu_s=time.process_time() - began_s,
        bytes=_bytes_kept(model, make_model(scenario), callbacks),
    )


def learn_jointly(scenario: Scenario, *, steps: int, seed: int, data: Data = "mnist") -> Learned:
    """Train on all experiences at once, class-incremental or domain-incremental."""
    began_s = time.process_time()
    stream = contexts(scenario, seed, data=data)
    torch.manual_seed(seed)
    model = make_model(scenario)
    tensors = zip(*(context.train.tensors for context in stream), strict=True)
    whole = ByBatch(*(torch.cat(each) for each in tensors))
    fit(model, _loader(whole), (), CONTEXTS * steps)
    return Learned(
        accuracy=accuracy(model, stream, scenario, ()),
        cpu_s=time.process_time() - began_s,
        bytes=sum(each.nbytes for each in whole.tensors),
    )


def make_model(scenario: Scenario) -> MaskedPerceptron:
    """Return a model with fresh weights."""
    return MaskedPerceptron(CLASSES // CONTEXTS if scenario == "domain" else CLASSES)


def fit(
    model: MaskedPerceptron,
    loader: DataLoader[tuple[Tensor, ...]],
    callbacks: Sequence[Callback],
    steps: int,
) -> None:
    """Train for some steps."""
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader)


@torch.no_grad()
def accuracy(
    model: MaskedPerceptron,
    stream: Sequence[Context],
    scenario: Scenario,
    callbacks: Sequence[Callback],
) -> float:
    """Return the mean accuracy over all experiences in percent, iCaRL's by its nearest means."""
    outputs: Callable[[Tensor], Tensor] = model
    for each in callbacks:
        if isinstance(each, ICaRL):
            outputs = partial(each.scores, model)
    model.eval()
    right = []
    for context in stream:
        model.activate(stream[-1].active if scenario == "class" else context.active)
        images, labels = context.test.tensors
        right.append(float((outputs(images).argmax(1) == labels).float().mean()))
    return 100 * sum(right) / len(right)


def _bytes_kept(model: nn.Module, plain: nn.Module, callbacks: Sequence[Callback]) -> int:
    found: dict[int, int] = {}
    _count([each.state_dict() for each in callbacks], found)
    sizes = [sum(each.nbytes for each in one.state_dict().values()) for one in (model, plain)]
    return sum(found.values()) + max(0, sizes[0] - sizes[1])


def _count(state: object, found: dict[int, int]) -> None:
    """Add the bytes of all tensors of a state, each storage once."""
    if isinstance(state, Tensor):
        found[state.data_ptr()] = state.nbytes
    elif isinstance(state, dict | list | tuple):
        for each in state.values() if isinstance(state, dict) else state:
            _count(each, found)


def _part(data: tuple[Tensor, ...], group: Sequence[int], labels: Sequence[int]) -> ByBatch:
    images, digits = data
    chosen = torch.isin(digits, torch.tensor(group))
    renamed = torch.zeros(CLASSES, dtype=torch.long)
    renamed[list(group)] = torch.tensor(labels)
    return ByBatch(images[chosen], renamed[digits[chosen]])


def _loader(data: TensorDataset) -> DataLoader[tuple[Tensor, ...]]:
    batches = BatchSampler(RandomSampler(data), BATCH_SIZE, drop_last=True)
    return DataLoader(data, batch_sampler=batches, collate_fn=_first)


def _first(batches: list[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return batches[0]
