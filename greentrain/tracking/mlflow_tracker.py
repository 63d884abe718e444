"""The tracker that tells MLflow, whether or not it listens at the moment."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from greentrain._about import VERSION
from greentrain.errors import ConfigurationError
from greentrain.ledger import canonical
from greentrain.tracking import models, names
from greentrain.tracking.delivery import Delivery, answers
from greentrain.tracking.lightning_logger import SpoolLogger, now_ms, points
from greentrain.tracking.sender import Sender
from greentrain.tracking.spool import POINTS, Spool
from greentrain.tracking.tracker import DatasetUsed

_log = logging.getLogger(__name__)

_PATIENCE_S = 5.0
_OWN_PATIENCE_S = 60.0
"""A database that this process writes to by itself only takes its time, such as to be made."""
_MODELS_BYTES = 2 * 10**9
"""Of models that wait, as many as this; the newest in any case."""
_LONGEST_NAME = 250
_LONGEST_VALUE = 5000
_FILE = "sqlite:///"
_ODD = re.compile(r"[^\w.-]+")


class MlflowTracker:
    """Tell an MLflow tracking server or database what a stream does.

    Everything goes into a local spool, from which a thread sends it. A server that is slow or down
    delays nothing: what it does not take waits and arrives later, once; what is left when the
    process ends is sent by this user's next process that tracks to the same place. Only epochs'
    points are given up where too many wait, the oldest first, and a warning says how many.

    Args:
        tracking_uri: Such as ``"sqlite:///mlflow.db"`` or ``"http://host:5000"``.
        experiment: The experiment's name.
        artifact_location: Where the artifacts of a new experiment go; the server's choice if
            ``None``.
        spool: Folder of what waits; ``greentrain/mlflow`` among the user's caches by default.
        log_models: Whether to log the model of each update that is kept.
        registered_model_name: Name to register these models under.
        alias: Alias under that name that points to the newest one.

    Raises:
        ConfigurationError: If a model is to be registered and none logged, or an alias has no name.

    Example:
        >>> MlflowTracker("sqlite:///mlflow.db").run_id is None  # nothing was told yet
        True
    """

    def __init__(
        self,
        tracking_uri: str,
        *,
        experiment: str = "greentrain",
        artifact_location: str | None = None,
        spool: str | Path | None = None,
        log_models: bool = False,
        registered_model_name: str | None = None,
        alias: str | None = None,
    ) -> None:
        if registered_model_name is not None and not log_models:
            raise ConfigurationError(
                f"registered_model_name is {registered_model_name!r} and no model is logged; give "
                "log_models=True, too"
            )
        if alias is not None and registered_model_name is None:
            raise ConfigurationError(
                f"alias is {alias!r} and the model has no name; give registered_model_name, too"
            )
        self.tracking_uri = tracking_uri
        self.experiment = experiment
        self.log_models = log_models
        self.registered_model_name = registered_model_name
        self.alias = alias
        self._delivery = Delivery(tracking_uri, experiment, artifact_location)
        self._spool = Spool(
            _caches() if spool is None else Path(spool), _target(tracking_uri, experiment)
        )
        self._sender = Sender(
            self._spool,
            self._delivery.deliver,
            reachable=lambda: answers(tracking_uri),
            name=_without_password(tracking_uri),
        )
        self._before: Mapping[str, Any] = {}
        self._stream = ""
        self._key: str | None = None
        self._params: dict[str, str] = {}
        self._child: str | None = None
        self._windows = {"stream": 0, "update": 0}
        self._models: deque[Path] = deque()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the stream's run; ``None`` until MLflow has one."""
        return None if self._key is None else self._delivery.run_id(self._key)

    def start(self, stream: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Begin the parent run, or go on in the one there was; what has changed becomes a tag."""
        import mlflow.store.tracking.sqlalchemy_store
        import mlflow.tracking  # noqa: F401  # here, not in a thread beside other imports

        given = {name: _text(value) for name, value in params.items()}
        before, self._before = self._before, {}
        self._stream = _text(stream)
        self._key = before.get("key") or uuid.uuid4().hex
        self._windows["stream"] = before.get("windows", 0)
        self._params = dict(before.get("params", given))
        changed = {
            names.setting(name): value
            for name, value in given.items()
            if self._params.get(name) != value
        }
        self._run(
            self._key,
            stream,
            parent=None,
            again=bool(before),
            tags={**tags, **changed, names.TAG_VERSION: VERSION},
        )
        self._sender.put(self._key, "params", self._params)

    def begin_update(self, experience: str, datasets: Sequence[DatasetUsed] = ()) -> Any:
        """Begin a child run, and return a Lightning logger that writes into it."""
        if self._key is None:
            return None
        self._child = uuid.uuid4().hex
        self._windows["update"] = 0
        tags = {names.TAG_EXPERIENCE: experience}
        self._run(self._child, experience, parent=self._key, again=False, tags=tags)
        if datasets:
            self._sender.put(self._child, "inputs", [self._input(each) for each in datasets])
        return SpoolLogger(self._spool, self._child)

    def end_update(
        self,
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        decision: Mapping[str, Any],
        model: Any = None,
    ) -> None:
        """End the child run: its figures, tags, decision and, if so asked, its model."""
        child, self._child = self._child, None
        if child is None:
            return
        self._sender.put(child, "figures", points(metrics, 0, now_ms()))
        self._sender.put(child, "tags", _texts(tags))
        text = {"path": "decision.json", "text": canonical(dict(decision))}
        self._sender.put(child, "text", text)
        if self.log_models and model is not None:
            self._model(child, model, metrics, tags)
        self._sender.put(child, "end", {"status": "FINISHED", "at_ms": now_ms()})

    def skip(self, experience: str, position: int, decision: Mapping[str, Any]) -> None:
        """Attach a decision to train nothing to the parent run, which has no child for it."""
        if self._key is not None:
            path = f"decisions/{_file_name(experience)}.json"
            text = {"path": path, "text": canonical(dict(decision))}
            self._sender.put(self._key, "text", text)

    def power(self, power_w: Mapping[str, float], at: datetime) -> None:
        """Log the mean power of each source over a window, to the update's run or the stream's."""
        run, which = (self._child, "update") if self._child else (self._key, "stream")
        if run is not None and power_w:
            named = {names.source_power(source): watts for source, watts in power_w.items()}
            at_ms = int(at.timestamp() * 1000)
            self._spool.put(run, POINTS, points(named, self._windows[which], at_ms))
            self._windows[which] += 1

    def log(
        self, metrics: Mapping[str, float], step: int, note: str, tags: Mapping[str, str]
    ) -> None:
        """Log figures of the stream into the parent run, with tags and the note of this moment."""
        if self._key is not None:
            self._sender.put(self._key, "figures", points(metrics, step, now_ms()))
            told = _texts({**tags, names.NOTE: note})
            self._sender.put(self._key, "tags", told, instead=True)

    def attach(self, paths: Iterable[Path]) -> None:
        """Attach files to the parent run, also after it has ended."""
        if self._key is not None:
            for path in paths:
                self._sender.put(self._key, "file", str(path.resolve()))
            self._sender.finish(self._patience_s())

    def finish(self, note: str, tags: Mapping[str, str], status: str = "FINISHED") -> None:
        """End the parent run, and wait a while for what has not arrived yet.

        That is 5 seconds without anything arriving at a server, 60 for a database that this process
        writes to, and a minute in all.
        """
        if self._key is None:
            return
        if self._child is not None:
            self._sender.put(self._child, "end", {"status": "FAILED", "at_ms": now_ms()})
            self._child = None
        self._sender.put(self._key, "tags", _texts({**tags, names.NOTE: note}), instead=True)
        self._sender.put(self._key, "end", {"status": status, "at_ms": now_ms()})
        self._sender.finish(self._patience_s())

    def state_dict(self) -> dict[str, Any]:
        """Return what another process needs to go on in the same parent run."""
        if self._key is None:
            return dict(self._before)
        windows = self._windows["stream"]
        return {"key": self._key, "params": dict(self._params), "windows": windows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, from :meth:`start` on, in the run that a state tells of."""
        self._before = dict(state)

    def _run(
        self, key: str, name: str, *, parent: str | None, again: bool, tags: Mapping[str, str]
    ) -> None:
        content = {
            "name": _text(name, _LONGEST_NAME),
            "parent": parent,
            "again": again,
            "begun_ms": now_ms(),
            "tags": {names.TAG_STREAM: self._stream, **_texts(tags)},
        }
        self._sender.put(key, "run", content)

    def _input(self, used: DatasetUsed) -> dict[str, Any]:
        told = [self._stream, used.name, used.context, used.samples]
        return {
            "name": _text(used.name, _LONGEST_NAME),
            "digest": hashlib.sha256(canonical(told).encode()).hexdigest()[:8],
            "source": {"stream": self._stream, "experience": _text(used.name, _LONGEST_NAME)},
            "num_rows": used.samples,
            "context": used.context,
        }

    def _model(
        self, child: str, model: Any, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> None:
        key = uuid.uuid4().hex
        folder = self._spool.folder / f"model-{key}"
        try:
            models.save(model, folder, {**metrics, **tags})
        except Exception as error:  # whatever cannot be pickled; training goes on
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
        self._sender.put(child, "model", content)

    def _patience_s(self) -> float:
        return _PATIENCE_S if self.tracking_uri.startswith("http") else _OWN_PATIENCE_S


def _caches() -> Path:
    import pooch  # a fifth of a second

    return Path(pooch.os_cache("greentrain")) / "mlflow"


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _target(tracking_uri: str, experiment: str) -> str:
    """Return where rows go, the same for each process that means the same place."""
    if tracking_uri.startswith(_FILE):
        tracking_uri = _FILE + str(Path(tracking_uri.removeprefix(_FILE)).resolve())
    return f"{tracking_uri} {experiment}"


def _without_password(tracking_uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", tracking_uri)


def _file_name(name: str) -> str:
    """Return a name that is one for a file, and another one for each name.

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
    """Return a text that every store of MLflow takes."""
    text = str(value).replace("\0", "").encode("utf-8", "replace").decode()
    return text[:longest]


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: _text(value) for name, value in tags.items()}
