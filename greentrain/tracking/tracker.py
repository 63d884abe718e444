"""The interface through which a stream logs what it does, and a tracker that logs nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetUsed:
    """A dataset that an update used, without its data.

    Args:
        name: Name of the dataset.
        samples: Samples in it.
        context: Its use: ``"training"`` or ``"validation"``.
    """

    name: str
    samples: int
    context: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFiles:
    """Files about a stream, and figures that were computed with them.

    Args:
        files: Contents by path in the run, such as ``"charts/energy.png"``.
        metrics: Metrics of the stream.
    """

    files: Mapping[str, bytes]
    metrics: Mapping[str, float]


class Tracker(Protocol):
    """Log one stream: a parent run for the stream, and a child run for each update.

    ``StreamTrainer`` calls :meth:`start` once. For each experience it then calls either
    :meth:`skip`, or :meth:`begin_update` and :meth:`end_update`, followed by :meth:`log`. Then it
    saves its state, and calls :meth:`release` and :meth:`publish`. It calls :meth:`finish` at the
    end. No method may
    delay training or raise an error.
    """

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the stream's run, or resume the run of :meth:`load_state_dict`."""
        return None

    def begin_update(self, experience: str, datasets: Sequence[DatasetUsed]) -> Any:
        """Begin an update, and return a Lightning logger for its Trainer, or ``None``."""
        return None

    def end_update(
        self,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        decision: Mapping[str, Any],
        model: Any = None,
    ) -> None:
        """End the latest update; ``model`` is the new model if it was kept."""
        return None

    def skip(self, experience: str, position: int, decision: Mapping[str, Any]) -> None:
        """Log a decision to train nothing."""
        return None

    def power(self, power_w: Mapping[str, float], at: datetime) -> None:
        """Log the mean power of each source over a window that ended at that time."""
        return None

    def log(
        self, metrics: Mapping[str, float], step: int, note: str, tags: Mapping[str, str]
    ) -> None:
        """Log the state of the whole stream, with a note in Markdown."""
        return None

    def release(self) -> None:
        """Send what was held since the outcome of an experience, because its state is saved.

        A tracker that holds it until now, and returns it in :meth:`state_dict`, logs each outcome
        of a saved state once, also if the process is killed in between.
        """
        return None

    def publish(self, make: Callable[[], RunFiles], step: int) -> None:
        """Attach the files that ``make`` returns, in place of earlier ones; called by a thread.

        ``StreamTrainer`` calls it after :meth:`release`, and before :meth:`finish`.
        """
        return None

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """End the stream's run."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Return, as plain values, what another process needs to resume the same run."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load the :meth:`state_dict` of any tracker, before :meth:`start`."""
        return None


class NullTracker(Tracker):
    """Log nothing, and preserve the state of an earlier tracker."""

    def __init__(self) -> None:
        self._state: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state that was loaded."""
        return dict(self._state)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Keep the state."""
        self._state = dict(state)
