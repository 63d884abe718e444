"""What reaches MLflow, read back through its own client from a real store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from greentrain import StreamTrainer
from greentrain.tracking import MlflowTracker, NullTracker, Tracker, names
from greentrain.tracking.lightning_logger import BatchedMlflowLogger
from tests.models import Classifier, Clock, Tick, constant_meter, experience


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tracked")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    clock = Clock()
    tracker = MlflowTracker(uri, artifact_location=(folder / "artifacts").as_uri())
    with StreamTrainer(
        Classifier,
        budget="2000 J",
        horizon=3,
        monitor="val_acc",
        ledger=f"sqlite:///{folder / 'greentrain.db'}",
        trainer={"max_epochs": 4, "accelerator": "cpu", "callbacks": [Tick(clock)]},
        loader={"batch_size": 8},
        meter=constant_meter(clock),
        tracking=tracker,
    ) as streaming:
        results = [
            streaming.update(experience(name, classes))
            for name, classes in (("first", (0, 1)), ("second", (2,)), ("third", (3,)))
        ]
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("greentrain")
    runs = client.search_runs([experiment.experiment_id])
    parent = client.get_run(tracker.run_id)
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == tracker.run_id]
    return client, parent, sorted(children, key=lambda run: run.info.start_time), results, tracker


def test_the_stream_is_one_run_with_curves_of_its_own(tracked):
    client, parent, _, results, _ = tracked
    assert parent.info.status == "FINISHED"
    left = client.get_metric_history(parent.info.run_id, names.BUDGET_LEFT)
    assert [point.step for point in left] == [0, 1, 2]
    assert [point.value for point in left] == pytest.approx([r.left_j / 3600 for r in results])
    modes = client.get_metric_history(parent.info.run_id, names.UPDATE_MODE_STEP)
    assert modes[0].value == names.UPDATE_MODE_STEPS["FULL_RETRAIN"]
    assert parent.data.params["horizon"] == "3"
    assert parent.data.tags[names.TAG_STREAM] == "stream"
    assert parent.data.tags[names.TAG_LEDGER_HEAD].count(":") == 1
    assert "| first | FULL_RETRAIN |" in parent.data.tags[names.NOTE]


def test_each_update_is_a_child_with_its_epochs_and_its_decision(tracked):
    client, _, children, results, _ = tracked
    updates = [result for result in results if result.steps]
    assert [run.info.run_name for run in children] == [result.experience_id for result in updates]
    first = children[0]
    epochs = client.get_metric_history(first.info.run_id, "energy/epoch_wh")
    assert len(epochs) == 4
    assert sum(point.value for point in epochs) * 3600 == pytest.approx(updates[0].steps * 1.0)
    assert first.data.tags[names.TAG_UPDATE_MODE] == "FULL_RETRAIN"
    assert first.data.tags[names.TAG_REASON] == updates[0].reason
    assert first.data.metrics[names.METRIC_AFTER] == updates[0].metric_after
    decision = Path(first.info.artifact_uri.removeprefix("file://"), "decision.json")
    assert json.loads(decision.read_text())["sentence"] == updates[0].reason


def test_files_can_be_attached_after_the_end(tracked, tmp_path):
    client, parent, _, _, tracker = tracked
    path = tmp_path / "report.html"
    path.write_text("<p>fine</p>")
    tracker.attach([path])
    assert "report.html" in [f.path for f in client.list_artifacts(parent.info.run_id)]


def test_a_server_that_is_not_there_stops_nothing(tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    clock = Clock()
    with StreamTrainer(
        Classifier,
        budget="2000 J",
        horizon=1,
        monitor="val_acc",
        ledger=f"sqlite:///{tmp_path / 'greentrain.db'}",
        trainer={"max_epochs": 2, "accelerator": "cpu", "callbacks": [Tick(clock)]},
        meter=constant_meter(clock),
        tracking="http://127.0.0.1:1",
    ) as streaming:
        assert streaming.update(experience("first", (0, 1))).steps > 0
    assert caplog.text.count("is left alone") == 1


def test_the_logger_sends_few_batches():
    seconds, sent = [0.0], []
    logger = BatchedMlflowLogger(
        lambda run, metrics: sent.append((run, len(metrics))), "run", clock=lambda: seconds[0]
    )
    for step in range(100):
        logger.log_metrics({"loss": 0.1, "energy/epoch_wh": 0.2}, step)
    assert sent == []
    seconds[0] = 11.0
    logger.log_metrics({"loss": 0.1}, 100)
    assert sent == [("run", 201)]
    for step in range(500):
        logger.log_metrics({"loss": 0.1, "energy/epoch_wh": 0.2}, step)
    logger.finalize("success")
    assert sum(count for _, count in sent) < 1201
    logger.save()
    assert sum(count for _, count in sent) == 1201
    assert max(count for _, count in sent) <= 1000


def test_both_trackers_keep_the_protocol():
    trackers: list[Tracker] = [NullTracker(), MlflowTracker("sqlite:///never-opened.db")]
    assert all(tracker.begin_update("x") is None for tracker in trackers)
