"""Real MLflow servers: slow, killed in mid-stream and back again, on SQLite and PostgreSQL."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest
from mlflow.tracking import MlflowClient
from pytorch_lightning import Callback

from greentrain.tracking import MlflowTracker, names
from greentrain.tracking.tracking_queue import POINTS, TrackingQueue
from tests.models import Clock, Tick, constant_meter, experience
from tests.tracking.test_mlflow import ARRIVALS, streaming, told

pytestmark = pytest.mark.slow


class At(Callback):
    """Do something at the end of a training epoch of the whole stream, counted from 0."""

    def __init__(self, **actions) -> None:
        self.actions = {int(name[1:]): action for name, action in actions.items()}
        self.epochs = 0

    def on_train_epoch_end(self, *args) -> None:
        action = self.actions.get(self.epochs)
        self.epochs += 1
        if action is not None:
            action()


class Noted(MlflowTracker):
    """Notes every point that it is given, and how long that takes."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.points: Counter[tuple] = Counter()
        self.seconds: list[float] = []
        put = self._queue.put

        def noted(run, kind, content, **how):
            begun = time.perf_counter()
            put(run, kind, content, **how)
            self.seconds.append(time.perf_counter() - begun)
            if kind in (POINTS, "figures"):
                self.points.update((run, *point) for point in content)

        self._queue.put = noted


def arrived(uri: str, tracker: MlflowTracker) -> Counter[tuple]:
    """Every point of the stream's runs as MLflow has it, by our key of the run."""
    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name("greentrain").experiment_id])
    by_key = {run.data.tags[names.TAG_KEY]: run for run in runs}
    assert len(by_key) == len(runs)  # none was made twice
    parent = by_key[tracker.state_dict()["key"]].info.run_id
    found: Counter[tuple] = Counter()
    for key, run in by_key.items():
        if parent not in (run.info.run_id, run.data.tags.get("mlflow.parentRunId")):
            continue
        for name in run.data.metrics:
            found.update(
                (key, name, point.value, point.timestamp, point.step)
                for point in client.get_metric_history(run.info.run_id, name)
            )
    return found


def whole(folder, tracker, **actions):
    clock = Clock()
    trainer = {"max_epochs": 8, "accelerator": "cpu", "callbacks": [Tick(clock), At(**actions)]}
    with streaming(
        folder, tracker, trainer=trainer, meter=constant_meter(clock), budget="1 Wh"
    ) as stream:
        return [stream.update(experience(name, classes)) for name, classes in ARRIVALS]


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # of MLflow about itself
@pytest.mark.parametrize("kind", ["server", "postgres_server"])
def test_everything_arrives_at_a_server(kind, request, tmp_path, queue_folder):
    server = request.getfixturevalue(kind)
    tracker = Noted(
        server.uri,
        queue_folder=queue_folder,
        log_models=True,
        registered_model_name="digits",
        alias="best",
    )
    results = whole(tmp_path, tracker)
    client, parent, children = told(server.uri, tracker)
    assert parent.info.status == "FINISHED"
    assert len(children) == sum(result.steps > 0 for result in results)
    assert arrived(server.uri, tracker) == tracker.points
    assert max(tracker.points.values()) == 1
    assert "decision.json" in [f.path for f in client.list_artifacts(children[0].info.run_id)]
    assert int(client.get_model_version_by_alias("digits", "best").version) == len(children)
    assert all(run.outputs.model_outputs for run in children)
    assert list(queue_folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["server", "postgres_server"])
def test_a_point_that_is_sent_twice_is_one(kind, request, tmp_path, queue_folder):
    server = request.getfixturevalue(kind)
    tracker = Noted(server.uri, queue_folder=queue_folder)
    tracker.start("twice", {}, {})
    tracker.log({"a": 0.1}, 0, "", {})
    tracker.release()
    again = TrackingQueue(tmp_path / "kept", "")
    for run, name, value, at_ms, step in list(tracker.points):
        again.put(run, "figures", [[name, value, at_ms, step]])
    tracker.finish("", {})
    for row in again.after(0, 10):
        tracker._delivery.deliver([row])
    again.close()
    assert arrived(server.uri, tracker) == tracker.points


def test_a_server_that_is_killed_and_comes_back_misses_nothing(server, tmp_path, queue_folder):
    tracker = Noted(server.uri, queue_folder=queue_folder)
    try:
        results = whole(tmp_path, tracker, _2=server.kill, _11=server.start)
    finally:
        server.kill()
        server.start()
    if list(
        queue_folder.iterdir()
    ):  # it was asked at the moment it died: the next process sends the rest
        later = MlflowTracker(server.uri, queue_folder=queue_folder)
        later.start("later", {}, {})
        later.finish("", {})
    assert arrived(server.uri, tracker) == tracker.points
    client, parent, children = told(server.uri, tracker)
    assert {run.info.status for run in (parent, *children)} == {"FINISHED"}
    assert len(children) == sum(result.steps > 0 for result in results)
    for run in children:
        assert "decision.json" in [each.path for each in client.list_artifacts(run.info.run_id)]
    print(f"on the training thread: {sorted(tracker.seconds)[-3:]} s at most")


def test_a_server_that_is_not_there_at_first_gets_all_later(server, tmp_path, queue_folder):
    server.kill()
    tracker = Noted(server.uri, queue_folder=queue_folder)
    try:
        whole(tmp_path, tracker)
    finally:
        server.start()
    assert tracker.run_id is None
    tracker.attach([])
    later = MlflowTracker(server.uri, queue_folder=queue_folder)
    later.start("later", {}, {})
    later.finish("", {})
    assert arrived(server.uri, tracker) == tracker.points


def test_a_server_that_hangs_keeps_nobody_waiting(server, tmp_path, queue_folder, monkeypatch):
    monkeypatch.setattr("greentrain.tracking.delivery._ANSWER_S", 0.1)
    tracker = Noted(server.uri, queue_folder=queue_folder)
    group = os.getpgid(server._process.pid)
    stop = lambda: os.killpg(group, signal.SIGSTOP)  # noqa: E731
    try:
        results = whole(tmp_path, tracker, _2=stop)
    finally:
        os.killpg(group, signal.SIGCONT)
    assert all(result.kept for result in results)
    tracker.attach([])  # whatever it was asked last, it answers now
    later = MlflowTracker(server.uri, queue_folder=queue_folder)
    later.start("later", {}, {})
    later.finish("", {})
    assert arrived(server.uri, tracker) == tracker.points
