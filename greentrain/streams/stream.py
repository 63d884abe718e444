"""Experiences, which are pieces of newly arrived data, and streams of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError
from greentrain.naming import check_name


@dataclass(frozen=True, slots=True)
class Experience:
    """A piece of newly arrived data, with held-out data of the same kind.

    Args:
        id: Name of the experience, unique in its stream.
        train: Map-style dataset to train on.
        val: Map-style dataset to evaluate on; never trained on.
        metadata: Any description of the experience.
        test: Map-style dataset for final reports; greentrain makes no decision by it.
        labels: Returns ``(train, val)`` with labels, if they come only after the decision: the same
            samples, of which some may have no label. It is called once in each try of the update,
            after the decision; ``train`` and ``val`` need no labels then.

    Raises:
        ConfigurationError: If the name cannot be stored, or a dataset is missing or empty, or has
            no length, or ``labels`` is no function.
    """

    id: str
    train: Dataset[Any]
    val: Dataset[Any]
    metadata: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    test: Dataset[Any] | None = field(default=None, kw_only=True)
    labels: Callable[[], tuple[Dataset[Any], Dataset[Any]]] | None = field(
        default=None, kw_only=True
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", check_name(self.id, "an experience's id", "monday"))
        check_dataset(self.train, f"train of experience {self.id!r}", "training")
        check_dataset(self.val, f"val of experience {self.id!r}", "validation")
        if self.test is not None:
            check_dataset(self.test, f"test of experience {self.id!r}", "test")
        if self.labels is not None and not callable(self.labels):
            raise ConfigurationError(
                f"labels of experience {self.id!r} is a {type(self.labels).__name__}; it must be a "
                "function that returns (train, val) with labels, such as lambda: (train, val)"
            )

    def labelled(self) -> Experience:
        """Return this experience with the labels that ``labels`` returns.

        Raises:
            ConfigurationError: If it has no ``labels``, or they return no pair of datasets, or
                datasets of another size.
        """
        given = None if self.labels is None else self.labels()
        if not (isinstance(given, tuple | list) and len(given) == 2):
            raise ConfigurationError(
                f"labels of experience {self.id!r} gave a {type(given).__name__}; it has to return "
                "(train, val) with labels. Omit labels= until there are some"
            )
        train, val = given
        found = Experience(self.id, train, val, metadata=self.metadata, test=self.test)
        for name in ("train", "val"):
            count, expected = len(getattr(found, name)), len(getattr(self, name))
            if count != expected:
                raise ConfigurationError(
                    f"labels of experience {self.id!r} gave {count} samples as {name}, which has "
                    f"{expected}; return all of them, with -1 or None where a label is missing"
                )
        return found


@dataclass(frozen=True, slots=True, eq=False)
class Stream(Sequence[Experience]):
    """Experiences in order: a sequence, and any slice of it is a stream too.

    Functions that take a stream also take any iterable of experiences, even an endless one.

    Args:
        experiences: The experiences.
        name: Name of this stream.
        scenario: Kind of stream, such as ``"class-incremental"``.

    Raises:
        ConfigurationError: If the name cannot be stored, two experiences have the same name, or an
            item is no experience.

    Example:
        >>> from greentrain.streams import Experience, Stream
        >>> days = [Experience(day, [1, 2], [3]) for day in ("mon", "tue", "wed")]
        >>> Stream(days, name="week")[1:]
        Stream('week', 2 experiences: tue, wed)
    """

    experiences: Sequence[Experience]
    name: str = "stream"
    scenario: str = "mixed"

    def __post_init__(self) -> None:
        object.__setattr__(self, "experiences", tuple(self.experiences))
        object.__setattr__(self, "name", check_name(self.name, "a stream's name", "digits"))
        seen: set[str] = set()
        for experience in self.experiences:
            if not isinstance(experience, Experience):
                raise ConfigurationError(
                    f"stream {self.name!r} holds a {type(experience).__name__}; it must be made of "
                    "Experience(id, train, val)"
                )
            if experience.id in seen:
                raise ConfigurationError(
                    f"stream {self.name!r} has two experiences named {experience.id!r}; give each "
                    "a different name"
                )
            seen.add(experience.id)

    def __len__(self) -> int:
        return len(self.experiences)

    @overload
    def __getitem__(self, index: int) -> Experience: ...
    @overload
    def __getitem__(self, index: slice) -> Stream: ...
    def __getitem__(self, index: int | slice) -> Experience | Stream:
        if isinstance(index, slice):
            return Stream(self.experiences[index], name=self.name, scenario=self.scenario)
        return self.experiences[index]

    def __repr__(self) -> str:
        ids = [experience.id for experience in self.experiences]
        shown = ids if len(ids) <= 8 else [*ids[:4], "...", ids[-1]]
        names = f": {', '.join(shown)}" if shown else ""
        return f"Stream({self.name!r}, {len(ids)} experiences{names})"


def check_dataset(dataset: Any, name: str, purpose: str) -> None:
    """Check that a dataset is a map-style dataset with samples.

    Args:
        dataset: The dataset.
        name: Name of the dataset in the error.
        purpose: Purpose of its data in the error.

    Raises:
        ConfigurationError: If it is not.
    """
    if dataset is None:
        raise ConfigurationError(f"{name} is None; a map-style dataset of {purpose} data is needed")
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ConfigurationError(
            f"{name} is a {type(dataset).__name__}; it has to be a map-style dataset, with a "
            "length and an index"
        )
    if len(dataset) == 0:
        raise ConfigurationError(f"{name} holds no samples; {purpose} data is needed")


def experience_id(position: int, count: int, content: str) -> str:
    """Return a name by which experiences sort in the order of their arrival."""
    return f"{position:0{len(str(count - 1))}d}-{content}"


def named_stream(scenario: str, experiences: Sequence[Experience], seed: int) -> Stream:
    """Return a stream with a name made of its scenario, length and seed."""
    name = f"{scenario}-{len(experiences)}-seed-{seed}"
    return Stream(experiences, name=name, scenario=scenario)
