"""Deliver queued rows to MLflow; a row that is sent twice arrives once.

MLflow's stores identify a point by run, name, step, time and value, and store it once. Tags,
statuses and artifacts are written again. Runs are found again by the tag ``greentrain.key``.
"""

from __future__ import annotations

import json
import sqlite3
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from functools import cached_property, partial
from pathlib import Path
from ssl import SSLError
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import urlopen

from greentrain.ledger.disk_queue import QueuedRow
from greentrain.texts import get_logger, one_line
from greentrain.tracking import models, names
from greentrain.tracking.sender import LONGEST_REASON, MOST_METRICS, TOGETHER

_log = get_logger(__name__)

_ANSWER_S = 3.0
_REFUSALS = frozenset({400, 404, 409, 413, 422})
"""HTTP statuses of a server that will never accept a request."""
_FILE = "sqlite:///"
_HOLDING = frozenset({"runs", "registered_models"})
"""Tables of MLflow without which its database holds nothing."""

Point = tuple[str, float, int, int]
"""Name, value, milliseconds since 1970, and step of a metric."""


class Refused(Exception):
    """Raised for a row that cannot arrive, no matter how often it is sent."""


class Delivery:
    """Write queued rows to one experiment of an MLflow server or database.

    Args:
        tracking_uri: URI of the server or database. It is not contacted before the first row.
        experiment: Name of the experiment.
        artifact_location: Where the artifacts of a new experiment are stored.
    """

    def __init__(self, tracking_uri: str, experiment: str, artifact_location: str | None) -> None:
        self._tracking_uri = tracking_uri
        self._experiment = experiment
        self._artifact_location = artifact_location
        self._experiment_id: str | None = None
        self._runs: dict[str, str] = {}
        self._warned: set[str] = set()

    @cached_property
    def _client(self) -> Any:
        from mlflow.tracking import MlflowClient

        return MlflowClient(tracking_uri=self._tracking_uri)

    def run_id(self, key: str) -> str | None:
        """Return MLflow's id of the run with this key; ``None`` if it has not arrived yet."""
        return self._runs.get(key)

    def deliver(self, rows: Sequence[QueuedRow]) -> None:
        """Send rows of one run, in one call if they are points and tags.

        A row that MLflow refuses is discarded with a warning, because it would block all others.

        Raises:
            ConnectionError: If the process that created the database was killed before its end.
            Exception: Any error of MLflow's stores after which the rows have to be sent again.
        """
        try:
            self._send(rows)
        except Exception as error:
            if (file := half_made(self._tracking_uri)) is None:
                raise
            raise ConnectionError(
                f"its database {str(file)!r} is half made and holds no run: a process was killed "
                "while MLflow created it. If none is creating it now, remove the file; the next "
                "start makes it again"
            ) from error

    def _send(self, rows: Sequence[QueuedRow]) -> None:
        first = rows[0]
        if first.kind in TOGETHER:
            self._deliver_batch(first.run, rows)
        else:
            senders: dict[str, Callable[[str, Any], None]] = {
                "run": self._begin,
                "params": self._params,
                "text": self._text,
                "file": self._file,
                "files": self._files,
                "inputs": self._inputs,
                "model": self._model,
                "end": self._end,
            }
            self._attempt(first.kind, partial(senders[first.kind], first.run, first.content))

    def _begin(self, key: str, content: Mapping[str, Any]) -> None:
        run_id = self._find(key) or self._create(key, content)
        self._runs[key] = run_id
        if content["again"]:
            self._client.update_run(run_id, status="RUNNING")
        self._log(key, [], content["tags"])

    def _create(self, key: str, content: Mapping[str, Any]) -> str:
        tags = {names.TAG_KEY: key}
        parent = content["parent"]
        if parent is not None:
            tags["mlflow.parentRunId"] = self._id(parent)
        self._client.create_run(
            self._experiment_of_runs(),
            start_time=content["begun_ms"],
            run_name=content["name"],
            tags=tags,
        )
        # MLflow's client sends a request again that got no response: there may be two runs now.
        run_id = self._find(key)
        if run_id is None:
            raise ConnectionError("a new run is not found")
        return run_id

    def _find(self, key: str) -> str | None:
        """Return the first run with this key, and delete others that a repeated request made."""
        found = self._client.search_runs(
            [self._experiment_of_runs()], filter_string=f"tags.`{names.TAG_KEY}` = '{key}'"
        )
        ids = sorted(run.info.run_id for run in found)
        for spare in ids[1:]:
            self._client.delete_run(spare)
        return ids[0] if ids else None

    def _experiment_of_runs(self) -> str:
        from mlflow.exceptions import MlflowException

        if self._experiment_id is None:
            known = self._client.get_experiment_by_name(self._experiment)
            if known is None:
                with suppress(MlflowException):  # another process may have made it
                    self._client.create_experiment(self._experiment, self._artifact_location)
                known = self._client.get_experiment_by_name(self._experiment)
            if known is None:
                raise ConnectionError(f"the experiment {self._experiment!r} cannot be created")
            self._experiment_id = str(known.experiment_id)
        return self._experiment_id

    def _id(self, key: str) -> str:
        if key not in self._runs:
            found = self._find(key)
            if found is None:
                raise Refused("its run no longer exists")
            self._runs[key] = found
        return self._runs[key]

    def _deliver_batch(self, key: str, rows: Sequence[QueuedRow]) -> None:
        points: list[Point] = []
        tags: dict[str, str] = {}
        for row in rows:
            if row.kind == "tags":
                tags |= row.content
            else:
                points += row.content
        together = len(points) <= MOST_METRICS
        if together and self._attempt("", lambda: self._log(key, points, tags), silent=True):
            return
        # One refused name blocks the whole call: send each name by itself.
        for name, value in tags.items():
            self._attempt(f"the tag {name!r}", partial(self._log, key, [], {name: value}))
        for name in sorted({point[0] for point in points}):
            of_name = [point for point in points if point[0] == name]
            for begin in range(0, len(of_name), MOST_METRICS):
                part = of_name[begin : begin + MOST_METRICS]
                self._attempt(f"points of {name!r}", partial(self._log, key, part, {}))

    def _log(self, key: str, points: Sequence[Point], tags: Mapping[str, str]) -> None:
        from mlflow.entities import Metric, RunTag

        self._client.log_batch(
            self._id(key),
            metrics=[Metric(name, value, at_ms, step) for name, value, at_ms, step in points],
            tags=[RunTag(name, value) for name, value in tags.items()],
        )

    def _params(self, key: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        self._client.log_batch(
            self._id(key), params=[Param(name, value) for name, value in params.items()]
        )

    def _text(self, key: str, content: Mapping[str, str]) -> None:
        self._client.log_text(self._id(key), content["text"], content["path"])

    def _file(self, key: str, path: str) -> None:
        if not Path(path).is_file():
            raise Refused(f"{path} no longer exists")
        self._client.log_artifact(self._id(key), path)

    def _files(self, key: str, files: Mapping[str, str]) -> None:
        with TemporaryDirectory() as folder:
            for path, content in files.items():
                place = Path(folder, path)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(b64decode(content))
            self._client.log_artifacts(self._id(key), folder)

    def _inputs(self, key: str, datasets: Sequence[Mapping[str, Any]]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=each["name"],
                    digest=each["digest"],
                    source_type="greentrain",
                    source=json.dumps(each["source"]),
                    profile=json.dumps({"num_rows": each["num_rows"]}),
                ),
                tags=[InputTag("mlflow.data.context", each["context"])],
            )
            for each in datasets
        ]
        self._client.log_inputs(self._id(key), inputs)

    def _model(self, key: str, content: Mapping[str, Any]) -> None:
        if not Path(content["folder"]).is_dir():
            raise Refused(f"{content['folder']} no longer exists")
        models.register(self._client, self._experiment_of_runs(), self._id(key), content)

    def _end(self, key: str, content: Mapping[str, Any]) -> None:
        from mlflow.entities import RunStatus

        # MLflow's `set_terminated` does the same, but prints two lines to standard output.
        self._client._tracking_client.store.update_run_info(
            self._id(key),
            run_status=RunStatus.from_string(content["status"]),
            end_time=content["at_ms"],
            run_name=None,
        )

    def _attempt(self, what: str, action: Callable[[], None], *, silent: bool = False) -> bool:
        """Call an action, and return whether MLflow accepted it; raise errors that may pass."""
        try:
            action()
        except Exception as error:
            if not _refused(error):
                raise
            if not silent and what not in self._warned:
                self._warned.add(what)
                reason = one_line(" ".join(str(error).split()), LONGEST_REASON)
                _log.warning("MLflow refused %s, which is discarded, because %s", what, reason)
            return False
        return True


def answers(tracking_uri: str) -> bool:
    """Return whether a server responds; ``True`` for a database without a server.

    MLflow's own calls retry for minutes before they fail.
    """
    parts = urlsplit(tracking_uri)
    if parts.scheme not in ("http", "https"):
        return True
    host = parts.netloc.rpartition("@")[2]
    address = f"{parts.scheme}://{host}{parts.path.rstrip('/')}/health"
    try:
        with urlopen(address, timeout=_ANSWER_S):
            return True
    except HTTPError as error:  # a proxy responds 502 to 504 for a server that is down
        error.close()
        return error.code < 500
    except URLError as error:  # only MLflow is configured to trust its certificate
        return isinstance(error.reason, SSLError)
    except OSError:
        return False


def half_made(tracking_uri: str) -> Path | None:
    """Return the SQLite file of MLflow that has tables and holds nothing; ``None`` for any other.

    MLflow creates its tables in dozens of steps, and cannot go on after a kill between them. Only
    asked for after MLflow has failed, because a new database holds nothing either.
    """
    file = Path(unquote(tracking_uri.removeprefix(_FILE).partition("?")[0]))
    if not tracking_uri.startswith(_FILE) or not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as database:
            tables = {
                name
                for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type='table'")
            }
            for table in _HOLDING & tables:
                if database.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone():
                    return None
    except sqlite3.Error:  # locked, or no database: MLflow's own error says more
        return None
    return file if tables & {"experiments", "alembic_version"} else None


def _refused(error: Exception) -> bool:
    """Return whether MLflow itself refused a row, and not a proxy in front of it."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException):
        return isinstance(error, Refused)
    of_mlflow = not error.message.startswith("API request to")
    status: int = error.get_http_status_code()  # type: ignore[no-untyped-call]
    return of_mlflow and status in _REFUSALS
