"""The base of buffers that learn to generate samples of the past instead of storing them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import SampleList, concat, fetch, size
from greentrain.memory.pairs import as_pairs, check_pixels, pairs_of, positive, whole
from greentrain.memory.protocol import Sample
from greentrain.units import is_whole, whole_seed


class LearnedBuffer(ABC):
    """Learn networks that generate samples of the past, instead of storing samples.

    Samples are ``(input, label)``: a tensor of values between 0 and 1, and a class. Training uses
    much energy. With ``learn_at_once=False``, :meth:`add` keeps the data until :meth:`learn` is
    called, such as by the callback ``LearnBuffer`` within a fit, so that its energy is a part of
    an update.

    Args:
        max_size: Most samples that :meth:`select` returns.
        classes: Number of classes.
        steps: Training steps for each experience.
        batch_size: New samples in a step.
        hidden: Units of each hidden layer.
        latent: Values of a latent code.
        rate: Learning rate of Adam.
        learn_at_once: Whether :meth:`add` trains.
        seed: Seed of weights, batches and generated samples.

    Attributes:
        label_with: Function from a batch of inputs to class scores ``(batch, classes)``, or
            ``None``.
        experiences: Experiences that were learned.

    Raises:
        ConfigurationError: If an argument is out of range.
    """

    def __init__(
        self,
        max_size: int,
        *,
        classes: int = 10,
        steps: int = 2000,
        batch_size: int = 128,
        hidden: int = 400,
        latent: int = 100,
        rate: float = 1e-3,
        learn_at_once: bool = True,
        seed: int = 0,
    ) -> None:
        self._max_size = whole(max_size, "max_size")
        self.classes, self.steps = whole(classes, "classes"), whole(steps, "steps")
        self.batch_size = whole(batch_size, "batch_size")
        self.hidden, self.latent = whole(hidden, "hidden"), whole(latent, "latent")
        self.rate, self.learn_at_once = positive(rate, "rate", above=True), learn_at_once
        self.label_with: Callable[[Tensor], Tensor] | None = None
        self.experiences = 0
        self._models: list[nn.Module] = []
        self._shape: tuple[int, ...] = ()
        self._counts = torch.zeros(0, self.classes, dtype=torch.int64)
        self._origins: dict[str, int] = {}
        self._waiting: list[tuple[str, Tensor, Tensor]] = []
        self._plain = False  # whether labels are plain numbers
        self._dtype = torch.float32  # of the inputs that were given last
        self._generator = torch.Generator().manual_seed(whole_seed(seed) % 2**63)

    @abstractmethod
    def _make(self) -> nn.Module:
        """Return a fresh network for inputs of the shape ``self._shape``."""

    @abstractmethod
    def _train(self, inputs: Tensor, labels: Tensor, origin: str) -> None:
        """Learn an experience of inputs ``(samples, ...)``, and set ``self._models``."""

    @abstractmethod
    def _generated(self, count: int) -> tuple[Tensor, Tensor]:
        """Return generated inputs and their labels."""

    @property
    def max_size(self) -> int:
        """Most samples that :meth:`select` returns of what was learned."""
        return self._max_size

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept to generate, and of data that wait to be learned."""
        kept: list[Tensor] = [each for model in self._models for each in model.parameters()]
        kept += [each for _, *parts in self._waiting for each in parts]
        return sum(each.numel() * each.element_size() for each in kept)

    def __len__(self) -> int:
        waiting = sum(len(labels) for _, _, labels in self._waiting)
        return min(sum(self._origins.values()), self._max_size) + waiting

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Learn an experience's data, or keep them until :meth:`learn`.

        Raises:
            ConfigurationError: If samples are no pairs of values from 0 to 1 and a class, or of
                another shape than earlier ones.
        """
        if not size(dataset):
            return
        self._waiting.append((origin, *self._columns(dataset)))
        if self.learn_at_once:
            self.learn()

    def learn(self) -> int:
        """Learn the data that wait, and return the number of training steps.

        A part that was learned waits no longer, also if a later one fails.
        """
        steps = 0
        while self._waiting:
            origin, inputs, labels = self._waiting[0]
            self._shape = tuple(inputs.shape[1:])
            self._train(inputs.float(), labels, origin)
            del self._waiting[0]
            self._origins[origin] = self._origins.get(origin, 0) + len(labels)
            self.experiences += 1
            steps += self.steps
        return steps

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return generated samples and the new ones, of which nothing is learned yet.

        Raises:
            ConfigurationError: If :meth:`add` would refuse them.
        """
        if size(dataset):
            self._columns(dataset)
        return concat([self.select(lambda name: True), dataset])

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return generated samples, in proportion to the accepted origins, and waiting ones."""
        parts: list[Dataset[Sample]] = [
            as_pairs(inputs.to(self._dtype), labels, self._plain)
            for origin, inputs, labels in self._waiting
            if keep(origin)
        ]
        if any(keep(origin) for origin in self._origins):
            inputs, labels = self._past(keep)
            parts.insert(0, as_pairs(inputs, labels, self._plain))
        return concat(parts)

    def _past(self, keep: Callable[[str], bool]) -> tuple[Tensor, Tensor]:
        """Return generated samples in proportion to the accepted origins."""
        every = sum(self._origins.values())
        kept = sum(count for origin, count in self._origins.items() if keep(origin))
        return self.generate(max(1, round(min(every, self._max_size) * kept / every)))

    def sample(self, n: int) -> list[Sample]:
        """Return up to ``n`` samples, generated or waiting.

        Raises:
            ConfigurationError: If ``n`` is negative.
        """
        if n < 0:
            raise ConfigurationError(f"cannot sample {n} samples; give a number of 0 or more")
        everything = self.select(lambda name: True) if n else SampleList([])
        order = torch.randperm(size(everything), generator=self._generator)[:n].tolist()
        return fetch(everything, order)

    def generate(self, count: int) -> tuple[Tensor, Tensor]:
        """Return generated inputs ``(count, ...)`` and their labels ``(count,)``.

        They have the dtype of the inputs that were given last.

        Raises:
            ConfigurationError: If nothing was learned yet, or ``count`` is not 1 or more.
        """
        if not is_whole(count, 1):
            raise ConfigurationError(
                f"cannot generate {count!r} samples; give a whole number from 1 on"
            )
        if not self.experiences:
            raise ConfigurationError(
                "nothing was learned yet, so nothing can be generated; add an experience first"
            )
        return self._labelled(*self._generated(int(count)))

    def _labelled(self, inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return generated inputs as they are handed out, and their labels."""
        inputs = inputs.to(self._dtype)
        if self.label_with is not None:
            with torch.no_grad():
                labels = self.label_with(inputs).argmax(dim=1).cpu()
        return inputs, labels

    def state_dict(self) -> dict[str, Any]:
        """Return the networks, and what is counted."""
        return {
            "sizes": self._sizes(),
            "shape": list(self._shape),
            "weights": [copy.deepcopy(each.state_dict()) for each in self._models],
            "counts": self._counts.clone(),
            "origins": dict(self._origins),
            "experiences": self.experiences,
            "plain": self._plain,
            "dtype": str(self._dtype).removeprefix("torch."),
            "waiting": [list(each) for each in self._waiting],
            "random": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a buffer with the same arguments.

        Raises:
            ConfigurationError: If it is of another buffer, or of one with networks of another size.
        """
        if state["sizes"] != self._sizes():
            raise ConfigurationError(
                f"the state is of a {state['sizes']}, and this one is a {self._sizes()}; make it "
                "with the same arguments"
            )
        self._shape = tuple(state["shape"])
        self._models = [self._made() for _ in state["weights"]]
        for model, weights in zip(self._models, state["weights"], strict=True):
            model.load_state_dict(weights)
        self._counts, self._origins = state["counts"].clone(), dict(state["origins"])
        self.experiences, self._plain = state["experiences"], state["plain"]
        self._dtype = getattr(torch, state["dtype"])
        self._waiting = [(name, inputs, labels) for name, inputs, labels in state["waiting"]]
        self._generator.set_state(state["random"])

    def _sizes(self) -> str:
        """Return the arguments that have to be the same when a state is loaded."""
        return (
            f"{type(self).__name__} with classes {self.classes}, hidden {self.hidden} and latent "
            f"{self.latent}"
        )

    def check(self, inputs: Tensor, labels: Tensor) -> None:
        """Refuse inputs and labels that :meth:`add` would refuse, such as those of a batch.

        Args:
            inputs: Inputs, ``(batch, ...)``.
            labels: Classes, ``(batch,)``.

        Raises:
            ConfigurationError: If values are not from 0 to 1, labels are no numbers of classes, or
                inputs have another shape than earlier ones.
        """
        before = self._shape if self._models else None
        if before is None and self._waiting:
            before = tuple(self._waiting[0][1].shape[1:])
        check_pixels(inputs, before)
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ConfigurationError(
                f"labels are between {int(labels.min())} and {int(labels.max())}, and classes is "
                f"{self.classes}; number the classes from 0 to {self.classes - 1}"
            )

    def _columns(self, dataset: Dataset[Sample]) -> tuple[Tensor, Tensor]:
        inputs, labels, plain = pairs_of(dataset)
        self.check(inputs, labels)
        self._plain, self._dtype = plain, inputs.dtype
        return inputs, labels

    def _made(self) -> nn.Module:
        """Return a fresh network with weights of the buffer's own seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self._generator)))
            return self._make()

    def _descend(
        self, parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], steps: int
    ) -> None:
        """Reduce a loss, which samples its own batches, by Adam."""
        optimizer = torch.optim.Adam(parameters, lr=self.rate)
        with torch.enable_grad():
            for _ in range(steps):
                optimizer.zero_grad()
                loss().backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def _batch(self, *columns: Tensor) -> list[Tensor]:
        """Return the same random rows of each column."""
        rows = torch.randint(len(columns[0]), (self.batch_size,), generator=self._generator)
        return [column[rows] for column in columns]

    def _parts(self, count: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Return random rows from ``first`` on, and classes, in proportion to ``_counts``."""
        shares = self._counts[first:].flatten().double()
        chosen = torch.multinomial(shares, count, replacement=True, generator=self._generator)
        return first + chosen // self.classes, chosen % self.classes

    def _noise(self, count: int) -> Tensor:
        return torch.randn(count, self.latent, generator=self._generator)
