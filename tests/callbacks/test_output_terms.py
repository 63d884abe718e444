"""LwF and DER: their losses by hand, and a module that is as it was afterwards."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch.nn.functional import cross_entropy, mse_loss

from greentrain.callbacks import DER, MIR, LwF
from greentrain.callbacks.step_layers import loss_of, with_loss, wrap_training_step
from greentrain.errors import ConfigurationError
from greentrain.methods import distillation_loss
from tests.callbacks.test_parameter_anchors import (
    Net,
    Regression,
    TwoOptimizers,
    batches,
    fp16,
    loader,
    trainer,
    weights,
)


class Recorded(Net):
    """Keeps the losses that it is trained on."""

    def __init__(self, **options) -> None:
        super().__init__(**options)
        self.losses: list[float] = []

    def on_before_backward(self, loss):
        self.losses.append(float(loss.detach()))


def first_batch(seed: int):
    return next(iter(loader(seed)))


def test_lwf_weighs_experiences_alike_and_teaches_what_was_learned():
    lwf, module = LwF(Net), Recorded()
    trainer(lwf).fit(module, loader(1))
    teacher = Net()
    teacher.load_state_dict(module.state_dict())
    assert lwf.experiences == 1
    for experience in (2, 3):
        inputs, labels = first_batch(experience)
        with torch.no_grad():
            loss = cross_entropy(module(inputs), labels)
            term = distillation_loss(module(inputs), teacher(inputs), temperature=2.0)
        share = 1 / experience
        module.losses.clear()
        trainer(lwf).fit(module, loader(experience))
        assert module.losses[0] == pytest.approx(float(share * loss + (1 - share) * term))
        teacher.load_state_dict(module.state_dict())
    assert "training_step" not in vars(module)


def test_lwf_keeps_a_regression_by_squares_and_takes_a_fixed_weight():
    lwf, module = LwF(Regression, distance="squared", weight=1e4), Regression()
    trainer(lwf).fit(module, loader(1, regression=True))
    before = weights(module)
    free = Regression()
    free.load_state_dict(module.state_dict())
    tiny = {"lr": 1e-5}
    for each, callbacks in ((module, [lwf]), (free, [])):
        each.options = tiny if callbacks else {"lr": 0.1}
        trainer(*callbacks).fit(each, loader(2, regression=True))
    assert (weights(module) - before).norm() < 0.1 * (weights(free) - before).norm()


def test_der_replays_stored_outputs_and_targets():
    der, module = DER(4, alpha=0.3, beta=0.7, seed=1), Recorded(lr=0.0)
    inputs, labels = first_batch(1)
    trainer(der).fit(module, batches((inputs, labels), first_batch(2)))
    assert der.reservoir.seen == 8
    first, second = module.losses
    with torch.no_grad():
        outputs = module(inputs)
        assert first == pytest.approx(float(cross_entropy(outputs, labels)))
        new_inputs, new_labels = first_batch(2)
        loss = cross_entropy(module(new_inputs), new_labels)
    # With a rate of 0, the stored outputs are those of now, and the capacity is one batch.
    expected = loss + 0.7 * cross_entropy(outputs, labels)
    assert second == pytest.approx(float(expected))
    stored = der.reservoir.stored
    der.reservoir._stored[2] += 1.0
    module.losses.clear()
    kept = [each.clone() for each in stored]
    trainer(der).fit(module, batches(first_batch(3)))
    three, labels_three = first_batch(3)
    with torch.no_grad():
        now = module(kept[0])
        expected = cross_entropy(module(three), labels_three)
        expected += 0.3 * mse_loss(now, kept[2]) + 0.7 * cross_entropy(now, kept[1])
    assert module.losses[0] == pytest.approx(float(expected))


@pytest.mark.parametrize("make", [lambda: DER(8, beta=1.0), lambda: MIR(8, batch_size=2)])
def test_stored_samples_may_be_of_a_regression(make):
    callback, module = make(), Regression()
    trainer(callback).fit(module, loader(1, regression=True))
    assert len(callback.reservoir) == 8


def test_mir_replays_what_a_step_would_harm_most_and_takes_no_step_itself():
    mir, module = MIR(4, candidates=4, batch_size=1), Recorded()
    stored = first_batch(1)
    mir.reservoir.add(*stored)
    inputs, labels = first_batch(2)
    before = copy.deepcopy(module)
    trial = copy.deepcopy(module)
    loss = cross_entropy(trial(inputs), labels)
    loss.backward()
    with torch.no_grad():
        for each in trial.parameters():
            each -= 0.1 * each.grad
        rises = cross_entropy(trial(stored[0]), stored[1], reduction="none")
        own = cross_entropy(before(stored[0]), stored[1], reduction="none")
        worst = int((rises - own).argmax())
        expected = float(loss + own[worst])
    trainer(mir).fit(module, batches((inputs, labels)))
    assert module.losses == [pytest.approx(expected)]
    total = cross_entropy(before(inputs), labels)
    total += cross_entropy(before(stored[0][[worst]]), stored[1][[worst]])
    total.backward()
    with torch.no_grad():  # one step of SGD along both losses
        for each in before.parameters():
            each -= 0.1 * each.grad
    torch.testing.assert_close(weights(module), weights(before))


@pytest.mark.parametrize("given", [{"accumulate_grad_batches": 2}, "fp16"])
def test_terms_are_added_under_accumulation_and_a_scaler(given):
    options = fp16() if given == "fp16" else given
    ours, reference = Net(), Net()
    torch.manual_seed(3)
    lwf = LwF(Net, weight=0.8)
    lwf.load_state_dict({"experiences": 1, "weights": Net(seed=4).state_dict()})

    class Own(Net):
        teacher = (Net(seed=4),)  # not a part of the module

        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                target = self.teacher[0](batch[0])
            loss = super().training_step(batch, batch_idx)
            return loss + 0.8 * distillation_loss(self(batch[0]).float(), target.float())

    reference = Own()
    trainer(lwf, **options).fit(ours, loader(2))
    trainer(**options).fit(reference, loader(2))
    assert not torch.equal(weights(ours), weights(Net()))
    torch.testing.assert_close(weights(ours), weights(reference), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("fails", [False, True])
def test_a_module_has_its_own_training_step_again(fails):
    class Fails(Net):
        def on_train_batch_end(self, *args):
            if fails:
                raise RuntimeError("on purpose")

    module = Fails()
    callbacks = [LwF(Net), DER(4)]
    if fails:
        with pytest.raises(RuntimeError, match="on purpose"):
            trainer(*callbacks).fit(module, loader(1))
    else:
        trainer(*callbacks).fit(module, loader(1))
    assert "training_step" not in vars(module)


def test_layers_may_be_removed_in_any_order():
    module = Net()
    module.training_step = own = lambda batch, index: torch.tensor(1.0)
    removers = [
        wrap_training_step(module, lambda step, *given, by=by: by * step(*given)) for by in (2, 5)
    ]
    assert float(module.training_step(None, 0)) == 10
    removers[0]()
    removers[0]()
    assert float(module.training_step(None, 0)) == 5
    removers[1]()
    assert module.training_step is own


def test_a_step_may_return_a_mapping_or_no_loss():
    output = {"loss": torch.tensor(1.0), "more": 2}
    assert with_loss(output, torch.tensor(3.0)) == {"loss": torch.tensor(3.0), "more": 2}
    with pytest.raises(ConfigurationError, match="without a loss"):
        loss_of({"more": 2})


def test_a_resumed_der_has_its_samples():
    der = DER(6)
    trainer(der).fit(Net(), loader(1))
    restored = DER(6)
    restored.load_state_dict(der.state_dict())
    for mine, other in zip(restored.reservoir.stored, der.reservoir.stored, strict=True):
        assert torch.equal(mine, other)


def test_manual_optimization_and_other_batches_are_refused():
    with pytest.raises(MisconfigurationException, match="manual optimization"):
        trainer(DER(4)).fit(TwoOptimizers(), loader(1))
    with pytest.raises(ConfigurationError, match="only tensors of samples"):
        DER(4).combined_loss(Net(), ({"x": torch.ones(1)}, torch.ones(1)), torch.tensor(0.0))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: LwF(None), "make_model is None"),
        (lambda: LwF(Net, temperature=0), "temperature is 0"),
        (lambda: LwF(Net, weight=-1), "weight is -1"),
        (lambda: LwF(Net, distance="x"), "distance is 'x'"),
        (lambda: LwF(Net, distance="squared", heads=[[0]]), "for a regression"),
        (lambda: DER(0), "reservoir of 0 samples"),
        (lambda: DER(1, alpha=-1), "alpha is -1"),
        (lambda: DER(1, beta="1"), "beta is '1'"),
        (lambda: DER(1, batch_size=0), "batch_size is 0"),
        (lambda: MIR(1, candidates=5, batch_size=6), "candidates is 5"),
        (lambda: MIR(1, batch_size=0), "batch_size 0"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()
