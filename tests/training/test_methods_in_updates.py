"""Continual-learning callbacks in the updates of a stream: each has a fresh Trainer."""

from __future__ import annotations

import copy

import pytest
import torch
from pytorch_lightning import Callback
from torch.utils.data import TensorDataset

from greentrain.callbacks import DER, EWC, GEM, LearnBuffer, LwF, ReplayThroughFeedback
from greentrain.control import Action, Candidate, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.memory import (
    BinPlayBuffer,
    FeedbackNet,
    GenerativeBuffer,
    LogarithmicBuffer,
    MultibandBuffer,
    QuantisedBuffer,
    SampleList,
    size,
)
from greentrain.streams import Experience
from greentrain.training.config import ModeConfig
from greentrain.training.data import StreamData, UpdateData
from greentrain.training.fit import ModelTrainer
from greentrain.training.module_checks import check_learned
from tests.callbacks.test_parameter_anchors import Net


def data(seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (16,), generator=generator)
    return TensorDataset(torch.randn(16, 4, generator=generator), labels)


def test_methods_follow_the_weights_that_an_update_continues_from() -> None:
    anchor, lwf, der, gem = callbacks = [EWC(1.0, samples=8), LwF(Net), DER(8), GEM(4)]
    trainer = ModelTrainer(
        Net,
        options={"max_epochs": 1, "accelerator": "cpu", "callbacks": callbacks},
        loader={"batch_size": 4},
        modes=ModeConfig(),
        seed=0,
    )

    def update(mode: UpdateMode, position: int, weights=None):
        return trainer.train(
            Candidate(action=Action(mode=mode), steps=4),
            UpdateData(new=data(position), stored=SampleList([]), held=data(position)),
            weights=weights,
            position=position,
        )

    first = update(UpdateMode.FULL_RETRAIN, 0)
    weights = copy.deepcopy(first.module.state_dict() if first.last is None else first.last)
    kept = anchor.anchor
    rejected = update(UpdateMode.WARM_START, 1, weights)
    assert not torch.equal(rejected.module.state_dict()["net.0.weight"], weights["net.0.weight"])
    assert anchor.anchor is not kept
    seen = []
    choose = anchor._choose_anchor

    def spy(named):
        choose(named)
        seen.append(anchor.anchor)

    anchor._choose_anchor = spy
    update(UpdateMode.WARM_START, 2, weights)  # from the weights of before: the last was rejected
    update(UpdateMode.FULL_RETRAIN, 3)
    for name, each in kept.importance.items():
        assert torch.equal(seen[0].importance[name], each)
    assert seen[1] is None  # fresh weights have nothing to keep
    assert (lwf.experiences, der.reservoir.seen, len(gem.memories)) == (4, 64, 4)
    assert "training_step" not in vars(rejected.module)


def updated(
    make: type, callback: Callback, stream: StreamData, mode: UpdateMode, *, times: int
) -> tuple[Experience, UpdateData]:
    """Retrain in full, then update in a mode; return the last experience and its data."""
    trainer = ModelTrainer(
        make,
        options={"max_epochs": 1, "accelerator": "cpu", "callbacks": [callback]},
        loader={"batch_size": 4},
        modes=ModeConfig(),
        seed=0,
    )
    weights = make().state_dict()
    for position, each in enumerate((UpdateMode.FULL_RETRAIN, *[mode] * times)):
        inputs, labels = data(position).tensors
        part = TensorDataset(inputs.sigmoid(), labels)
        experience = Experience(id=str(position), train=part, val=part)
        given = stream.gather(experience)
        candidate = Candidate(action=Action(mode=each), steps=4)
        trained = trainer.train(candidate, given, weights=weights, position=position)
        weights = trained.module.state_dict()
        assert stream.store(experience, trained=True)
    return experience, given


@pytest.mark.parametrize(
    "kind",
    [QuantisedBuffer, GenerativeBuffer, BinPlayBuffer, MultibandBuffer, LogarithmicBuffer],
)
def test_a_replay_takes_samples_that_were_compressed_or_generated(kind: type) -> None:
    quantised = kind is QuantisedBuffer
    waiting = (GenerativeBuffer if quantised else kind)(
        10, classes=3, steps=2, batch_size=4, hidden=4, latent=4, learn_at_once=False
    )
    buffer = QuantisedBuffer(10, block=(2, 4)) if quantised else waiting
    learn = LearnBuffer(waiting)
    stream = StreamData(buffer)
    experience, given = updated(Net, learn, stream, UpdateMode.REPLAY, times=2)
    assert given.n_stored == (10 if quantised else 10 + 16)  # 16 of the last one wait
    assert size(stream.everything(experience).new) == len(buffer)
    assert learn.steps == (0 if quantised else 2 * 2)  # within the updates that follow


class Feedback(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net = FeedbackNet((4,), 3, hidden=8, latent=2)


def test_a_model_that_generates_rehearses_within_updates() -> None:
    feedback = ReplayThroughFeedback(Feedback)
    updated(Feedback, feedback, StreamData(None), UpdateMode.FINE_TUNE, times=1)
    assert feedback.experiences == 2


def test_a_generator_needs_the_callback_that_trains_it() -> None:
    buffer, other = (GenerativeBuffer(9, learn_at_once=False) for _ in range(2))
    for callbacks in (LearnBuffer(buffer), [LearnBuffer(other), LearnBuffer(buffer)]):
        check_learned(buffer, {"callbacks": callbacks})
    check_learned(QuantisedBuffer(9), {})
    for options in ({}, {"callbacks": None}, {"callbacks": [LearnBuffer(other)]}):
        with pytest.raises(ConfigurationError, match="that nothing trains"):
            check_learned(buffer, options)
