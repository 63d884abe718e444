"""``CompressOnce``: kept if the test of updates accepts it, and else everything is as before."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greentrain.callbacks import BudgetGuard, CompressOnce
from greentrain.errors import ConfigurationError
from greentrain.evaluation.acceptance import NotWorse
from greentrain.methods import prune_channels
from tests.models import Classifier, Clock, Tick, blobs, constant_meter, loader, trainer

EXAMPLE = torch.zeros(1, 2)


class Wide(Classifier):
    def __init__(self, hidden: int = 16) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Sequential(nn.Linear(2, hidden), nn.ReLU(), nn.Linear(hidden, 4))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return self.layer(samples)


def halved(module: nn.Module) -> None:
    prune_channels(module, share=0.5)


def silenced(module: nn.Module) -> None:
    """A change that no training repairs."""
    prune_channels(module, share=0.5)
    for each in module.parameters():
        each.requires_grad = False
        each.zero_()
    module.layer[2].bias.requires_grad = True


VAL = blobs(range(4), 40, seed=9)


def test_a_smaller_module_is_repaired_and_kept():
    clock, model = Clock(), Wide()
    trainer(max_epochs=2).fit(model, loader())
    test = NotWorse(VAL, monitor="val_acc")
    once = CompressOnce(halved, accept=test, example=EXAMPLE)
    guard = BudgetGuard("1 kJ", meter=constant_meter(clock))
    trainer(once, guard, Tick(clock), precision="bf16-mixed").fit(model, loader())
    assert once.accepted
    # 2 * (2 * 16 + 16 * 4) operations, and half of them.
    assert once.operations == (192, 96)
    assert model.layer[0].out_features == 8
    assert test.gain is not None and test.gain > -0.02
    trainer(once, max_epochs=1).fit(model, loader())  # later fits change nothing
    assert model.layer[0].out_features == 8


def test_a_worse_module_is_put_back():
    model = Wide()
    trainer(max_epochs=2).fit(model, loader())
    before = {name: each.clone() for name, each in model.state_dict().items()}

    def change(module):
        with torch.no_grad():
            silenced(module)

    once = CompressOnce(change, accept=NotWorse(VAL, monitor="val_acc"), example=EXAMPLE)
    trainer(once).fit(model, loader())
    assert once.accepted is False
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert all(each.requires_grad for each in model.parameters())


def test_a_fit_that_fails_leaves_the_module_as_it_was():
    class Fails(Wide):
        def on_train_epoch_end(self):
            raise RuntimeError("on purpose")

    model = Fails()
    once = CompressOnce(halved, accept=lambda before, after: True, example=EXAMPLE)
    with pytest.raises(RuntimeError, match="on purpose"):
        trainer(once).fit(model, loader())
    assert model.layer[0].out_features == 16
    assert once.accepted is None


def test_the_test_of_updates_measures_without_and_with_a_trainer():
    class Hooked(Wide):
        def on_validation_epoch_start(self):
            pass

    for kind in (Wide, Hooked):
        trained = kind()
        trainer(max_epochs=2).fit(trained, loader())
        test = NotWorse(VAL, monitor="val_loss", batch_size=32)
        assert test(kind(), trained)
        assert test.gain > 0.1
        assert not test(trained, kind())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"example": None}, "give example="),
        ({"change": lambda net: prune_channels(net, share=2)}, "could not be compressed"),
        ({"example": torch.zeros(1, 3)}, r"could not be compressed \(mat1 and mat2.*is as before"),
    ],
)
def test_a_change_that_fails_is_refused(given, sentence):
    given = {"change": halved, "accept": lambda *both: True, "example": EXAMPLE, **given}
    model = Wide()
    with pytest.raises(ConfigurationError, match=sentence):
        trainer(CompressOnce(**given)).fit(model, loader())
    assert model.layer[0].out_features == 16


def test_several_processes_and_what_is_no_function_are_refused():
    once = CompressOnce(halved, accept=lambda *both: True, example=EXAMPLE)
    with pytest.raises(ConfigurationError, match="2 processes"):
        once.setup(type("Trainer", (), {"world_size": 2}), Wide(), "fit")
    with pytest.raises(ConfigurationError, match="accept is None; it must be a function"):
        CompressOnce(halved, accept=None)
    with pytest.raises(ConfigurationError, match="val has no samples"):
        NotWorse([], monitor="val_acc")
