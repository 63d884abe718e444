"""A stream: experiences in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from greentrain.errors import ConfigurationError
from greentrain.streams.experience import Experience


@dataclass(frozen=True, slots=True, eq=False)
class Stream(Sequence[Experience]):
    """Experiences in order: a sequence, of which a slice is a stream too.

    Whatever takes a stream takes any iterable of experiences, also one that never ends.

    Args:
        experiences: The experiences.
        name: What this stream is called.
        scenario: How it was made, such as ``"class-incremental"``.

    Raises:
        ConfigurationError: If two experiences have one name, or something is no experience.

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
        seen: set[str] = set()
        for experience in self.experiences:
            if not isinstance(experience, Experience):
                raise ConfigurationError(
                    f"stream {self.name!r} holds a {type(experience).__name__}; it is made of "
                    "Experience(id, train, val)"
                )
            if experience.id in seen:
                raise ConfigurationError(
                    f"stream {self.name!r} has two experiences named {experience.id!r}; give each "
                    "a name of its own"
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
        told = ids if len(ids) <= 8 else [*ids[:4], "...", ids[-1]]
        names = f": {', '.join(told)}" if told else ""
        return f"Stream({self.name!r}, {len(ids)} experiences{names})"


def numbered(position: int, of: int, what: str) -> str:
    """Name an experience so that names sort in the order in which they come."""
    return f"{position:0{len(str(of - 1))}d}-{what}"


def built(scenario: str, experiences: Sequence[Experience], seed: int) -> Stream:
    """Make a stream that is named after how it was made."""
    name = f"{scenario}-{len(experiences)}-seed-{seed}"
    return Stream(experiences, name=name, scenario=scenario)
