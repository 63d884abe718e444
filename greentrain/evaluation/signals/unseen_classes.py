"""Measure the share of new samples whose class a stream has never seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset, Subset

from greentrain.errors import ConfigurationError
from greentrain.evaluation.signals.drift import spread
from greentrain.memory import size
from greentrain.memory.datasets import item_column
from greentrain.memory.labels import read_labels
from greentrain.memory.sample_table import Label
from greentrain.methods import MISSING_LABEL

LABELS_READ = 512
"""Largest number of samples read for their labels, if no tensor holds the labels."""


class SeenClasses:
    """The classes seen so far, in the order of their first sample.

    Example:
        >>> seen = SeenClasses()
        >>> seen.add([3, 1, 3])
        >>> 1 in seen, 2 in seen, len(seen)
        (True, False, 2)
    """

    def __init__(self) -> None:
        self._labels: dict[Label, None] = {}

    def __contains__(self, label: object) -> bool:
        return label in self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def are_signs(self, more: Iterable[Any] = ()) -> bool:
        """Return whether -1 is one of two classes, with further labels."""
        classes = {*self._labels, *more}
        return MISSING_LABEL in classes and len(classes) == 2

    def add(self, labels: Iterable[Label] | None) -> None:
        """Add labels; ``None``, for data without classes, adds nothing."""
        self._labels.update(dict.fromkeys(labels or ()))

    def state_dict(self) -> dict[str, Any]:
        """Return the classes, as plain values."""
        return {"labels": list(self._labels)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the result of :meth:`state_dict`."""
        self._labels = dict.fromkeys(state["labels"])


def unseen_share(labels: Sequence[Label] | None, seen: SeenClasses) -> float | None:
    """Return the share of samples whose class was never seen.

    Args:
        labels: The label of each sample; ``None`` without labels.
        seen: The classes seen so far.

    Returns:
        A share in [0, 1]; ``None`` without labels.

    Example:
        >>> seen = SeenClasses()
        >>> seen.add([0, 1])
        >>> unseen_share([0, 1, 2, 2], seen)
        0.5
    """
    return sum(label not in seen for label in labels) / len(labels) if labels else None


def labels_in(dataset: Dataset[Any], *, limit: int = LABELS_READ) -> list[Label] | None:
    """Return the labels of the samples ``(x, label, ...)`` or ``{"label": label, ...}``.

    Labels in a tensor are all read at once. Otherwise only some samples are read, at even
    distances: the same ones each time.

    Args:
        dataset: A map-style dataset.
        limit: Largest number of samples to read, if no tensor holds the labels.

    Returns:
        A whole number or a text for each sample. ``None`` without samples, and if a label is
        missing, a fraction, or several numbers. Samples whose label is -1 have none and are left
        out, unless -1 is one of two classes.

    Example:
        >>> labels_in([("a", 3), ("b", 3), ("c", 7)]), labels_in([("a", 0.5)])
        ([3, 3, 7], None)
    """
    if not size(dataset):
        return None
    if item_column(dataset, 1) is None and size(dataset) > limit:
        dataset = Subset(dataset, spread(size(dataset), limit).tolist())
    try:
        classes, places = read_labels(dataset)
    except ConfigurationError:  # the labels are not classes
        return None
    found = [classes[place] for place in places.tolist()]
    if MISSING_LABEL not in classes or len(classes) == 2:
        return found
    return [each for each in found if each != MISSING_LABEL] or None
