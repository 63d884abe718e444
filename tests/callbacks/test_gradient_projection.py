"""A-GEM and GEM in fits: no step against stored samples, on several ranks too."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy

from greentrain.callbacks import AGEM, GEM
from greentrain.errors import ConfigurationError
from tests.callbacks.forks import FORKS, free_port
from tests.callbacks.test_parameter_anchors import (
    Net,
    Regression,
    batches,
    fp16,
    loader,
    trainer,
    weights,
)

__all__ = ["free_port"]


def opposite(stored):
    """A batch whose labels contradict those of stored samples."""
    inputs, labels = stored
    return inputs, (labels + 1) % 3


def gradient(module, batch) -> torch.Tensor:
    module.zero_grad()
    cross_entropy(module(batch[0]), batch[1]).backward()
    found = torch.cat([each.grad.flatten() for each in module.parameters()])
    module.zero_grad()
    return found


@pytest.mark.parametrize("kind", [AGEM, GEM])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_does_not_go_against_the_stored_samples(kind, fused):
    callback, module = kind(4, batch_size=4), Net(fused=fused)
    trainer(callback).fit(module, batches(next(iter(loader(1)))))
    (memory,) = callback.memories
    assert len(memory) == 4
    old, new = gradient(module, memory.stored), gradient(module, opposite(memory.stored))
    along = torch.dot(new, old)
    assert along < 0
    expected = new - along / old.square().sum() * old
    before = weights(module)
    options = fp16() if fused else {}
    trainer(callback, **options).fit(module, batches(opposite(memory.stored)))
    change = (before - weights(module)) / 0.1
    torch.testing.assert_close(change, expected, atol=5e-3 if fused else 1e-5, rtol=1e-2)
    assert len(callback.memories) == 2


def test_gem_protects_each_experience_and_agem_their_mean():
    found = {}
    for kind in (AGEM, GEM):
        callback, module = kind(8, batch_size=16), Net()
        for seed in (1, 2):
            trainer(callback).fit(module, loader(seed))
        old = [gradient(module, each.stored) for each in callback.memories]
        before = weights(module)
        trainer(callback).fit(module, batches(opposite(callback.memories[0].stored)))
        step = before - weights(module)
        found[kind] = [float(step @ each) for each in old]
    assert min(found[GEM]) > -1e-5
    assert sum(found[AGEM]) > -1e-5


def test_it_works_for_a_regression_and_from_a_checkpoint():
    callback = GEM(4)
    trainer(callback).fit(Regression(), loader(1, regression=True))
    restored = GEM(4)
    restored.load_state_dict(callback.state_dict())
    assert torch.equal(restored.memories[0].stored[1], callback.memories[0].stored[1])


@FORKS
def test_ranks_project_alike(tmp_path):
    class Save(AGEM):
        def on_train_end(self, trainer, pl_module):
            super().on_train_end(trainer, pl_module)
            torch.save(weights(pl_module), tmp_path / f"{trainer.global_rank}.pt")

    callback = Save(4)
    trainer(callback).fit(Net(), loader(1))
    module = Net()
    trainer(callback, strategy="ddp_fork", devices=2).fit(module, loader(2))
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    torch.testing.assert_close(first, second)
    assert not torch.equal(first, weights(Net()))


def test_lbfgs_and_bad_arguments_are_refused():
    with pytest.raises(MisconfigurationException, match="LBFGS computes several"):
        trainer(AGEM(4)).fit(Net(torch.optim.LBFGS), loader(1))
    for make, sentence in (
        (lambda: AGEM(0), "per_experience is 0"),
        (lambda: GEM(1, batch_size=1.5), "batch_size is 1.5"),
        (lambda: GEM(1, margin=-1), "margin is -1"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            make()
