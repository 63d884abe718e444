"""Streams that decide without labels: the labels come after the decision, or never."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.control import Reason, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.probe import Probe
from greentrain.streams import Experience
from greentrain.training.late_labels import judged
from tests.models import Classifier, blobs, experience
from tests.training.streaming import open_stream, rows


class Scoring(Classifier):
    """The small classifier, whose ``forward`` returns class scores."""

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return self.layer(samples)


def stripped(dataset: TensorDataset) -> TensorDataset:
    """Return the samples with -1 in place of their labels."""
    return TensorDataset(dataset.tensors[0], torch.full((len(dataset),), -1))


def turned(name: str, seed: int) -> Experience:
    """An experience whose samples are turned by an eighth, so that classes mix."""
    turn = torch.tensor([[0.7071, 0.7071], [-0.7071, 0.7071]])
    parts = [blobs(range(4), 60, seed), blobs(range(4), 20, seed + 100)]
    return Experience(
        name, *(TensorDataset(part.tensors[0] @ turn, part.tensors[1]) for part in parts)
    )


def late(of: Experience, labels=None) -> Experience:
    return Experience(of.id, stripped(of.train), stripped(of.val), labels=labels)


def test_labels_arrive_after_the_decision_and_replace_what_was_guessed(tmp_path):
    calls = []
    new = turned("turned", 3)

    def labels():
        calls.append(len(rows(tmp_path, "decision")))
        return new.train, new.val

    with open_stream(tmp_path, Scoring) as stream:
        first = stream.update(experience("first", range(4), 60))
        second = stream.update(late(new, labels))
        learned = stream._runner.state.controller.state_dict()
    assert first.labels == 240
    assert calls == [2]  # once, and the decision was recorded before
    decided = json.loads(rows(tmp_path, "decision")[1]["state"])
    assert "estimated without labels" not in first.reason
    assert "without labels, the drop is estimated by confidence" in second.reason
    assert decided["estimated_by"].startswith("confidence (ATC, DoC)")
    assert decided["n_labels"] == 0 and decided["unseen"] is None
    assert second.update_mode is not UpdateMode.SKIP and second.labels == 240
    # About half of the turned samples are on the wrong side: that was measured, and is learned.
    measured = learned["history"][1]["metric_new"]
    assert measured != decided["metric_new"] and measured < 0.8
    assert len(stream._runner.state.probe.state_dict()["changes"]) == 1


def test_without_any_label_the_advice_is_recorded_and_the_experience_may_come_again(tmp_path):
    new = turned("turned", 3)
    with open_stream(tmp_path, Scoring) as stream:
        stream.update(experience("first", range(4), 60))
        advised = stream.update(late(new))
        trained = stream.update(new)
        known = list(stream._runner.state.data.known)
    assert advised.decision.reason is Reason.NO_LABELS and advised.steps == 0
    assert advised.reason.startswith("No label has arrived, so nothing can be trained; with labels")
    assert trained.steps > 0 and trained.labels == 240
    assert known == ["first", "turned"]
    assert [row["reason"] for row in rows(tmp_path, "decision")][1] == "NO_LABELS"


def test_a_module_without_class_scores_decides_as_without_a_probe_and_says_why(tmp_path):
    new = experience("new", range(4), 60, seed=2)
    with open_stream(tmp_path) as stream:  # its forward does not exist
        stream.update(experience("first", range(4), 60))
        result = stream.update(late(new, lambda: (new.train, new.val)))
    state = json.loads(rows(tmp_path, "decision")[1]["state"])
    assert state["metric_new"] is None
    assert state["estimated_by"].startswith("nothing: forward failed on inputs alone")
    assert "is not estimated, as forward failed" in result.reason


def test_unusable_labels_settle_the_reservation_and_change_nothing(tmp_path):
    with open_stream(tmp_path, Scoring) as stream:
        with pytest.raises(ConfigurationError, match="begin with an experience with labels"):
            stream.update(late(experience("first", range(4))))
        stream.update(experience("first", range(4), 60))
        new = turned("turned", 3)
        with pytest.raises(ConfigurationError, match="'turned' gave a NoneType; it has to return"):
            stream.update(late(new, lambda: None))
        with pytest.raises(ConfigurationError, match="gave samples without any label"):
            stream.update(late(new, lambda: (stripped(new.train), new.val)))
        assert list(stream._runner.state.data.known) == ["first"]
    assert len(rows(tmp_path, "reservation")) == len(rows(tmp_path, "settlement"))
    with pytest.raises(ConfigurationError, match="labels of experience 'x' is a int"):
        Experience("x", [1], [1], labels=3)


def test_a_label_of_minus_one_is_a_class_where_it_is_one_of_two(tmp_path):
    def signs(name: str) -> Experience:
        parts = [blobs((0, 1), 30, seed=4), blobs((0, 1), 20, seed=5)]
        return Experience(name, *(TensorDataset(p.tensors[0], p.tensors[1] * 2 - 1) for p in parts))

    class Signs(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step((batch[0], (batch[1] + 1) // 2), batch_idx)

        def validation_step(self, batch, batch_idx):
            super().validation_step((batch[0], (batch[1] + 1) // 2), batch_idx)

    only = TensorDataset(torch.ones(40, 2), torch.full((40,), -1))
    with open_stream(tmp_path, Signs) as stream:
        stream.update(signs("first"))
        result = stream.update(Experience("second", only, only))
    assert result.decision.reason is not Reason.NO_LABELS
    assert "n_labels" not in json.loads(rows(tmp_path, "decision")[1]["state"])


def test_shadow_mode_refuses_experiences_without_labels(tmp_path):
    words = "in shadow mode and on several ranks"
    with (
        open_stream(tmp_path, Scoring, shadow=True) as stream,
        pytest.raises(ConfigurationError, match=words),
    ):
        stream.update(late(turned("turned", 3), lambda: None))


@pytest.mark.parametrize("kept", [64, 32])
def test_held_out_samples_without_a_label_are_not_judged(tmp_path, kept):
    whole = experience("first", range(4), 60)
    val = whole.val.tensors
    targets = torch.where(torch.arange(64) < kept, val[1], -1)
    with open_stream(tmp_path, Scoring) as stream:
        result = stream.update(Experience("first", whole.train, TensorDataset(val[0], targets)))
        held = stream._runner.state.held_out.past
        (judged,) = stream._runner.evaluator.measure(
            stream.model, [TensorDataset(val[0][:kept], val[1][:kept])]
        )
    assert len(held) == kept and -1 not in [int(label) for _, label in held]
    assert result.metric_after == pytest.approx(judged.value)
    assert judged.value > 0.9


def test_held_out_samples_need_a_label_where_the_training_samples_have_one(tmp_path):
    new = turned("turned", 3)
    words = "no sample of val of experience 'turned' has a label"
    with open_stream(tmp_path, Scoring) as stream:
        stream.update(experience("first", range(4), 60))
        with pytest.raises(ConfigurationError, match=words):
            stream.update(Experience("turned", new.train, stripped(new.val)))
        with pytest.raises(ConfigurationError, match=words):
            stream.update(late(new, lambda: (new.train, stripped(new.val))))
    assert len(rows(tmp_path, "reservation")) == len(rows(tmp_path, "settlement"))


def test_labels_of_another_number_of_samples_are_refused():
    of = Experience("monday", [1, 2, 3], [4], labels=lambda: ([1, 2], [4]))
    with pytest.raises(ConfigurationError, match="gave 2 samples as train, which has 3"):
        of.labelled()


def test_an_experience_whose_labels_cannot_be_fetched_is_not_set_aside(tmp_path):
    new = turned("turned", 3)
    answers = [OSError("down") for _ in range(3)]

    def labels():
        if answers:
            raise answers.pop()
        return new.train, new.val

    with open_stream(tmp_path, Scoring) as stream:
        stream.update(experience("first", range(4), 60))
        for _ in range(3):
            with pytest.raises(OSError, match="down"):
                stream.update(late(new, labels))
        result = stream.update(late(new, labels))
    assert result.labels == 240 and result.steps > 0


def test_a_missing_label_next_to_one_class_is_no_sign_where_others_were_seen():
    probe = Probe(None, HeldOut("seen", seed=0), seed=0)
    parts = [TensorDataset(torch.ones(4, 2), torch.tensor([1, -1, 1, -1])) for _ in range(2)]
    new = Experience("new", *parts)
    assert judged(new, probe, needed=True) is new  # -1 and 1 are all classes so far
    probe.add_experience(Experience("old", *[blobs((2, 3), 2)] * 2), trained=None)
    assert [int(label) for _, label in judged(new, probe, needed=True).val] == [1, 1]
