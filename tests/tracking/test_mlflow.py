"""What reaches MLflow, read back through its own client from a real store."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow.pytorch
import pytest
from mlflow.tracking import MlflowClient

from greentrain import StreamTrainer
from greentrain.control import UPDATE_MODES, Always, Reason, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.texts import markdown
from greentrain.tracking import MlflowTracker, NullTracker, Tracker, names
from greentrain.training import CarbonConfig
from greentrain.training.weights_digest import weights_sha256
from tests.models import Classifier, Clock, experience
from tests.training.fitting import timed
from tests.training.streaming import open_stream

ARRIVALS = (("first", (0, 1)), ("second", (2,)), ("third", (3,)))
SKIPPING = Always(mode=UpdateMode.SKIP)
"""Trains where there is no model yet, and then no more."""


class Fragile(Classifier):
    """Fails on samples of the third class."""

    def training_step(self, batch, batch_idx):
        if 2 in batch[1]:
            raise RuntimeError("no more")
        return super().training_step(batch, batch_idx)


def streaming(folder: Path, tracking, make_model=Classifier, **changes) -> StreamTrainer:
    clock = Clock()
    usual = {"budget": "2000 J", "num_experiences": 3, "tracking_uri": tracking}
    return open_stream(folder, timed(clock, make_model), clock=clock, **{**usual, **changes})


def told(uri: str, tracker: MlflowTracker):
    """The parent run, and its children in their order."""
    client = MlflowClient(tracking_uri=uri)
    found = client.search_runs([client.get_experiment_by_name("greentrain").experiment_id])
    parent = client.get_run(tracker.run_id)
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == tracker.run_id]
    return client, parent, sorted(children, key=lambda run: run.info.start_time)


def artifact(run, path: str):
    return json.loads(Path(run.info.artifact_uri.removeprefix("file://"), path).read_text())


@pytest.fixture(scope="module")
def tracked(tmp_path_factory, module_store):
    folder = tmp_path_factory.mktemp("tracked")
    tracker = MlflowTracker(
        module_store,
        artifact_location=(folder / "artifacts").as_uri(),
        queue_folder=folder / "queue",
    )
    with streaming(folder, tracker, carbon=CarbonConfig(zone="DE")) as stream:
        results = [stream.update(experience(name, classes)) for name, classes in ARRIVALS]
    assert list((folder / "queue").iterdir()) == []
    return *told(module_store, tracker), results, tracker


def test_the_stream_is_one_run_with_curves_of_its_own(tracked):
    client, parent, _, results, _ = tracked
    assert parent.info.status == "FINISHED"
    left = client.get_metric_history(parent.info.run_id, names.BUDGET_LEFT)
    assert [point.step for point in left] == [0, 1, 2]
    assert [point.value for point in left] == pytest.approx([r.left_j / 3600 for r in results])
    overruns = client.get_metric_history(parent.info.run_id, names.BUDGET_OVERRUN)
    assert [point.value for point in overruns] == [r.overrun_j / 3600 for r in results]
    modes = client.get_metric_history(parent.info.run_id, names.UPDATE_MODE_STEP)
    assert modes[0].value == UPDATE_MODES[UpdateMode.FULL_RETRAIN].step
    assert parent.data.params["num_experiences"] == "3"
    assert parent.data.tags[names.TAG_STREAM] == "stream"
    assert parent.data.tags[names.TAG_ZONE] == "DE"
    assert parent.data.tags[names.TAG_LEDGER_HEAD].count(":") == 1
    assert "| first | FULL_RETRAIN |" in parent.data.tags[names.NOTE]


def test_each_update_is_a_child_with_its_epochs_and_its_decision(tracked):
    client, _, children, results, _ = tracked
    updates = [result for result in results if result.steps]
    assert [run.info.run_name for run in children] == [result.experience_id for result in updates]
    assert {run.info.status for run in children} == {"FINISHED"}
    first = children[0]
    epochs = client.get_metric_history(first.info.run_id, "energy/epoch_wh")
    assert len(epochs) == 4
    assert sum(point.value for point in epochs) * 3600 == pytest.approx(updates[0].steps * 1.0)
    assert first.data.tags[names.TAG_UPDATE_MODE] == "FULL_RETRAIN"
    assert first.data.tags[names.TAG_REASON] == Reason.NO_MODEL
    assert first.data.tags[names.TAG_SENTENCE] == updates[0].reason
    assert first.data.metrics[names.METRIC_AFTER] == updates[0].metric_after
    decision = artifact(first, "decision.json")
    assert decision["sentence"] == updates[0].reason
    assert decision["reason"] == "NO_MODEL"


def test_a_child_has_a_description_a_source_and_a_user(tracked):
    _, parent, children, results, _ = tracked
    updates = [result for result in results if result.steps]
    for run, result in zip(children, updates, strict=True):
        note = run.data.tags[names.NOTE]
        assert markdown(result.reason) in note  # whole
        for text in ("at the experience", "for the update alone", "its probe and calibration"):
            assert text in note
        assert run.data.metrics[names.ENERGY_EXPERIENCE] == pytest.approx(result.energy_j / 3600)
        for tag in ("mlflow.user", "mlflow.source.name", "mlflow.source.type"):
            assert run.data.tags[tag] == parent.data.tags[tag] != ""


def test_runs_are_found_by_their_tags(tracked):
    client, parent, children, _, _ = tracked
    found = client.search_runs(
        [parent.info.experiment_id],
        filter_string=(
            f"tags.`{names.TAG_UPDATE_MODE}` = 'FULL_RETRAIN' and "
            f"tags.`{names.TAG_REASON}` = 'NO_MODEL' and "
            f"tags.`{names.TAG_EXPERIENCE}` = 'first' and tags.`{names.TAG_ZONE}` = 'DE'"
        ),
    )
    assert [run.info.run_id for run in found] == [children[0].info.run_id]


def test_the_power_of_each_window_stands_where_mlflow_shows_its_own(tracked):
    client, _, children, _, _ = tracked
    name = names.source_power("constant")
    samples = client.get_metric_history(children[0].info.run_id, name)
    assert [point.value for point in samples] == pytest.approx([100.0] * len(samples))
    assert [point.step for point in samples] == list(range(len(samples)))
    assert len(samples) >= 4  # one for each of the epochs


def test_an_update_says_which_data_it_used(tracked):
    _, _, children, _, _ = tracked
    inputs = children[1].inputs.dataset_inputs
    assert sorted(
        (each.dataset.name, each.tags[0].value, json.loads(each.dataset.profile)["num_rows"])
        for each in inputs
    ) == [("second", "training", 40), ("second", "validation", 16)]


def test_the_grams_of_the_updates_are_part_of_those_of_the_stream(tracked):
    client, parent, children, _, _ = tracked
    updates = [run.data.metrics[names.EMISSIONS_UPDATE] for run in children]
    grams = client.get_metric_history(parent.info.run_id, names.EMISSIONS_CUMULATIVE)
    assert min(updates) > 0
    assert sum(updates) <= grams[-1].value  # probes are in it, too
    assert updates[0] == pytest.approx(
        children[0].data.metrics["energy/update_wh"] * grams[-1].value / sum_wh(client, parent)
    )


def sum_wh(client, parent) -> float:
    return client.get_metric_history(parent.info.run_id, names.ENERGY_CUMULATIVE)[-1].value


def test_files_can_be_attached_after_the_end(tracked, tmp_path):
    client, parent, _, _, tracker = tracked
    path = tmp_path / "report.html"
    path.write_text("<p>fine</p>")
    tracker.attach([path])
    assert "report.html" in [f.path for f in client.list_artifacts(parent.info.run_id)]


def test_a_skip_is_a_point_and_a_decision_of_the_parent(tmp_path, store, queue_folder):
    tracker = MlflowTracker(
        store, artifact_location=(tmp_path / "a").as_uri(), queue_folder=queue_folder
    )
    with streaming(tmp_path, tracker, policy=SKIPPING) as stream:
        stream.update(experience("first", (0, 1)))
        stream.update(experience("../a b", (2,)))
    client, parent, children = told(store, tracker)
    assert [run.info.run_name for run in children] == ["first"]
    modes = client.get_metric_history(parent.info.run_id, names.UPDATE_MODE_STEP)
    assert [point.value for point in modes] == [3, 0]
    (path,) = [each.path for each in client.list_artifacts(parent.info.run_id, "decisions")]
    assert path.startswith("decisions/_a_b-")
    assert artifact(parent, path)["experience"] == "../a b"


def test_a_resumed_stream_goes_on_in_its_run(tmp_path, store, queue_folder):
    where = {"artifact_location": (tmp_path / "a").as_uri(), "queue_folder": queue_folder}
    trackers = [MlflowTracker(store, **where) for _ in range(2)]
    results = []
    for tracker, (name, classes), seed in zip(trackers, ARRIVALS, (0, 7), strict=False):
        given = {"state_dir": tmp_path / "state", "seed": seed, "budget": "1 Wh"}
        with streaming(tmp_path, tracker, **given) as stream:
            results.append(stream.update(experience(name, classes)))
    assert trackers[0].run_id == trackers[1].run_id
    client, parent, children = told(store, trackers[1])
    assert [run.info.run_name for run in children] == ["first", "second"]
    drawn = client.get_metric_history(parent.info.run_id, names.ENERGY_CUMULATIVE)
    assert [point.step for point in drawn] == [0, 1]
    assert drawn[1].value == pytest.approx(sum(each.energy_j for each in results) / 3600)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["seed"] == "0"
    assert parent.data.tags[names.setting("seed")] == "7"
    assert names.setting("monitor") not in parent.data.tags
    runs = [stream for stream in children if names.TAG_LEDGER_RUN in stream.data.tags]
    assert parent.data.tags[names.TAG_LEDGER_RUN] == runs[1].data.tags[names.TAG_LEDGER_RUN]


def test_a_stream_that_nobody_followed_for_a_while_goes_on_in_its_run(
    tmp_path, store, queue_folder
):
    tracker, later = (MlflowTracker(store, queue_folder=queue_folder) for _ in range(2))
    for tracking, (name, classes) in zip((tracker, None, later), ARRIVALS, strict=True):
        with streaming(tmp_path, tracking, state_dir=tmp_path / "state") as stream:
            stream.update(experience(name, classes))
    assert tracker.run_id == later.run_id


def test_an_update_that_fails_says_so(tmp_path, store, queue_folder):
    tracker = MlflowTracker(store, queue_folder=queue_folder)
    given = {"policy": Always(mode=UpdateMode.FULL_RETRAIN), "make_model": Fragile}
    with pytest.raises(RuntimeError, match="no more"), streaming(tmp_path, tracker, **given) as one:
        for name, classes in ARRIVALS:
            one.update(experience(name, classes))
    _, parent, children = told(store, tracker)
    assert parent.info.status == "FAILED"
    assert [(run.info.run_name, run.info.status) for run in children] == [
        ("first", "FINISHED"),
        ("second", "FAILED"),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # of MLflow about itself
def test_models_are_logged_with_what_they_cost_and_the_alias_follows_the_kept(
    tmp_path, store, queue_folder, caplog
):
    tracker = MlflowTracker(
        store,
        artifact_location=(tmp_path / "artifacts").as_uri(),
        queue_folder=queue_folder,
        log_models=True,
        registered_model_name="digits",
        alias="champion",
    )
    with streaming(tmp_path, tracker, carbon=CarbonConfig(zone="DE")) as stream:
        kept = [stream.update(experience(*arrival)) for arrival in ARRIVALS[:2]]
        stream._runner.state.controller.policy = SKIPPING
        skipped = stream.update(experience(*ARRIVALS[2]))
        weights = stream.model.layer.weight.detach().clone()
        sha256 = weights_sha256(stream.model.state_dict())
    assert all(each.kept and each.steps for each in kept)
    assert skipped.steps == 0
    client, _, children = told(store, tracker)
    version = client.get_model_version_by_alias("digits", "champion")
    assert int(version.version) == 2
    assert version.run_id == children[1].info.run_id
    (output,) = children[1].outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert version.source == logged.artifact_location
    for name in (names.ENERGY_UPDATE, names.EMISSIONS_UPDATE):
        assert float(logged.tags[name]) == children[1].data.metrics[name]
    folder = version.source.removeprefix("file://")
    loaded = mlflow.pytorch.load_model(folder)
    assert loaded.layer.weight.equal(weights)
    metadata = mlflow.models.Model.load(folder).metadata
    carriers = (version.tags, logged.tags, metadata, children[1].data.tags)
    assert {each[names.TAG_WEIGHTS] for each in carriers} == {sha256}
    assert metadata[names.ENERGY_UPDATE] == children[1].data.metrics[names.ENERGY_UPDATE]
    assert list(queue_folder.iterdir()) == []


def test_a_server_that_is_not_there_stops_nothing(tmp_path, queue_folder, caplog):
    tracker = MlflowTracker("http://user:secret@127.0.0.1:1", queue_folder=queue_folder)
    with streaming(tmp_path, tracker, num_experiences=1) as stream:
        assert stream.update(experience("first", (0, 1))).steps > 0
    assert tracker.run_id is None
    assert caplog.text.count("it does not respond") == 1
    assert caplog.text.count("the next process") == 1
    assert "secret" not in caplog.text
    (left,) = queue_folder.iterdir()
    assert b"secret" not in left.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"registered_model_name": "m"}, "log_models=True"),
        ({"log_models": True, "alias": "best"}, "registered_model_name"),
    ],
)
def test_what_does_not_go_together_is_refused(arguments, said):
    with pytest.raises(ConfigurationError, match=said):
        MlflowTracker("sqlite:///never-opened.db", **arguments)


def test_both_trackers_keep_the_protocol():
    trackers: list[Tracker] = [NullTracker(), MlflowTracker("sqlite:///never-opened.db")]
    assert all(tracker.begin_update("x", []) is None for tracker in trackers)
    for tracker in trackers:
        tracker.load_state_dict({"key": "k"})
        assert tracker.state_dict() == {"key": "k"}


@pytest.mark.parametrize("sent", [False, True], ids=["before it was sent", "after it was sent"])
def test_a_killed_process_logs_the_outcome_of_a_saved_state_once(store, tmp_path, sent):
    def tracker():
        return MlflowTracker(store, queue_folder=tmp_path / "queue")

    killed, resumed = tracker(), tracker()
    killed.start("stream", {}, {})
    killed.begin_update("first")
    killed.end_update({"a": 1.0}, {}, {})
    killed.log({"b": 2.0}, 0, "note", {})
    resumed.load_state_dict(killed.state_dict())
    if not sent:
        killed._held = None
        killed._put_end = lambda key, status: None
    killed.finish("", {}, "KILLED")
    resumed.start("stream", {}, {})
    resumed.finish("", {})
    client, parent, children = told(store, resumed)
    assert [run.info.status for run in (parent, *children)] == ["FINISHED", "FINISHED"]
    for run, name in ((parent, "b"), (children[0], "a")):
        assert len(client.get_metric_history(run.info.run_id, name)) == 1
