"""Parameter anchors in fits: against autograd, with scalers, accumulation and ranks."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.plugins import MixedPrecision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain.callbacks import EWC, MAS, SI, L2Anchor
from greentrain.errors import ConfigurationError
from greentrain.methods import Anchor, penalty
from tests.callbacks.forks import FORKS, free_port

__all__ = ["free_port"]
KINDS = {"l2": L2Anchor, "ewc": EWC, "online": lambda s: EWC(s, decay=0.5), "si": SI, "mas": MAS}


class Net(LightningModule):
    """A tiny classifier that can add a penalty to its loss by autograd."""

    def __init__(self, make=torch.optim.SGD, seed: int = 0, **options) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Dropout(0.5), nn.Linear(5, 3))
        self.net[2].p = 0.0
        self.make, self.options = make, {"lr": 0.1, **options}
        self.by_autograd: tuple[Anchor, float] | None = None

    def forward(self, inputs):
        return self.net(inputs)

    def training_step(self, batch, batch_idx):
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self(inputs), labels)
        if self.by_autograd is not None:
            loss = loss + penalty(dict(self.named_parameters()), *self.by_autograd)
        return loss

    def configure_optimizers(self):
        return self.make(self.parameters(), **self.options)


class Regression(Net):
    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        return (self(inputs) - targets).square().mean()


def loader(seed: int, *, regression: bool = False) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(24, 4, generator=generator)
    labels = torch.randint(3, (24,), generator=generator)
    targets = torch.randn(24, 3, generator=generator) if regression else labels
    return DataLoader(TensorDataset(inputs, targets), 4)


def batches(*given) -> DataLoader:
    return DataLoader(list(given), batch_size=None)


def trainer(*callbacks, **options) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 1}
    return Trainer(callbacks=list(callbacks), **{**quiet, **options})


def weights(module) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in module.parameters()])


def fp16() -> dict:
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    return {"plugins": [MixedPrecision("16-mixed", "cpu", scaler)]}


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_experience_is_trained_as_with_the_penalty_in_the_loss(kind):
    anchor, module = KINDS[kind](0.8), Net()
    trainer(anchor).fit(module, loader(1))
    assert all(bool((each >= 0).all()) for each in anchor.anchor.importance.values())
    reference = Net()
    reference.load_state_dict(module.state_dict())
    reference.by_autograd = (anchor.anchor, 0.8)
    trainer(anchor).fit(module, loader(2))
    trainer().fit(reference, loader(2))
    torch.testing.assert_close(weights(module), weights(reference))
    free = Net()
    trainer().fit(free, loader(1))
    trainer().fit(free, loader(2))
    assert not torch.allclose(weights(free), weights(module), atol=1e-4)


PRECISIONS = {
    "accumulated": (torch.optim.SGD, {}, lambda: {"accumulate_grad_batches": 3}, 1e-6),
    "clipped": (torch.optim.SGD, {}, lambda: {"gradient_clip_val": 0.05}, 1e-6),
    "scaled": (torch.optim.SGD, {}, fp16, 2e-3),
    "scaled, fused": (torch.optim.SGD, {"fused": True}, fp16, 2e-3),
    "bf16": (torch.optim.SGD, {}, lambda: {"precision": "bf16-mixed"}, 2e-3),
}


@pytest.mark.parametrize("case", PRECISIONS)
def test_precision_accumulation_and_clipping_change_nothing(case):
    make, options, given, tolerance = PRECISIONS[case]
    start = Net()
    anchor = EWC(0.8)
    trainer(anchor).fit(start, loader(1))
    ours, reference = Net(make, **options), Net(make, **options)
    for each in (ours, reference):
        each.load_state_dict(start.state_dict())
    reference.by_autograd = (anchor.anchor, 0.8)
    trainer(anchor, **given()).fit(ours, loader(2))
    trainer(**given()).fit(reference, loader(2))
    assert not torch.equal(weights(ours), weights(start))
    torch.testing.assert_close(weights(ours), weights(reference), atol=tolerance, rtol=tolerance)


class TwoOptimizers(Net):
    """Steps one of its two optimizers only."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        first, _second = self.optimizers()
        first.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        first.step()

    def configure_optimizers(self):
        layers = (self.net[0], self.net[3])
        return [torch.optim.SGD(each.parameters(), lr=0.1) for each in layers]


def test_only_the_stepping_optimizers_parameters_are_pulled():
    anchor, module = L2Anchor(1.0), TwoOptimizers()
    trainer(anchor).fit(module, loader(1))
    for part in anchor.anchor.reference.values():
        part += 1.0  # so that all would be pulled
    module.zero_grad()
    trainer(anchor).fit(module, batches(next(iter(loader(2)))))
    assert module.net[0].weight.grad.abs().min() > 0.5  # pulled by 1
    data = copy.deepcopy(module)
    data.net[3].zero_grad()
    nn.functional.cross_entropy(data(next(iter(loader(2)))[0]), next(iter(loader(2)))[1]).backward()
    assert module.net[3].weight.grad.abs().max() < 0.9  # of the loss alone


@pytest.mark.parametrize("fused", [False, True])
def test_the_path_integral_is_that_of_the_loss_and_survives_an_overflow(fused):
    """With SGD, ``-gradient * change`` is ``lr * gradient ** 2``, whatever the scale."""
    anchor, module = SI(0.0, damping=1e-9), Net(fused=fused)
    start = weights(module)
    inputs, labels = next(iter(loader(1)))
    nn.functional.cross_entropy(module(inputs), labels).backward()
    gradient = torch.cat([each.grad.flatten() for each in module.parameters()])
    module.zero_grad()
    broken = inputs.clone()
    broken[0, 0] = math.inf
    given = {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))]}
    trainer(anchor, **given).fit(module, batches((inputs, labels), (broken, labels)))
    moved = weights(module) - start
    assert bool(torch.isfinite(moved).all())
    torch.testing.assert_close(moved, -0.1 * gradient, atol=1e-3, rtol=1e-2)
    found = torch.cat([each.flatten() for each in anchor.anchor.importance.values()])
    # lr * g ** 2 / (lr * g) ** 2 = 1 / lr, where the gradient is not 0.
    known = gradient.abs() > 0.01
    torch.testing.assert_close(found[known], torch.full_like(found[known], 10.0), rtol=0.05, atol=0)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
@pytest.mark.parametrize("kind", ["ewc", "si"])
def test_a_fit_resumed_in_the_middle_ends_alike(kind, tmp_path):
    def first():
        anchor, module = KINDS[kind](0.8), Net()
        trainer(anchor).fit(module, loader(1))
        return anchor, module

    anchor, whole = first()
    trainer(anchor, max_epochs=3).fit(whole, loader(2))
    stopped, module = first()
    saved = ModelCheckpoint(tmp_path / "saved", save_last=True)
    longer = {"max_epochs": 3, "enable_checkpointing": True}
    half = trainer(stopped, saved, **{**longer, "max_epochs": 2})
    half.fit(module, loader(2))
    resumed, fresh = KINDS[kind](0.8), Net(seed=5)
    again = trainer(resumed, ModelCheckpoint(tmp_path / "again"), **longer)
    again.fit(fresh, loader(2), ckpt_path=saved.last_model_path)
    torch.testing.assert_close(weights(fresh), weights(whole))
    for name, each in anchor.anchor.importance.items():
        torch.testing.assert_close(resumed.anchor.importance[name], each)


def test_fresh_weights_have_no_anchor_and_a_rejected_update_is_forgotten():
    anchor, kept = L2Anchor(1.0), Net()
    trainer(anchor).fit(kept, loader(1))
    first = {name: each.clone() for name, each in anchor.anchor.reference.items()}
    rejected = copy.deepcopy(kept)
    trainer(anchor).fit(rejected, loader(2))
    assert not torch.equal(anchor.anchor.reference["net.0.weight"], first["net.0.weight"])
    anchor._choose_anchor(dict(kept.named_parameters()))  # as at the start of the next fit
    assert all(torch.equal(each, first[name]) for name, each in anchor.anchor.reference.items())
    anchor._choose_anchor(dict(Net(seed=9).named_parameters()))
    assert anchor.anchor is None


@pytest.mark.parametrize(
    ("anchor", "right"),
    [
        (L2Anchor(1.0), True),
        (EWC(1.0, likelihood="gaussian"), True),
        (SI(1.0), True),
        (MAS(1.0), True),
        (EWC(1.0), False),
    ],
)
def test_regressions_work_and_classes_of_one_are_refused(anchor, right):
    if not right:
        with pytest.raises(ConfigurationError, match="likelihood='gaussian'"):
            trainer(anchor).fit(Regression(), loader(1, regression=True))
        return
    trainer(anchor).fit(Regression(), loader(1, regression=True))
    assert sum(float(each.sum()) for each in anchor.anchor.importance.values()) > 0


def test_measuring_leaves_modes_gradients_and_random_numbers_as_they_were():
    module = Net()
    module.net[2].eval()
    anchor = EWC(1.0, samples=8)
    fitted = trainer(anchor)
    fitted.fit(module, loader(1))
    before = torch.random.get_rng_state()
    anchor.consolidate(fitted, module)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (module.net[0].training, module.net[2].training) == (True, False)


def test_lbfgs_deepspeed_and_other_batches_are_refused():
    with pytest.raises(MisconfigurationException, match="LBFGS computes several"):
        trainer(L2Anchor(1.0)).fit(Net(torch.optim.LBFGS), loader(1))

    class DeepSpeedStrategy:
        pass

    class Fake:
        strategy = DeepSpeedStrategy()

    with pytest.raises(MisconfigurationException, match="DeepSpeedStrategy shards them"):
        EWC(1.0).setup(Fake(), Net(), "fit")
    from greentrain.callbacks.batch_parts import pair

    for bad in ({"x": 1}, (1, 2, 3), torch.ones(2)):
        with pytest.raises(ConfigurationError, match="unpack=lambda batch"):
            pair(bad)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: L2Anchor(-1), "strength is -1"),
        (lambda: L2Anchor("1"), "strength is '1'"),
        (lambda: MAS(math.nan), "strength is nan"),
        (lambda: EWC(1, decay=1.5), "decay is 1.5"),
        (lambda: EWC(1, decay=0), "decay is 0"),
        (lambda: EWC(1, samples=0), "samples is 0"),
        (lambda: EWC(1, likelihood="x"), "likelihood is 'x'"),
        (lambda: EWC(1, likelihood="gaussian", outcomes="all"), "more outcomes"),
        (lambda: SI(1, damping=0), "damping is 0"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()


def test_copies_have_the_arguments_and_no_anchor():
    anchor = EWC(2.0, decay=0.5)
    trainer(anchor).fit(Net(), loader(1))
    copied = copy.deepcopy(anchor)
    assert (copied.strength, copied.decay, copied.anchor) == (2.0, 0.5, None)


@FORKS
def test_two_ranks_have_one_anchor_that_of_all_samples(tmp_path):
    class Save(MAS):
        def on_train_end(self, trainer, pl_module):
            super().on_train_end(trainer, pl_module)
            path = tmp_path / f"{trainer.global_rank}.pt"
            torch.save((self.anchor.importance, weights(pl_module)), path)

    forked = trainer(Save(1.0, samples=None), strategy="ddp_fork", devices=2)
    forked.fit(Net(lr=0.0), loader(1))
    alone = MAS(1.0, samples=None)
    trainer(alone).fit(Net(lr=0.0), loader(1))
    seen = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for importance, _ in seen:
        for name, each in alone.anchor.importance.items():
            torch.testing.assert_close(importance[name], each)
    torch.testing.assert_close(seen[0][1], seen[1][1])
