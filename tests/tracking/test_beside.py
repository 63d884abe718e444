"""Beside a user's own use of MLflow: their logger, autologging, or none of it."""

from __future__ import annotations

import os

import mlflow
import pytest
from mlflow.tracking import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger

from greentrain.tracking import MlflowTracker, names
from tests import prepared
from tests.models import Clock, Tick, constant_meter, experience
from tests.tracking.test_mlflow import ARRIVALS, streaming, told

# Of MLflow about itself, and of Lightning where nothing is validated during a fit.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred"),
    pytest.mark.filterwarnings("ignore:.*hparams"),
]


@pytest.fixture
def own_mlflow(store):
    """MLflow's own functions at a store, as a script of the user's would use them."""
    environment = dict(os.environ)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(store)
    yield store
    mlflow.set_tracking_uri(before)
    for name in set(os.environ) - set(environment):
        del os.environ[name]


def fitted(tmp_path, tracker, **trainer):
    clock = Clock()
    options = {"max_epochs": 4, "accelerator": "cpu", "callbacks": [Tick(clock)], **trainer}
    with streaming(tmp_path, tracker, trainer=options, meter=constant_meter(clock)) as stream:
        return [stream.update(experience(*arrival)) for arrival in ARRIVALS[:2]]


def epochs(client, run) -> int:
    return len(client.get_metric_history(run.info.run_id, names.ENERGY_EPOCH))


def test_beside_a_logger_of_the_users_own(tmp_path, own_mlflow, queue_folder):
    own = MLFlowLogger(experiment_name="mine", tracking_uri=own_mlflow)
    tracker = MlflowTracker(own_mlflow, queue_folder=queue_folder)
    results = fitted(tmp_path, tracker, logger=own)
    client, parent, children = told(own_mlflow, tracker)
    assert len(children) == sum(result.steps > 0 for result in results)
    in_all = sum(epochs(client, run) for run in children)
    assert in_all > 4
    mine = client.get_run(own.run_id)
    assert epochs(client, mine) == in_all
    assert mine.info.experiment_id != parent.info.experiment_id


def test_with_a_logger_of_the_users_own_alone(tmp_path, own_mlflow):
    own = MLFlowLogger(experiment_name="mine", tracking_uri=own_mlflow)
    fitted(tmp_path, None, logger=own)
    client = MlflowClient(tracking_uri=own_mlflow)
    assert epochs(client, client.get_run(own.run_id)) > 4


AUTOLOGGING = """
import sys
from pathlib import Path
import mlflow
from greentrain.tracking import MlflowTracker
from tests.tracking.test_beside import fitted
if __name__ == "__main__":
    store, folder = sys.argv[1], Path(sys.argv[2])
    mlflow.set_tracking_uri(store)
    {call}(log_models=False)
    tracker = MlflowTracker(store, queue_folder=folder / "queue")
    results = fitted(folder, tracker)
    print(tracker.run_id, sum(result.steps > 0 for result in results))
"""


@pytest.mark.parametrize("call", ["mlflow.autolog", "mlflow.pytorch.autolog"])
def test_beside_autologging(tmp_path, store, call):
    """In a process of its own: autologging leaves threads, and patches what others use."""
    script = tmp_path / "script.py"
    script.write_text(AUTOLOGGING.format(call=call))
    done = prepared.python(script, store, tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "greentrain" not in done.stderr  # nothing was warned of
    run_id, updates = done.stdout.split()[-2:]
    client = MlflowClient(tracking_uri=store)
    parent = client.get_run(run_id)
    found = client.search_runs([parent.info.experiment_id])
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == run_id]
    assert parent.info.status == "FINISHED"
    assert len(children) == int(updates)
    assert all(epochs(client, run) >= 1 for run in children)
    theirs = client.search_runs(["0"])  # autologging has the default experiment
    assert len(theirs) >= len(children)
    assert all(run.info.status == "FINISHED" for run in theirs)


def test_inside_a_run_of_the_users_own(tmp_path, own_mlflow, queue_folder):
    tracker = MlflowTracker(own_mlflow, queue_folder=queue_folder)
    with mlflow.start_run() as run:
        fitted(tmp_path, tracker)
        mlflow.log_metric("mine", 1.0)
    client, parent, _ = told(own_mlflow, tracker)
    mine = client.get_run(run.info.run_id)
    assert mine.data.metrics == {"mine": 1.0}
    assert mine.info.status == "FINISHED"
    assert parent.info.run_id != run.info.run_id
