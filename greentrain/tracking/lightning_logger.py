"""A Lightning logger whose metrics wait in a spool until they reach MLflow."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from lightning_utilities.core.rank_zero import rank_zero_only
from pytorch_lightning.loggers.logger import Logger

from greentrain.tracking.spool import POINTS, Spool


def now_ms() -> int:
    """Return milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class SpoolLogger(Logger):
    """Put metrics into a spool, for a thread of the tracker's to send.

    A call to MLflow takes 25 to 150 ms, more than a small epoch, and minutes where the server is
    down; a row of the spool takes a small part of a millisecond.

    Args:
        spool: The spool.
        run: The key of the run.
        clock_ms: Gives milliseconds since 1970.
    """

    def __init__(
        self,
        spool: Spool,
        run: str,
        *,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        super().__init__()
        self._spool = spool
        self._run = run
        self._clock_ms = clock_ms

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "greentrain"

    @property
    def version(self) -> str:
        """The run's key."""
        return self._run

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Leave hyperparameters to the stream's own run."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take metrics up."""
        self._spool.put(self._run, POINTS, points(metrics, step or 0, self._clock_ms()))


def points(metrics: Mapping[str, float], step: int, at_ms: int) -> list[list[Any]]:
    """Return metrics as a spool has them: name, value, milliseconds since 1970, and step.

    Example:
        >>> points({"loss": 0.5}, 3, 1000)
        [['loss', 0.5, 1000, 3]]
    """
    return [[name, float(value), at_ms, step] for name, value in metrics.items()]
