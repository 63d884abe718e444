"""An experience: a piece of newly arrived data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset

from greentrain.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Experience:
    """A piece of newly arrived data, with held-out data of the same kind.

    Args:
        id: Name of the experience, unique in its stream.
        train: Map-style dataset to learn from.
        val: Map-style dataset to measure on; never trained on.
        metadata: Anything that describes the experience.
        test: Map-style dataset to report on; greentrain itself never looks at it.

    Raises:
        ConfigurationError: If the name is empty, a dataset is missing or empty, or has no length.
    """

    id: str
    train: Dataset[Any]
    val: Dataset[Any]
    metadata: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    test: Dataset[Any] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise ConfigurationError(
                f"an experience's id is {self.id!r}; it is a text that names it in its stream"
            )
        check_dataset(self.train, f"train of experience {self.id!r}", "training")
        check_dataset(self.val, f"val of experience {self.id!r}", "validation")
        if self.test is not None:
            check_dataset(self.test, f"test of experience {self.id!r}", "test")


def check_dataset(dataset: Any, name: str, purpose: str) -> None:
    """Refuse what is no map-style dataset, or an empty one.

    Raises:
        ConfigurationError: Under the name that is given, and with the purpose of the data.
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
