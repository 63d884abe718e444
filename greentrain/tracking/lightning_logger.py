"""A Lightning logger that gathers metrics and sends them to MLflow in few batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.loggers.logger import Logger

_SEND_EVERY_S = 10.0
_SEND_AT = 900  # MLflow takes 1,000 metrics in a batch


class BatchedMlflowLogger(Logger):
    """Gather metrics and send them every ten seconds of logging, and when asked to.

    A call to MLflow takes 25 to 150 ms, more than a small epoch: sent one by one, they would cost
    more energy than the training that they describe.

    Args:
        send: Takes a run's id and a list of MLflow metrics.
        run_id: The run.
        clock: Gives seconds.
    """

    def __init__(
        self,
        send: Callable[[str, list[Any]], None],
        run_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._send = send
        self._run_id = run_id
        self._clock = clock
        self._sent_s = clock()
        self._waiting: list[Any] = []

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "greentrain"

    @property
    def version(self) -> str:
        """The run's id."""
        return self._run_id

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Leave hyperparameters to the stream's own run."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Take metrics up, and send what waits if it is time."""
        from mlflow.entities import Metric

        now_ms = time.time_ns() // 1_000_000
        self._waiting += [
            Metric(name, float(value), now_ms, step or 0) for name, value in metrics.items()
        ]
        if len(self._waiting) >= _SEND_AT or self._clock() - self._sent_s >= _SEND_EVERY_S:
            self.save()

    def save(self) -> None:
        """Send what waits."""
        waiting, self._waiting = self._waiting, []
        self._sent_s = self._clock()
        for begin in range(0, len(waiting), _SEND_AT):
            self._send(self._run_id, waiting[begin : begin + _SEND_AT])

    def finalize(self, status: str) -> None:
        """Send nothing yet: who holds the logger calls :meth:`save` once the fit is paid for."""
