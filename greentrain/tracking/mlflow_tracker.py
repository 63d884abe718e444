"""The tracker that logs to MLflow, whether or not its server responds."""

from __future__ import annotations

import hashlib
import re
import shutil
import uuid
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from greentrain._about import VERSION
from greentrain.errors import ConfigurationError
from greentrain.ledger import canonical
from greentrain.naming import check_place
from greentrain.texts import get_logger, markdown, masked
from greentrain.tracking import models, names
from greentrain.tracking.delivery import Delivery, answers
from greentrain.tracking.lightning_logger import QueueLogger, now_ms, points
from greentrain.tracking.publisher import Publisher
from greentrain.tracking.sender import Sender
from greentrain.tracking.tracker import DatasetUsed, RunFiles
from greentrain.tracking.tracking_queue import END, POINTS, RUN, TrackingQueue

_log = get_logger(__name__)

_PATIENCE_S = 5.0
_OWN_PATIENCE_S = 60.0
"""Patience with a database that only this process writes to: creating it takes time."""
_MODELS_BYTES = 2 * 10**9
"""Size of the models that may wait; the newest model may always wait."""
_LONGEST_NAME = 250
_LONGEST_VALUE = 5000
_FILE = "sqlite:///"
_ODD = re.compile(r"[^\w.-]+")
_Held = tuple[str, str, Any, bool]
"""A row to be sent: run, kind, content, and whether it replaces others."""


class MlflowTracker:
    """Log a stream to an MLflow tracking server or database.

    All rows are written to a local queue, from which a thread sends them, so a slow or failed
    server delays nothing. Rows wait until the server accepts them, and arrive once. Rows that are
    left when the process ends are sent by the user's next process that logs to the same place.
    Only points of epochs are discarded if too many wait, oldest first, with a warning.

    Args:
        tracking_uri: URI such as ``"sqlite:///mlflow.db"`` or ``"http://host:5000"``.
        experiment: Name of the experiment.
        artifact_location: Where the artifacts of a new experiment are stored. The server chooses
            if ``None``.
        queue_folder: Folder for rows that wait; ``greentrain/mlflow`` in the user's cache folder
            if ``None``. Rows wait in memory, with a warning, if it cannot be written.
        log_models: Whether to log the model of each update that is kept.
        registered_model_name: Name to register these models under.
        alias: Alias of the newest registered model.

    Raises:
        ConfigurationError: If the URI cannot be used, a model is to be registered but not logged,
            or an alias is given without a name.

    Example:
        >>> MlflowTracker("sqlite:///mlflow.db").run_id is None  # nothing is logged yet
        True
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        experiment: str = "greentrain",
        artifact_location: str | None = None,
        queue_folder: str | Path | None = None,
        log_models: bool = False,
        registered_model_name: str | None = None,
        alias: str | None = None,
    ) -> None:
        if registered_model_name is not None and not log_models:
            raise ConfigurationError(
                f"registered_model_name={registered_model_name!r} needs models that are logged; "
                "set log_models=True"
            )
        if alias is not None and registered_model_name is None:
            raise ConfigurationError(
                f"alias={alias!r} needs a registered model; set registered_model_name"
            )
        tracking_uri = check_place(tracking_uri, "tracking_uri", "http://host:5000")
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.log_models = log_models
        self.registered_model_name = registered_model_name
        self.alias = alias
        self._delivery = Delivery(tracking_uri, experiment, artifact_location)
        folder = _cache_folder() if queue_folder is None else Path(queue_folder)
        self._queue = TrackingQueue(folder, _target(tracking_uri, experiment))
        self._sender = Sender(
            self._queue,
            self._delivery.deliver,
            reachable=lambda: answers(tracking_uri),
            name=masked(tracking_uri),
        )
        self._publisher = Publisher()
        self._before: Mapping[str, Any] = {}
        self._stream = ""
        self._origin: dict[str, str] = {}
        self._key: str | None = None
        self._params: dict[str, str] = {}
        self._child: str | None = None
        self._windows = {"stream": 0, "update": 0}
        self._models: deque[Path] = deque()
        self._held: list[_Held] | None = None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the stream's run; ``None`` until MLflow has one."""
        return None if self._key is None else self._delivery.run_id(self._key)

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the parent run or resume it; parameters that have changed become tags."""
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking  # noqa: F401  # here, not in a thread during other imports

        given = {name: _text(value) for name, value in params.items()}
        before, self._before = self._before, {}
        self._stream, self._origin = _text(stream), _origin()
        self._key = before.get("key") or uuid.uuid4().hex
        self._windows["stream"] = before.get("windows", 0)
        self._params = dict(before.get("params", given))
        changed = {
            names.setting(name): value
            for name, value in given.items()
            if self._params.get(name) != value
        }
        tags = {**tags, **changed, names.TAG_VERSION: VERSION}
        self._begin_run(self._key, stream, parent=None, again=bool(before), tags=tags)
        self._put(self._key, "params", self._params)
        for key, kind, content, replace in before.get("held", ()):
            if kind != "model" or Path(content["folder"]).is_dir():  # else it has arrived
                self._put(key, kind, content, replace=replace)

    def begin_update(self, experience: str, datasets: Sequence[DatasetUsed] = ()) -> Any:
        """Begin a child run, and return a Lightning logger that writes to it."""
        if self._key is None:
            return None
        self.release()
        self._fail_child()
        self._child = uuid.uuid4().hex
        self._windows["update"] = 0
        tags = {names.TAG_EXPERIENCE: experience, names.NOTE: self._begun(experience)}
        self._begin_run(self._child, experience, parent=self._key, again=False, tags=tags)
        if datasets:
            self._put(self._child, "inputs", [self._input(each) for each in datasets])
        return QueueLogger(self._queue, self._child)

    def end_update(
        self,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        decision: Mapping[str, Any],
        model: Any = None,
    ) -> None:
        """End the child run with its metrics, tags, decision and, if enabled, its model."""
        child, self._child = self._child, None
        if child is None:
            return
        self._hold()
        self._put(child, "figures", points(metrics, 0, now_ms()))
        self._put(child, "tags", _texts(tags))
        self._put_decision(child, "decision.json", decision)
        if self.log_models and model is not None:
            of_model = {name: value for name, value in tags.items() if name != names.NOTE}
            self._put_model(child, model, metrics, of_model)
        self._put_end(child, "FINISHED")

    def skip(self, experience: str, position: int, decision: Mapping[str, Any]) -> None:
        """Attach a decision to train nothing to the parent run: it has no child run."""
        self._fail_child()
        if self._key is not None:
            self._hold()
            self._put_decision(self._key, f"decisions/{_file_name(experience)}.json", decision)

    def power(self, power_w: Mapping[str, float], at: datetime) -> None:
        """Log the mean power of each source over a window, to the update's run or the stream's."""
        run, owner = (self._child, "update") if self._child else (self._key, "stream")
        if run is not None and power_w:
            named = {names.source_power(source): watts for source, watts in power_w.items()}
            at_ms = int(at.timestamp() * 1000)
            self._queue.put(run, POINTS, points(named, self._windows[owner], at_ms))
            self._windows[owner] += 1

    def log(
        self, metrics: Mapping[str, float], step: int, note: str, tags: Mapping[str, str]
    ) -> None:
        """Log metrics of the stream to the parent run, and update its tags and note."""
        if self._key is not None:
            self._hold()
            self._put(self._key, "figures", points(metrics, step, now_ms()))
            self._put_tags(self._key, note, tags)

    def release(self) -> None:
        """Send what was held since the outcome of an experience, because its state is saved."""
        held, self._held = self._held or [], None
        for key, kind, content, replace in held:
            self._put(key, kind, content, replace=replace)

    def publish(self, make: Callable[[], RunFiles], step: int) -> None:
        """Attach files to the parent run, which a thread makes; only the latest ones are sent."""
        if (key := self._key) is not None:
            self._publisher.publish(lambda: self._put_files(key, make(), step))

    def attach(self, paths: Iterable[Path]) -> None:
        """Attach files to the parent run, also after it has ended."""
        if self._key is not None:
            for path in paths:
                self._sender.put(self._key, "file", str(path.resolve()))
            self._sender.finish(self._patience_s())

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """End the parent run, and wait for rows that have not arrived yet.

        The wait ends after 5 seconds in which no row arrives at a server, or 60 seconds for a
        database that this process writes to. It lasts a minute at most.
        """
        if self._key is None:
            return
        self.release()
        self._fail_child()
        self._publisher.finish(_PATIENCE_S)
        self._put_tags(self._key, note, tags)
        self._put_end(self._key, status)
        self._sender.finish(self._patience_s())

    def state_dict(self) -> dict[str, Any]:
        """Return what another process needs to resume the same parent run.

        It includes the outcome that is held. All that was logged before survives a killed process.
        """
        if self._key is None:
            return dict(self._before)
        self._queue.flush()
        return {
            "key": self._key,
            "params": dict(self._params),
            "windows": self._windows["stream"],
            "held": [list(row) for row in self._held or ()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make :meth:`start` resume the parent run of a state."""
        self._before = dict(state)

    def _hold(self) -> None:
        if self._held is None:
            self._held = []

    def _put(self, key: str, kind: str, content: Any, *, replace: bool = False) -> None:
        if self._held is None:
            self._sender.put(key, kind, content, replace=replace)
        else:
            self._held.append((key, kind, content, replace))

    def _fail_child(self) -> None:
        """End a child run that is still open as failed: its update raised an error."""
        if self._child is not None:
            self._put_end(self._child, "FAILED")
            self._child = None

    def _begin_run(
        self, key: str, name: str, *, parent: str | None, again: bool, tags: Mapping[str, str]
    ) -> None:
        content = {
            "name": _text(name, _LONGEST_NAME),
            "parent": parent,
            "again": again,
            "begun_ms": now_ms(),
            "tags": {**self._origin, names.TAG_STREAM: self._stream, **_texts(tags)},
        }
        self._put(key, RUN, content)

    def _begun(self, experience: str) -> str:
        name, stream = markdown(_text(experience)), markdown(self._stream)
        return f"An update of **{stream}** at the experience {name}, which has not ended or failed."

    def _put_end(self, key: str, status: str) -> None:
        self._put(key, END, {"status": status, "at_ms": now_ms()})

    def _put_tags(self, key: str, note: str, tags: Mapping[str, str]) -> None:
        self._put(key, "tags", _texts({**tags, names.NOTE: note}), replace=True)

    def _put_decision(self, key: str, path: str, decision: Mapping[str, Any]) -> None:
        self._put(key, "text", {"path": path, "text": canonical(dict(decision))})

    def _put_files(self, key: str, made: RunFiles, step: int) -> None:
        self._sender.put(key, "figures", points(made.metrics, step, now_ms()))
        files = {path: b64encode(content).decode() for path, content in made.files.items()}
        self._sender.put(key, "files", files, replace=True)

    def _input(self, used: DatasetUsed) -> dict[str, Any]:
        name = _text(used.name, _LONGEST_NAME)
        identity = [self._stream, used.name, used.context, used.samples]
        return {
            "name": name,
            "digest": hashlib.sha256(canonical(identity).encode()).hexdigest()[:8],
            "source": {"stream": self._stream, "experience": name},
            "num_rows": used.samples,
            "context": used.context,
        }

    def _put_model(
        self, child: str, model: Any, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        key = uuid.uuid4().hex
        queue_folder = self._queue.folder
        if queue_folder is None:
            _log.warning("a model cannot be logged to MLflow: set HOME or queue_folder=")
            return
        folder = queue_folder / f"model-{key}"
        try:
            models.save(model, folder, {**metrics, **tags})
        except Exception as error:  # a model that cannot be pickled must not stop training
            shutil.rmtree(folder, ignore_errors=True)
            _log.warning("a model cannot be logged to MLflow: %s", error)
            return
        self._models = deque(each for each in self._models if each.is_dir())
        self._models.append(folder)
        while len(self._models) > 1 and sum(map(_bytes, self._models)) > _MODELS_BYTES:
            shutil.rmtree(self._models.popleft(), ignore_errors=True)
        content = {
            "key": key,
            "folder": str(folder),
            "step": 0,
            "tags": _texts({**tags, **{name: repr(value) for name, value in metrics.items()}}),
            "registered": self.registered_model_name,
            "alias": self.alias,
        }
        self._put(child, "model", content)

    def _patience_s(self) -> float:
        return _PATIENCE_S if self.tracking_uri.startswith("http") else _OWN_PATIENCE_S


def _origin() -> dict[str, str]:
    """Return MLflow's own tags for the user, the program and its type."""
    from mlflow.tracking.context.default_context import DefaultRunContext

    try:
        return _texts(DefaultRunContext().tags())  # type: ignore[no-untyped-call]
    except (KeyError, OSError):  # a user without a name
        return {}


def _cache_folder() -> Path | None:
    """Return the user's folder for rows that wait; ``None`` for a user without a home."""
    import pooch  # a fifth of a second

    try:
        return Path(pooch.os_cache("greentrain")) / "mlflow"
    except RuntimeError:  # HOME is not set, and the user is not in the system's list
        return None


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _target(tracking_uri: str, experiment: str) -> str:
    """Return one name for a place, no matter how a process writes its path."""
    if tracking_uri.startswith(_FILE):
        tracking_uri = _FILE + str(Path(tracking_uri.removeprefix(_FILE)).resolve())
    return f"{tracking_uri} {experiment}"


def _file_name(name: str) -> str:
    """Return a valid file name, different for each name.

    Example:
        >>> _file_name("2024-01"), _file_name("../x")
        ('2024-01', '_x-d6b96a97')
    """
    plain = _ODD.sub("_", name).lstrip(".")[:80]
    if plain == name:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{plain}-{digest}"


def _text(value: object, longest: int = _LONGEST_VALUE) -> str:
    """Return a text that every store of MLflow accepts."""
    text = str(value).replace("\0", "").encode("utf-8", "replace").decode()
    return text[:longest]


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(value) for name, value in tags.items()}
