"""Continual-learning callbacks in the updates of a stream: each has a fresh Trainer."""

from __future__ import annotations

import copy

import torch
from torch.utils.data import TensorDataset

from greentrain.callbacks import DER, EWC, GEM, LwF
from greentrain.control import Action, Candidate, UpdateMode
from greentrain.memory import SampleList
from greentrain.training.config import ModeConfig
from greentrain.training.data import UpdateData
from greentrain.training.fit import ModelTrainer
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
