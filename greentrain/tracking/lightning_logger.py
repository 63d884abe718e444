"""A Lightning logger whose metrics wait in a queue until they reach MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

from greentrain.tracking.tracking_queue import POINTS, TrackingQueue


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class QueueLogger(Logger):
    """Add metrics to a queue, from which a thread of the tracker sends them.

    A call to MLflow takes 25 to 150 ms, longer than a small epoch, and minutes if the server is
    down. Adding a row to the queue takes a small part of a millisecond.

    Args:
        queue: The queue.
        run: Key of the run.
    """

    def __init__(self, queue: TrackingQueue, run: str) -> None:
        super().__init__()
        self._queue = queue
        self._run = run

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "greentrain"

    @property
    def version(self) -> str:
        """Key of the run."""
        return self._run

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: hyperparameters are logged in the run of the stream."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add metrics to the queue."""
        self._queue.put(self._run, POINTS, points(metrics, step or 0, now_ms()))


def points(metrics: Mapping[str, float], step: int, at_ms: int) -> list[list[Any]]:
    """Return metrics as a queue holds them: name, value, milliseconds since 1970, and step.

    Example:
        >>> points({"loss": 0.5}, 3, 1000)
        [['loss', 0.5, 1000, 3]]
    """
    return [[name, float(value), at_ms, step] for name, value in metrics.items()]
