"""A buffer that stores no sample: it learns to generate samples like those of the past."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.memory.datasets import SampleList, concat, fetch, size
from greentrain.memory.pairs import as_pairs, pairs_of, positive
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
        >>> from torch.utils.data import TensorDataset
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
        self._max_size, self.classes, self.steps = int(max_size), int(classes), int(steps)
        self.batch_size, self.hidden, self.latent = int(batch_size), int(hidden), int(latent)
        self.rate, self.learn_at_once = positive(rate, "rate", above=True), learn_at_once
        self.label_with: Callable[[Tensor], Tensor] | None = None
        self.experiences = 0
        self._model: PixelVae | None = None
        self._origins: dict[str, int] = {}
        self._counts = torch.zeros(self.classes, dtype=torch.int64)
        self._waiting: list[tuple[str, Tensor, Tensor]] = []
        self._plain = False  # whether labels are plain numbers
        self._dtype = torch.float32  # of the inputs that were given last
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
            ConfigurationError: If samples are no pairs of values from 0 to 1 and a class, or of
                another shape than earlier ones.
        """
        if not size(dataset):
            return
        self._waiting.append((origin, *self._columns(dataset)))
        if self.learn_at_once:
            self.learn()

    def learn(self) -> int:
        """Train the generator on the data that wait, and return the number of steps.

        A part that was learned waits no longer, also if a later one fails.
        """
        steps = 0
        while self._waiting:
            origin, inputs, labels = self._waiting[0]
            self._train(inputs, labels)
            del self._waiting[0]
            self._origins[origin] = self._origins.get(origin, 0) + len(labels)
            self._counts += torch.bincount(labels, minlength=self.classes)
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
        every = sum(self._origins.values())
        kept = sum(count for origin, count in self._origins.items() if keep(origin))
        parts: list[Dataset[Sample]] = [
            as_pairs(inputs.to(self._dtype), labels, self._plain)
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

        They have the dtype of the inputs that were given last.

        Raises:
            ConfigurationError: If nothing was learned yet, or ``count`` is not 1 or more.
        """
        if not is_whole(count, 1):
            raise ConfigurationError(
                f"cannot generate {count!r} samples; give a whole number from 1 on"
            )
        if self._model is None or not self.experiences:
            raise ConfigurationError(
                "nothing was learned yet, so nothing can be generated; add an experience first"
            )
        shares = self._counts.double()
        labels = torch.multinomial(shares, count, replacement=True, generator=self._generator)
        noise = torch.randn(count, self.latent, generator=self._generator)
        inputs = self._model.generate(labels, noise).to(self._dtype)
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
            "dtype": str(self._dtype).removeprefix("torch."),
            "waiting": [list(each) for each in self._waiting],
            "random": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the result of :meth:`state_dict` of a buffer with the same arguments.

        Raises:
            ConfigurationError: If it is of a buffer with other ``classes``, ``hidden`` or
                ``latent``.
        """
        if len(state["counts"]) != self.classes:
            raise ConfigurationError(
                f"the state is of a buffer with {len(state['counts'])} classes, and this one has "
                f"{self.classes}; make it with the same arguments"
            )
        if state["weights"] is not None:
            hidden, into = state["weights"]["decoder.0.weight"].shape
            if [hidden, into - self.classes] != [self.hidden, self.latent]:
                raise ConfigurationError(
                    f"the state is of a buffer with hidden {hidden} and latent "
                    f"{into - self.classes}, and this one has {self.hidden} and {self.latent}; "
                    "make it with the same arguments"
                )
        self._model = None
        if state["weights"] is not None:
            self._model = self._made(tuple(state["shape"]))
            self._model.load_state_dict(state["weights"])
        self._origins, self._counts = dict(state["origins"]), state["counts"].clone()
        self.experiences, self._plain = state["experiences"], state["plain"]
        self._dtype = getattr(torch, state.get("dtype", "float32"))
        self._waiting = [(name, inputs, labels) for name, inputs, labels in state["waiting"]]
        self._generator.set_state(state["random"])

    def _train(self, inputs: Tensor, labels: Tensor) -> None:
        past, inputs = None, inputs.float()
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

    def check(self, inputs: Tensor, labels: Tensor) -> None:
        """Refuse inputs and labels that :meth:`add` would refuse, such as those of a batch.

        Args:
            inputs: Inputs, ``(batch, ...)``.
            labels: Classes, ``(batch,)``.

        Raises:
            ConfigurationError: If values are not from 0 to 1, labels are no numbers of classes, or
                inputs have another shape than earlier ones.
        """
        if not inputs.is_floating_point() or inputs.ndim < 2:
            raise ConfigurationError(
                f"inputs are {inputs.dtype} of shape {list(inputs.shape)}, and the generator needs "
                "floating point with one or more dimensions for each sample; convert them"
            )
        shape, before = list(inputs.shape[1:]), self._input_shape()
        if before is not None and shape != before:
            raise ConfigurationError(
                f"inputs are {shape} where those before are {before}; samples in one buffer must "
                "have the same shape"
            )
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

    def _columns(self, dataset: Dataset[Sample]) -> tuple[Tensor, Tensor]:
        inputs, labels, plain = pairs_of(dataset)
        self.check(inputs, labels)
        self._plain, self._dtype = plain, inputs.dtype
        return inputs, labels

    def _input_shape(self) -> list[int] | None:
        if self._model is not None:
            return list(self._model.shape)
        return list(self._waiting[0][1].shape[1:]) if self._waiting else None
