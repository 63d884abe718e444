"""What a stream tells about itself while it runs: to MLflow, or to nobody."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from greentrain._about import VERSION
from greentrain.ledger import canonical
from greentrain.tracking import names

_log = logging.getLogger(__name__)


class Tracker(Protocol):
    """Follows one stream: one parent run, and one child run for each update."""

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the stream's run."""
        ...

    def begin_update(self, experience: str) -> Any:
        """Begin an update, and return a Lightning logger for its Trainer, or ``None``."""
        ...

    def end_update(
        self, metrics: Mapping[str, float], tags: Mapping[str, str], decision: Mapping[str, Any]
    ) -> None:
        """End the update begun last."""
        ...

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log figures of the stream as a whole."""
        ...

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """End the stream's run."""
        ...


class NullTracker:
    """Tells nobody."""

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Do nothing."""

    def begin_update(self, experience: str) -> Any:
        """Return no logger."""
        return None

    def end_update(
        self, metrics: Mapping[str, float], tags: Mapping[str, str], decision: Mapping[str, Any]
    ) -> None:
        """Do nothing."""

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """Do nothing."""


class MlflowTracker:
    """Tell an MLflow tracking server or file.

    What fails on MLflow's side is warned of once and then left alone: training never dies of it.

    Args:
        tracking_uri: Such as ``"sqlite:///mlflow.db"`` or ``"http://host:5000"``.
        experiment: The experiment's name.
        artifact_location: Where the artifacts of a new experiment go; the server's choice if
            ``None``.

    Attributes:
        run_id: The stream's run, once started.
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        experiment: str = "greentrain",
        artifact_location: str | None = None,
    ) -> None:
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.artifact_location = artifact_location
        self.run_id: str | None = None
        self._client: Any = None
        self._experiment_id: str | None = None
        self._stream = ""
        self._child: str | None = None
        self._logger: Any = None

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the parent run, with parameters and tags."""
        self._stream = stream
        self._safely(lambda: self._start(params, tags))

    def begin_update(self, experience: str) -> Any:
        """Begin a child run, and return a Lightning logger that writes into it."""
        if self.run_id is None:
            return None
        self._child = self._safely(lambda: self._create_run(experience, self.run_id))
        if self._child is None:
            return None
        from greentrain.tracking.lightning_logger import BatchedMlflowLogger

        self._logger = BatchedMlflowLogger(self._log_batch, self._child)
        return self._logger

    def end_update(
        self, metrics: Mapping[str, float], tags: Mapping[str, str], decision: Mapping[str, Any]
    ) -> None:
        """End the child run, with its figures, its tags and the decision as a JSON artifact."""
        child, self._child = self._child, None
        if child is None:
            return

        def end() -> None:
            self._logger.save()
            self._client.log_batch(child, metrics=_metrics(metrics, 0), tags=_tags(tags))
            self._log_text(child, canonical(dict(decision)), "decision.json")
            self._client.set_terminated(child, "FINISHED")

        self._safely(end)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Log figures of the stream into the parent run."""
        if self.run_id is not None:
            self._safely(lambda: self._log_batch(self.run_id, _metrics(metrics, step)))

    def attach(self, paths: Iterable[Path]) -> None:
        """Attach files to the parent run, also after it has ended."""
        for path in paths:
            if self.run_id is not None:
                self._safely(partial(self._client.log_artifact, self.run_id, str(path)))

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """End the parent run, with a Markdown note."""
        if self.run_id is None:
            return

        def end() -> None:
            self._client.log_batch(self.run_id, tags=_tags({**tags, names.NOTE: note}))
            self._client.set_terminated(self.run_id, status)

        self._safely(end)

    def _start(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=self.tracking_uri)
        known = self._client.get_experiment_by_name(self.experiment)
        self._experiment_id = (
            known.experiment_id
            if known is not None
            else self._client.create_experiment(self.experiment, self.artifact_location)
        )
        run_id = self._create_run(self._stream, None)
        described = {names.TAG_STREAM: self._stream, names.TAG_VERSION: VERSION, **tags}
        self._client.log_batch(
            run_id,
            params=[Param(key, str(value)) for key, value in params.items()],
            tags=_tags(described),
        )
        self.run_id = run_id

    def _create_run(self, name: str, parent: str | None) -> str:
        tags = {names.TAG_STREAM: self._stream}
        if parent is not None:
            tags |= {"mlflow.parentRunId": parent, names.TAG_EXPERIENCE: name}
        run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
        return str(run.info.run_id)

    def _log_batch(self, run_id: str | None, metrics: list[Any]) -> None:
        self._safely(lambda: self._client.log_batch(run_id, metrics=metrics))

    def _log_text(self, run_id: str, text: str, name: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            path.write_text(text)
            self._client.log_artifact(run_id, str(path))

    def _safely(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except Exception as error:  # MLflow raises what its stores raise; training goes on
            _log.warning("MLflow at %s failed and is left alone: %s", self.tracking_uri, error)
            self.run_id = self._child = None
            return None


def _metrics(metrics: Mapping[str, float], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now_ms = time.time_ns() // 1_000_000
    return [Metric(name, value, now_ms, step) for name, value in metrics.items()]


def _tags(tags: Mapping[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(key, value) for key, value in tags.items()]
