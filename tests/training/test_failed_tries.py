"""An experience whose update fails twice is set aside, and the stream goes on."""

from __future__ import annotations

import json
import logging
import os
import signal

import pytest
from mlflow.tracking import MlflowClient
from torch.utils.data import TensorDataset

from greentrain import Experience, StreamTrainer, UpdateMode
from greentrain.control import Always, Reason
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.evaluation.per_experience import PerExperienceMetrics
from greentrain.memory import FullBuffer
from greentrain.training import EvaluationConfig
from greentrain.training.failed_tries import FailedTries
from tests.models import Classifier, Clock, experience
from tests.training.streaming import open_stream, rows


class Poisoned(Classifier):
    """Fails on a batch that holds the label 9, in training or in validation."""

    error: Exception = RuntimeError("a label of 9 has no class")

    def training_step(self, batch, batch_idx):
        self.refuse(batch)
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.refuse(batch)
        super().validation_step(batch, batch_idx)

    def refuse(self, batch):
        if (batch[1] == 9).any():
            raise self.error


class InTraining(Poisoned):
    """Fails in training only, and not in the probe before it."""

    def validation_step(self, batch, batch_idx):
        samples, labels = batch
        super().validation_step((samples, labels % 4), batch_idx)


def poisoned(name: str, *, val: bool = False) -> Experience:
    good = experience(name, range(4), seed=1)
    samples, labels = (good.val if val else good.train).tensors
    bad = TensorDataset(samples, labels.clone().fill_(9))
    return Experience(name, good.train, bad) if val else Experience(name, bad, good.val)


def streaming(folder, make_model=Poisoned, **changes) -> StreamTrainer:
    replaying = {"policy": Always(mode=UpdateMode.REPLAY), "state_dir": folder / "state"}
    return open_stream(folder, make_model, **{**replaying, **changes})


ARRIVALS = [experience("0", range(4)), poisoned("1"), experience("2", range(4), seed=2)]


@pytest.mark.parametrize(("make_model", "val"), [(InTraining, False), (Poisoned, True)])
def test_a_stream_of_every_night_moves_on(tmp_path, make_model, val, caplog):
    arrivals = [ARRIVALS[0], poisoned("1", val=val), ARRIVALS[2]]
    with streaming(tmp_path, make_model) as stream:
        stream.update(arrivals[0])
    # The first night after it arrived: the error is raised, as ever.
    with (
        streaming(tmp_path, make_model) as stream,
        pytest.raises(RuntimeError, match="a label of 9"),
    ):
        stream.run(arrivals)
    assert json.loads((tmp_path / "state" / "failed_tries.json").read_text()) == {"1": 1}
    assert "failed and is tried again" in caplog.text
    # The second night: it is set aside, and the next one is trained on.
    clock = Clock()
    with streaming(tmp_path, make_model, clock=clock) as stream, caplog.at_level(logging.ERROR):
        aside, after = stream.run(arrivals)
        assert list(stream.known) == ["0", "1", "2"]
        assert stream.model.layer.weight.shape == (4, 2)
    assert aside.update_mode is UpdateMode.SKIP
    assert aside.decision.reason is Reason.SET_ASIDE
    assert aside.reason == (
        "The update on 1 failed twice, so the experience is set aside, and the stream goes on "
        "without its data. The last error was RuntimeError: a label of 9 has no class"
    )
    assert "failed twice" in caplog.text
    assert after.update_mode is UpdateMode.REPLAY
    assert after.kept
    assert after.metric_after > 0.9
    assert aside.energy_j + after.energy_j == pytest.approx(clock.seconds * 100.0)
    assert json.loads((tmp_path / "state" / "failed_tries.json").read_text()) == {}
    # The third night has nothing to do.
    with streaming(tmp_path, make_model) as stream:
        assert stream.run(arrivals) == []
    decided = [(row["experience_id"], row["reason"]) for row in rows(tmp_path, "decision")]
    assert ("1", "SET_ASIDE") in decided
    assert [row["experience_id"] for row in rows(tmp_path, "outcome")] == ["0", "1", "2"]


def test_its_data_are_in_no_later_update(tmp_path):
    with streaming(tmp_path, state_dir=None) as stream:
        stream.update(ARRIVALS[0])
        with pytest.raises(RuntimeError):
            stream.update(ARRIVALS[1])
        stream.update(ARRIVALS[1])  # in one process, too
        data = stream._runner.state.data
        assert data.pending == []
        assert all(int(label) != 9 for _, label in data.buffer.select(lambda origin: True))
        with pytest.raises(ConfigurationError, match="has already had an experience '1'"):
            stream.update(ARRIVALS[1])
        assert stream.update(ARRIVALS[2]).kept


def test_the_first_experience_may_be_set_aside(tmp_path):
    with streaming(tmp_path) as stream:
        with pytest.raises(RuntimeError):
            stream.update(ARRIVALS[1])
        stream.update(ARRIVALS[1])
        assert stream.update(ARRIVALS[0]).update_mode is UpdateMode.FULL_RETRAIN


def test_a_try_that_succeeds_counts_no_failure(tmp_path):
    class Once(Classifier):
        failed = False

        def training_step(self, batch, batch_idx):
            if not Once.failed:
                Once.failed = True
                raise OSError("the disk was away")
            return super().training_step(batch, batch_idx)

    with streaming(tmp_path, Once) as stream:
        with pytest.raises(OSError, match="the disk was away"):
            stream.update(ARRIVALS[0])
        assert stream.update(ARRIVALS[0]).kept
    assert json.loads((tmp_path / "state" / "failed_tries.json").read_text()) == {}


@pytest.mark.parametrize("error", [ConfigurationError("no"), LedgerError("gone"), SystemExit(1)])
def test_an_error_that_is_not_of_the_data_sets_nothing_aside(tmp_path, error):
    class Failing(Poisoned):
        pass

    Failing.error = error
    with streaming(tmp_path, Failing) as stream:
        for _ in range(3):
            with pytest.raises(type(error)):
                stream.update(ARRIVALS[1])
        assert list(stream.known) == []


def test_the_matrix_of_experiences_repeats_its_last_row(tmp_path):
    evaluation = EvaluationConfig(eval_each_experience=True)
    with streaming(tmp_path, evaluation=evaluation) as stream:
        stream.update(ARRIVALS[0])
        with pytest.raises(RuntimeError):
            stream.update(ARRIVALS[1])
        stream.update(ARRIVALS[1])
        stream.update(ARRIVALS[2])
        scores = stream.matrix.compute()
    assert scores.shape == (3, 3)
    assert float(scores[1, 0]) == float(scores[0, 0])


class FullDisk(FullBuffer):
    """Takes no data while its disk is full."""

    full = False

    def add(self, dataset, *, origin):
        if FullDisk.full:
            raise OSError("No space left on device")
        super().add(dataset, origin=origin)


def test_an_experience_that_could_not_be_stored_has_one_row_in_the_matrix(tmp_path):
    each = EvaluationConfig(eval_each_experience=True)
    first, second = experience("0", (0, 1)), experience("1", (2, 3), seed=1)
    with streaming(tmp_path, Classifier, evaluation=each, buffer=FullDisk()) as stream:
        stream.update(first)
        FullDisk.full = True
        assert stream.update(second).kept
        FullDisk.full = False
        # The model has learned the second one, which the stream does not know: its row is the last.
        on_first = float(stream.matrix.compute())
        stream.update(second)
        scores = stream.matrix.compute()
    assert scores.shape == (2, 2)
    assert scores[0].tolist() == [on_first, pytest.approx(1.0, abs=0.05)]  # before the second try


def test_a_withdrawn_experience_leaves_the_scores_of_its_model():
    each = PerExperienceMetrics(more_is_better=True)
    each.add_after(0, [0.9])
    each.add_before(1, 0.2)
    each.add_after(1, [0.7, 0.8])
    each.withdraw(1)
    assert each.matrix.compute().tolist() == [[pytest.approx(0.7)]]
    each.withdraw(0)
    assert not each.matrix.update_called


def test_its_run_in_mlflow_ends_as_failed(tmp_path):
    mlflow_uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with streaming(tmp_path, InTraining, tracking_uri=mlflow_uri) as stream:
        stream.update(ARRIVALS[0])
        with pytest.raises(RuntimeError):
            stream.update(ARRIVALS[1])
        stream.update(ARRIVALS[1])
        stream.update(ARRIVALS[2])
    client = MlflowClient(mlflow_uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    ended = [(run.info.run_name, run.info.status) for run in client.search_runs(experiments)]
    assert sorted(each for each in ended if each[0] in "012") == [
        ("0", "FINISHED"),
        ("1", "FAILED"),
        ("1", "FAILED"),
        ("2", "FINISHED"),
    ]


def test_failed_tries_that_cannot_be_read_or_written_are_named(tmp_path, caplog):
    file = tmp_path / "failed_tries.json"
    file.write_text("[1")
    assert FailedTries(tmp_path).add("1") == 1
    assert "cannot be read" in caplog.text
    assert FailedTries(tmp_path).add("1") == 2
    gone = FailedTries(tmp_path / "missing")
    assert gone.add("1") == 1
    assert "cannot be written" in caplog.text
    assert gone.add("1") == 2  # it still counts in this process


def test_a_long_error_is_cut(tmp_path):
    class Wordy(Poisoned):
        error = ValueError("many words " * 500)

    with streaming(tmp_path, Wordy) as stream:
        with pytest.raises(ValueError, match="many words"):
            stream.update(ARRIVALS[1])
        assert len(stream.update(ARRIVALS[1]).reason) < 500


class Interrupted(Classifier):
    """Presses Ctrl-C in one step of training, or in its validation."""

    press_in = ""

    def training_step(self, batch, batch_idx):
        self.press("training")
        return super().training_step(batch, batch_idx)

    def validation_step(self, batch, batch_idx):
        self.press("validation")
        super().validation_step(batch, batch_idx)

    def press(self, place):
        if place == Interrupted.press_in:
            Interrupted.press_in = ""
            os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture
def ctrl_c():
    """The usual handler: a process that was started in the background ignores the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("place", ["training", "validation"])
def test_ctrl_c_settles_and_the_stream_goes_on_before_the_experience(
    tmp_path, place, caplog, ctrl_c
):
    handler = signal.getsignal(signal.SIGINT)
    clock = Clock()
    with (
        streaming(tmp_path, Interrupted, clock=clock) as stream,
        pytest.raises(KeyboardInterrupt),  # and no SystemExit of Lightning
    ):
        stream.update(ARRIVALS[0])
        Interrupted.press_in = place
        stream.update(ARRIVALS[2])
    assert signal.getsignal(signal.SIGINT) is handler
    (line,) = [each for each in caplog.messages if "interrupted" in each]
    assert line == (
        "the update on experience 2 was interrupted, and what it used is settled; open the stream "
        f"again with its state_dir, {tmp_path / 'state'}, to continue at this experience"
    )
    reserved = {row["reservation_id"] for row in rows(tmp_path, "reservation")}
    settled = {row["reservation_id"]: row["actual_j"] for row in rows(tmp_path, "settlement")}
    assert reserved == settled.keys()
    assert sum(settled.values()) == pytest.approx(clock.seconds * 100.0)
    assert [row["status"] for row in rows(tmp_path, "closing")] == ["failed"]
    with streaming(tmp_path, Interrupted) as stream:
        assert list(stream.known) == ["0"]
        assert stream.update(ARRIVALS[2]).kept  # no failed try is counted
