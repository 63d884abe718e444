"""Rows on a real store: each arrives once however often it is sent, and none holds up the rest."""

from __future__ import annotations

import logging
import math
import shutil
import sqlite3
import ssl
from contextlib import closing
from pathlib import Path
from urllib.error import HTTPError, URLError

import pytest
from mlflow.tracking import MlflowClient

from greentrain.ledger.disk_queue import QueuedRow
from greentrain.tracking import MlflowTracker, delivery, names
from greentrain.tracking.delivery import Delivery, answers, half_made
from greentrain.tracking.tracking_queue import POINTS

RUN = {"name": "a run", "parent": None, "again": False, "begun_ms": 1000, "tags": {"t": "1"}}


@pytest.fixture
def delivering(store, tmp_path) -> Delivery:
    return Delivery(store, "an experiment", (tmp_path / "artifacts").as_uri())


@pytest.fixture
def client(store) -> MlflowClient:
    return MlflowClient(tracking_uri=store)


def rows(*kinds_and_contents, run="key") -> list[QueuedRow]:
    return [
        QueuedRow(number=number, run=run, kind=kind, content=content)
        for number, (kind, content) in enumerate(kinds_and_contents)
    ]


def history(client, delivering, name: str) -> list[tuple[float, int, int]]:
    found = client.get_metric_history(delivering.run_id("key"), name)
    return sorted((point.value, point.timestamp, point.step) for point in found)


def test_what_is_sent_twice_arrives_once(delivering, client, tmp_path):
    points = [["loss", 0.1 + step, 1000, step] for step in range(50)] + [["nan", math.nan, 5, 1]]
    inputs = {"name": "n", "digest": "d", "source": {}, "num_rows": 3, "context": "training"}
    (tmp_path / "report.html").write_text("<p>")
    every = [
        rows(("run", RUN)),
        rows(("params", {"epochs": "3"})),
        rows((POINTS, points), ("figures", [["gain", 1e-300, 7, 2]]), ("tags", {"t": "2"})),
        rows(("text", {"path": "decisions/a.json", "text": "{}"})),
        rows(("file", str(tmp_path / "report.html"))),
        rows(("inputs", [inputs])),
        rows(("end", {"status": "FINISHED", "at_ms": 2000})),
    ]
    for group in [*every, *every]:
        delivering.deliver(group)
    (run,) = client.search_runs([client.get_experiment_by_name("an experiment").experiment_id])
    assert history(client, delivering, "loss") == [(0.1 + n, 1000, n) for n in range(50)]
    assert history(client, delivering, "gain") == [(1e-300, 7, 2)]
    assert len(client.get_metric_history(run.info.run_id, "nan")) == 1
    assert run.data.params == {"epochs": "3"}
    assert run.data.tags["t"] == "2"
    assert (run.info.start_time, run.info.end_time, run.info.status) == (1000, 2000, "FINISHED")
    assert [len(each.path) for each in client.list_artifacts(run.info.run_id)] == [9, 11]
    assert len(run.inputs.dataset_inputs) == 1


def test_a_run_that_was_made_twice_is_one(delivering, client):
    """MLflow's client sends a creation again whose answer is lost."""
    experiment = client.create_experiment("an experiment")
    for _ in range(2):
        client.create_run(experiment, tags={names.TAG_KEY: "key"})
    delivering.deliver(rows(("run", RUN)))
    assert len(client.search_runs([experiment])) == 1


def test_another_process_finds_the_run(delivering, client, store):
    delivering.deliver(rows(("run", RUN)))
    other = Delivery(store, "an experiment", None)
    other.deliver(rows((POINTS, [["loss", 1.0, 1, 0]])))
    assert other.run_id("key") == delivering.run_id("key")
    delivering.deliver(rows(("end", {"status": "FINISHED", "at_ms": 2000})))
    other.deliver(rows(("run", {**RUN, "again": True})))
    assert client.get_run(other.run_id("key")).info.status == "RUNNING"


def test_one_name_that_mlflow_refuses_takes_nothing_else_along(delivering, client, caplog):
    delivering.deliver(rows(("run", RUN)))
    points = [["loss", 1.0, 1, 0], ["of what?", 1.0, 1, 0], ["loss", 2.0, 2, 1]]
    for _ in range(2):
        delivering.deliver(rows((POINTS, points), ("tags", {"good": "1", "x" * 300: "2"})))
    assert [value for value, _, _ in history(client, delivering, "loss")] == [1.0, 2.0]
    assert client.get_run(delivering.run_id("key")).data.tags["good"] == "1"
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert sum("points of 'of what?'" in each for each in said) == 1
    assert sum("the tag" in each for each in said) == 1


def test_what_is_for_a_run_that_was_deleted_is_given_up(delivering, client, caplog):
    delivering.deliver(rows(("run", RUN)))
    client.delete_run(delivering.run_id("key"))
    delivering.deliver(rows((POINTS, [["loss", 1.0, 1, 0]])))
    assert "refused points of 'loss', which is discarded" in caplog.text
    delivering.deliver(rows((POINTS, [["loss", 1.0, 1, 0]]), run="never made"))


def test_a_file_that_is_gone_is_given_up(delivering, tmp_path, caplog):
    delivering.deliver(rows(("run", RUN)))
    delivering.deliver(rows(("file", str(tmp_path / "gone.html"))))
    assert "gone.html no longer exists" in caplog.text


def test_whoever_has_no_database_has_to_be_asked_again(tmp_path):
    folder = tmp_path / "file"
    folder.touch()
    nowhere = Delivery(f"sqlite:///{folder}/mlflow.db", "an experiment", None)
    with pytest.raises(Exception, match="database"):
        nowhere.deliver(rows(("run", RUN)))


@pytest.mark.parametrize(
    ("error", "up"),
    [
        (HTTPError("http://x", 401, "who are you", None, None), True),  # type: ignore[arg-type]
        (HTTPError("http://x", 404, "no such page", None, None), True),  # type: ignore[arg-type]
        (HTTPError("http://x", 502, "nobody behind me", None, None), False),  # type: ignore[arg-type]
        (URLError(ssl.SSLError("who signed this")), True),
        (URLError(ConnectionRefusedError()), False),
        (TimeoutError(), False),
        (None, True),
    ],
)
def test_a_server_answers_whatever_it_says(monkeypatch, error, up):
    asked = []

    class Answer:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    def urlopen(address, timeout):
        asked.append(address)
        if error is not None:
            raise error
        return Answer()

    monkeypatch.setattr(delivery, "urlopen", urlopen)
    assert answers("https://me:secret@host:8443/mlflow/") is up
    assert asked == ["https://host:8443/mlflow/health"]


def test_a_database_is_not_asked_whether_it_answers():
    assert answers(f"sqlite:///{Path('mlflow.db')}")
    assert answers("postgresql://nowhere/mlflow")


EARLY = "451aebb31d03"
"""An early revision of MLflow's tables."""


def test_a_database_whose_creation_was_killed_is_named_with_the_fix(
    _made, tmp_path, queue_folder, caplog
):
    """MLflow was killed after a step, and before it noted the step."""
    file = tmp_path / "mlflow stopped.db"
    shutil.copy(_made, file)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute("DROP TABLE trace_info")
        database.execute("UPDATE alembic_version SET version_num = ?", [EARLY])
    uri = f"sqlite:///{file}"
    tracker = MlflowTracker(uri, queue_folder=queue_folder)
    tracker.start("digits", {"epochs": 3}, {})
    tracker.log({"loss": 0.5}, 0, "note", {})
    tracker.finish("note", {}, "FINISHED")
    (said,) = [one for one in caplog.messages if "is half made" in one]
    assert str(file) in said
    assert "remove the file; the next start makes it again" in said
    assert "rows for MLflow" in caplog.messages[-1]
    assert list(queue_folder.iterdir())


def test_a_database_with_runs_or_of_others_is_not_called_half_made(_made, tmp_path, store, client):
    assert half_made(store) == Path(store.removeprefix("sqlite:///"))  # empty: only asked if failed
    client.create_run(client.create_experiment("an experiment"))
    assert half_made(store) is None
    foreign = tmp_path / "foreign.db"
    with closing(sqlite3.connect(foreign)) as database, database:
        database.execute("CREATE TABLE readings (value REAL)")
    (tmp_path / "text.db").write_text("no database at all")
    for uri in (
        *(f"sqlite:///{foreign}", f"sqlite:///{tmp_path / 'text.db'}"),
        *(f"sqlite:///{tmp_path / 'missing.db'}", "http://127.0.0.1:1"),
    ):
        assert half_made(uri) is None
