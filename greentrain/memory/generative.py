"""A buffer that stores no sample: it learns to generate samples like those of the past."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import SampleList, concat, fetch, size
from greentrain.memory.pixel_vae import PixelVae
from greentrain.memory.protocol import Sample
from greentrain.units import is_whole, whole_seed


class GenerativeBuffer:
    """Learn a generator of past samples: deep generative replay (Shin et al. 2017).

    A variational autoencoder is trained on each experience, together with samples that its last
    state generates, so it never sees past data again. In the ``n``-th experience, new samples have
    the weight ``1 / n`` (van de Ven & Tolias 2018). The decoder is conditional on the class;
    assign :attr:`label_with` to label by a classifier, as the papers do.

    Samples are ``(input, label)``: a tensor of values between 0 and 1, and a class. The generator
    covers all experiences, so :meth:`select` returns samples in proportion, and they may be like
    those of any of them. :meth:`after` returns generated samples and the new ones themselves.

    Training a generator uses much energy. With ``learn_at_once=False``, :meth:`add` keeps the data
    until :meth:`learn` is called, such as by the callback ``LearnBuffer`` within a fit, so that its
    energy is a part of an update.

    Args:
        max_size: Most samples that :meth:`select` returns.
        classes: Number of classes.
        steps: Training steps for each experience.
        batch_size: New samples in a step; as many are generated.
        hidden: Units of each hidden layer.
        latent: Values of the latent code.
        rate: Learning rate of Adam.
        learn_at_once: Whether :meth:`add` trains.
        seed: Seed of weights, batches and generated samples.

    Attributes:
        label_with: Function from a batch of inputs to class scores ``(batch, classes)``, or
            ``None``.
        experiences: Experiences that were learned.

    Raises:
        ConfigurationError: If an argument is out of range.

    Example:
        >>> buffer = GenerativeBuffer(100, classes=2, steps=5, hidden=8, latent=2)
        >>> data = TensorDataset(torch.rand(300, 1, 4, 4), torch.arange(300) % 2)
        >>> buffer.add(data, origin="first")
        >>> image, label = buffer.sample(1)[0]
        >>> len(buffer), tuple(image.shape), buffer.nbytes  # 516 weights
        (100, (1, 4, 4), 2064)
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
        numbers = {"max_size": max_size, "classes": classes, "steps": steps}
        numbers |= {"batch_size": batch_size, "hidden": hidden, "latent": latent}
        for name, value in numbers.items():
            if not is_whole(value, 1):
                raise ConfigurationError(
                    f"{name} is {value!r}; it must be a whole number from 1 on"
                )
        if not rate > 0:
            raise ConfigurationError(f"rate is {rate!r}; it must be a number above 0")
        self._max_size, self.classes, self.steps = int(max_size), int(classes), int(steps)
        self.batch_size, self.hidden, self.latent = int(batch_size), int(hidden), int(latent)
        self.rate, self.learn_at_once = float(rate), learn_at_once
        self.label_with: Callable[[Tensor], Tensor] | None = None
        self.experiences = 0
        self._model: PixelVae | None = None
        self._origins: dict[str, int] = {}
        self._counts = torch.zeros(self.classes, dtype=torch.int64)
        self._waiting: list[tuple[str, Tensor, Tensor]] = []
        self._plain = False  # whether labels are plain numbers
        self._generator = torch.Generator().manual_seed(whole_seed(seed) % 2**63)

    @property
    def max_size(self) -> int:
        """Most samples that :meth:`select` returns of what was learned."""
        return self._max_size

    @property
    def nbytes(self) -> int:
        """Bytes of the generator's weights, and of data that wait to be learned."""
        kept: list[Tensor] = [] if self._model is None else [*self._model.parameters()]
        kept += [each for _, *parts in self._waiting for each in parts]
        return sum(each.numel() * each.element_size() for each in kept)

    def __len__(self) -> int:
        waiting = sum(len(labels) for _, _, labels in self._waiting)
        return min(sum(self._origins.values()), self._max_size) + waiting

    def add(self, dataset: Dataset[Sample], *, origin: str) -> None:
        """Learn an experience's data, or keep them until :meth:`learn`.

        Raises:
            ConfigurationError: If samples are no pairs of values from 0 to 1 and a class.
        """
        if not size(dataset):
            return
        self._waiting.append((origin, *self._columns(dataset)))
        if self.learn_at_once:
            self.learn()

    def learn(self) -> int:
        """Train the generator on the data that wait, and return the number of steps."""
        steps = 0
        for origin, inputs, labels in self._waiting:
            self._train(inputs, labels)
            self._origins[origin] = self._origins.get(origin, 0) + len(labels)
            self._counts += torch.bincount(labels, minlength=self.classes)
            self.experiences += 1
            steps += self.steps
        self._waiting = []
        return steps

    def after(self, dataset: Dataset[Sample], *, origin: str) -> Dataset[Sample]:
        """Return generated samples and the new ones, of which nothing is learned yet."""
        return concat([self.select(lambda name: True), dataset])

    def select(self, keep: Callable[[str], bool]) -> Dataset[Sample]:
        """Return generated samples, in proportion to the accepted origins, and waiting ones."""
        every = sum(self._origins.values())
        kept = sum(count for origin, count in self._origins.items() if keep(origin))
        parts: list[Dataset[Sample]] = [
            as_pairs(inputs, labels, self._plain)
            for origin, inputs, labels in self._waiting
            if keep(origin)
        ]
        if kept:
            count = max(1, round(min(every, self._max_size) * kept / every))
            parts.insert(0, as_pairs(*self.generate(count), self._plain))
        return concat(parts) if parts else SampleList([])

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

        Raises:
            ConfigurationError: If nothing was learned yet.
        """
        if self._model is None:
            raise ConfigurationError(
                "nothing was learned yet, so nothing can be generated; add an experience first"
            )
        shares = self._counts.double()
        labels = torch.multinomial(shares, count, replacement=True, generator=self._generator)
        noise = torch.randn(count, self.latent, generator=self._generator)
        inputs = self._model.generate(labels, noise)
        if self.label_with is not None:
            with torch.no_grad():
                labels = self.label_with(inputs).argmax(dim=1).cpu()
        return inputs, labels

    def state_dict(self) -> dict[str, Any]:
        """Return the generator, and what is counted."""
        model = self._model
        return {
            "shape": None if model is None else list(model.shape),
            "weights": None if model is None else copy.deepcopy(model.state_dict()),
            "origins": dict(self._origins),
            "counts": self._counts.clone(),
            "experiences": self.experiences,
            "plain": self._plain,
            "waiting": [list(each) for each in self._waiting],
            "random": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a buffer with the same arguments.

        Raises:
            ConfigurationError: If it is of a buffer with another number of classes.
        """
        if len(state["counts"]) != self.classes:
            raise ConfigurationError(
                f"the state is of a buffer with {len(state['counts'])} classes, and this one has "
                f"{self.classes}; make it with the same arguments"
            )
        self._model = None
        if state["weights"] is not None:
            self._model = self._made(tuple(state["shape"]))
            self._model.load_state_dict(state["weights"])
        self._origins, self._counts = dict(state["origins"]), state["counts"].clone()
        self.experiences, self._plain = state["experiences"], state["plain"]
        self._waiting = [(name, inputs, labels) for name, inputs, labels in state["waiting"]]
        self._generator.set_state(state["random"])

    def _train(self, inputs: Tensor, labels: Tensor) -> None:
        past = None
        if self._model is None:
            self._model = self._made(tuple(inputs.shape[1:]))
        elif self._origins:
            past = copy.deepcopy(self._model)
        model, share = self._model, 1 / (self.experiences + 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=self.rate)
        shares = self._counts.double()
        with torch.enable_grad():
            for _ in range(self.steps):
                chosen = torch.randint(len(labels), (self.batch_size,), generator=self._generator)
                loss = model.losses(inputs[chosen], labels[chosen], self._noise()).mean()
                if past is not None:
                    again = torch.multinomial(
                        shares, self.batch_size, replacement=True, generator=self._generator
                    )
                    replayed = past.generate(again, self._noise())
                    old = model.losses(replayed, again, self._noise()).mean()
                    loss = share * loss + (1 - share) * old
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()

    def _noise(self) -> Tensor:
        return torch.randn(self.batch_size, self.latent, generator=self._generator)

    def _made(self, shape: tuple[int, ...]) -> PixelVae:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**31, (1,), generator=self._generator)))
            return PixelVae(shape, self.classes, hidden=self.hidden, latent=self.latent)

    def _columns(self, dataset: Dataset[Sample]) -> tuple[Tensor, Tensor]:
        inputs, labels, self._plain = pairs_of(dataset)
        if not bool(((inputs >= 0) & (inputs <= 1)).all()):
            raise ConfigurationError(
                f"inputs are between {float(inputs.min()):g} and {float(inputs.max()):g}, and the "
                "generator has values from 0 to 1; scale them, and normalise in the model"
            )
        if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise ConfigurationError(
                f"labels are between {int(labels.min())} and {int(labels.max())}, and classes is "
                f"{self.classes}; number the classes from 0 to {self.classes - 1}"
            )
        return inputs, labels


def as_pairs(inputs: Tensor, labels: Tensor, plain: bool) -> Dataset[Sample]:
    """Return a dataset of inputs and labels, which are plain numbers if new ones are.

    A batch of new and stored samples needs labels of one kind.
    """
    if not plain:
        return TensorDataset(inputs, labels)
    return SampleList(list(zip(inputs, labels.tolist(), strict=True)))


def pairs_of(dataset: Dataset[Sample]) -> tuple[Tensor, Tensor, bool]:
    """Return inputs and classes of all samples, and whether labels are plain numbers.

    Raises:
        ConfigurationError: If a sample is no pair of a tensor of floating point and a class.
    """
    samples = fetch(dataset, range(size(dataset)))
    first = samples[0]
    is_pair = isinstance(first, (tuple, list)) and len(first) == 2
    if not is_pair or not isinstance(first[0], Tensor) or not first[0].is_floating_point():
        raise ConfigurationError(
            "a sample is not (input, label) with an input of floating point, which this buffer "
            "needs; use a ReservoirBuffer for other samples"
        )
    labels = torch.as_tensor([label for _, label in samples])
    if labels.is_floating_point() or labels.ndim != 1:
        raise ConfigurationError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}, and this buffer is for "
            "classes: it is not defined for a regression; use a ReservoirBuffer"
        )
    return (
        torch.stack([each for each, _ in samples]).detach().cpu(),
        labels.long(),
        type(first[1]) is int,
    )
