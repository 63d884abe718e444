"""What a stream tells about itself while it runs: to MLflow, or to nobody."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetUsed:
    """A dataset that an update used, without its data.

    Args:
        name: What it is called.
        samples: Samples in it.
        context: What for: ``"training"`` or ``"validation"``.
    """

    name: str
    samples: int
    context: str


class Tracker(Protocol):
    """Follows one stream: one parent run, and one child run for each update.

    None of its methods may keep training waiting, or stop it.
    """

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the stream's run, or go on in the one that :meth:`load_state_dict` told of."""
        ...

    def begin_update(self, experience: str, datasets: Sequence[DatasetUsed]) -> Any:
        """Begin an update, and return a Lightning logger for its Trainer, or ``None``."""
        ...

    def end_update(
        self,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        decision: Mapping[str, Any],
        model: Any = None,
    ) -> None:
        """End the update begun last; ``model`` is the new one, where it was kept."""
        ...

    def skip(self, experience: str, position: int, decision: Mapping[str, Any]) -> None:
        """Tell of a decision to train nothing."""
        ...

    def power(self, power_w: Mapping[str, float], at: datetime) -> None:
        """Log the mean power of each source over a window that ended at that time."""
        ...

    def log(
        self, metrics: Mapping[str, float], step: int, note: str, tags: Mapping[str, str]
    ) -> None:
        """Log where the stream as a whole stands, with a note in Markdown."""
        ...

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """End the stream's run."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return, as plain values, what another process needs to go on in the same run."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state_dict` of any tracker returned, before :meth:`start`."""
        ...


class NullTracker:
    """Tells nobody, and hands on the state of whoever told somebody before."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def begin_update(self, experience: str, datasets: Sequence[DatasetUsed]) -> Any:
        """Return no logger."""
        return None

    def end_update(
        self,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        decision: Mapping[str, Any],
        model: Any = None,
    ) -> None:
        """Do nothing."""

    def skip(self, experience: str, position: int, decision: Mapping[str, Any]) -> None:
        """Do nothing."""

    def power(self, power_w: Mapping[str, float], at: datetime) -> None:
        """Do nothing."""

    def log(
        self, metrics: Mapping[str, float], step: int, note: str, tags: Mapping[str, str]
    ) -> None:
        """Do nothing."""

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """Do nothing."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as it was given."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state."""
        self._state = dict(state)
