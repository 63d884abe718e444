"""What a user's own module may do while an update trains it, and what ends an update."""

from __future__ import annotations

import json
import math

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn
from torch.utils.data import TensorDataset

from greentrain.callbacks import BudgetGuard
from greentrain.control import Action, Candidate, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.training.data import UpdateData
from greentrain.training.fit import trainer_options
from greentrain.training.fit_callbacks import CHECK_EVERY, StopOnNan, has_finite_weights
from tests.callbacks.forks import free_port
from tests.models import Classifier, Clock, blobs, constant_meter
from tests.training.fitting import NEW, STORED, VAL, Note, parts, train

__all__ = ["free_port"]  # a fixture

# The user's module, unchanged: each of these learns the four corners, or says why not.


class Compiled(Classifier):
    """Compiled inside: only the layer, as a user would write it."""

    def __init__(self):
        super().__init__()
        self.layer = torch.compile(self.layer, backend="eager")


class OneCycle(Classifier):
    """Asks Lightning how long it will be trained, and steps its schedule with each batch."""

    def configure_optimizers(self):
        self.steps = self.trainer.estimated_stepping_batches
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=self.steps)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


class ByHand(Classifier):
    """Steps two optimizers by hand in each batch."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [
            torch.optim.SGD([self.layer.weight], lr=0.5),
            torch.optim.SGD([self.layer.bias], lr=0.5),
        ]

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        optimizers = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(loss)
        for optimizer in optimizers:
            optimizer.step()


def good(updating, **arguments):
    """Train on all data, then go on by a warm start and by a replay; return the last model."""
    model, note = train(updating, **arguments)
    assert updating.metric(VAL, model) > 0.9
    updating.keep(model, Action(mode=UpdateMode.FULL_RETRAIN))
    for mode in (UpdateMode.WARM_START, UpdateMode.REPLAY):
        model, _ = train(updating, mode=mode, **arguments)
        assert updating.metric(VAL, model) > 0.9
        assert has_finite_weights(model)
    return model, note


@pytest.mark.parametrize(
    "make_model",
    [
        Classifier,
        Compiled,
        lambda: torch.compile(Classifier(), backend="eager"),
        OneCycle,
        ByHand,
    ],
    ids=["plain", "compiled inside", "compiled whole", "scheduler", "by hand"],
)
def test_the_users_module_trains_unchanged_in_every_mode(make_model):
    _, note = good(parts(make_model))
    assert len(note.batches) == 40  # 4 epochs of 80 samples in batches of 8


def test_a_compiled_module_keeps_the_weights_that_it_had():
    updating = parts(lambda: torch.compile(Classifier(), backend="eager"))
    assert isinstance(updating.model, Classifier)
    (found,) = updating.measure([VAL])
    assert len(found.blocks) == 8
    assert list(updating.model.state_dict()) == ["layer.weight", "layer.bias"]


class Precise(Classifier):
    def training_step(self, batch, batch_idx):
        self.seen = self.layer(batch[0]).dtype
        return super().training_step(batch, batch_idx)


def test_mixed_precision_is_the_trainers():
    model, _ = good(parts(Precise, precision="bf16-mixed"))
    assert model.seen is torch.bfloat16
    assert model.layer.weight.dtype is torch.float32


class Steep(Classifier):
    """Notes how large its gradients are when the optimizer gets them."""

    norms: list[float]

    def training_step(self, batch, batch_idx):
        return 1000 * super().training_step(batch, batch_idx)

    def on_before_optimizer_step(self, optimizer):
        self.before = self.layer.weight.grad.norm()

    def optimizer_step(self, *args, **kwargs):
        super().optimizer_step(*args, **kwargs)
        self.norms = [*getattr(self, "norms", []), float(self.layer.weight.grad.norm())]


def test_gradients_are_clipped_as_the_trainer_is_configured():
    model, _ = train(parts(Steep, gradient_clip_val=0.1))
    assert float(model.before) > 1.0
    assert max(model.norms) <= 0.1 + 1e-6


def test_a_collate_function_and_a_sampler_are_the_users():
    def collate(samples):
        return torch.stack([each[0] for each in samples]), torch.stack(
            [each[1] for each in samples]
        )

    def in_order(dataset):
        return range(len(dataset))

    _, note = good(parts(loader={"collate_fn": collate, "sampler": in_order}))
    first = torch.cat([samples for samples, _ in note.batches[:10]])
    assert torch.equal(first, torch.cat([NEW.tensors[0], STORED.tensors[0]]))


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_scheduler_knows_how_many_steps_there_will_be(accumulate):
    model, note = train(parts(OneCycle, accumulate_grad_batches=accumulate), steps=25)
    # Epochs of 10 batches: 25 steps; gathered by four, 4 + 4 + 2, the same again and 4 + 1.
    assert model.steps == note.trainer.global_step == {1: 25, 4: 8}[accumulate]


def test_several_optimizers_by_hand_train_on_all_batches_and_finish_the_schedule():
    guard = BudgetGuard("1 kWh", meter=constant_meter(Clock()), anneal=True)
    _, note = train(parts(ByHand), callbacks=[guard], steps=25)
    assert len(note.batches) == guard.steps == 25
    assert note.trainer.global_step == 50  # Lightning counts each optimizer


class NoOptimizer(Classifier):
    def configure_optimizers(self):
        return None


class EmptyOptimizers(Classifier):
    def configure_optimizers(self):
        return []


@pytest.mark.parametrize("make_model", [NoOptimizer, EmptyOptimizers])
def test_a_module_without_optimizer_is_refused_before_the_first_batch(make_model):
    note = Note()
    with pytest.raises(ConfigurationError, match=r"configure_optimizers of \w+ returned no opt"):
        train(parts(make_model), callbacks=[note])
    assert note.batches == []


def test_make_model_has_to_return_a_module():
    with pytest.raises(ConfigurationError, match="returned a Linear"):
        train(parts(lambda: nn.Linear(2, 4)))
    with pytest.raises(ConfigurationError, match="returned a OptimizedModule"):
        train(parts(lambda: torch.compile(nn.Linear(2, 4), backend="eager")))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_epoch": 3}, "max_epoch"),
        ({"overfit_batches": 2}, "trainer has overfit_batches"),
        ({"min_epochs": 2}, "trainer has min_epochs"),
        ({"use_distributed_sampler": False}, "trainer has use_distributed_sampler"),
    ],
)
def test_wrong_options_of_the_trainer_are_named_before_anything_starts(options, named):
    with pytest.raises(ConfigurationError, match=named):
        parts(**trainer_options(options))


def test_an_update_without_a_full_batch_is_an_error_rather_than_no_training():
    updating = parts(loader={"batch_size": 100, "drop_last": True})
    with pytest.raises(ConfigurationError, match="80 samples make no full batch"):
        train(updating)
    tiny = UpdateData(new=blobs((0,), 3), stored=STORED, held=NEW)
    updating = parts(loader={"drop_last": True})
    updating.keep(updating.model, Action(mode=UpdateMode.FULL_RETRAIN))
    with pytest.raises(ConfigurationError, match="no full batch"):
        train(updating, mode=UpdateMode.REPLAY, data=tiny)


# What ends an update early.


class Sours(Classifier):
    """Its loss is no number from a batch on."""

    after = 10

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        return loss * (math.nan if self.trainer.global_step >= self.after else 1.0)


class SoursByHand(ByHand):
    """The same without a loss that Lightning knows of."""

    def on_train_batch_end(self, outputs, batch, batch_idx):
        if self.trainer.global_step == 10:
            nn.init.constant_(self.layer.bias, math.inf)


@pytest.mark.parametrize("make_model", [Sours, SoursByHand])
def test_a_loss_that_is_no_number_ends_the_update(make_model):
    health = StopOnNan()
    model, note = train(parts(make_model), callbacks=[health], steps=200)
    assert health.stopped
    assert len(note.batches) == CHECK_EVERY
    assert not has_finite_weights(model)


def test_one_that_ends_before_it_is_looked_at_is_found_by_its_weights():
    health = StopOnNan()
    model, note = train(parts(Sours), callbacks=[health], steps=CHECK_EVERY - 1)
    assert not health.stopped
    assert len(note.batches) == CHECK_EVERY - 1
    assert not has_finite_weights(model)


def test_an_update_in_good_health_is_not_stopped():
    health = StopOnNan()
    model, note = train(parts(), callbacks=[health], steps=3 * CHECK_EVERY)
    assert not health.stopped
    assert len(note.batches) == 3 * CHECK_EVERY
    assert has_finite_weights(model)


def test_an_infinity_in_a_buffer_is_no_disease():
    model = Classifier()
    model.register_buffer("mask", torch.full((2,), -math.inf))
    assert has_finite_weights(model)
    model.layer.weight.data[0, 0] = -math.inf
    assert not has_finite_weights(model)


# What a warm start takes over.


class Normalised(Classifier):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 4))


def test_a_warm_start_shrinks_parameters_and_keeps_running_statistics():
    updating = parts(Normalised, modes={"shrink": 0.5, "perturb": 0.25})
    with torch.no_grad():
        updating.model.layer[1].weight.fill_(2.0)
        updating.model.layer[0].running_mean.fill_(3.0)
    torch.manual_seed(5)
    fresh = Normalised()
    weight = fresh.layer[1].weight.detach().clone()
    updating.trainer._load(fresh, updating.current.weights, UpdateMode.WARM_START)
    assert torch.allclose(fresh.layer[1].weight, 0.5 * 2.0 + 0.25 * weight)
    assert fresh.layer[0].running_mean.tolist() == [3.0, 3.0]


# A saved model.


def test_a_model_continues_from_saved_weights():
    first, second = parts(), parts()
    model, _ = train(first)
    first.keep(model, Action(mode=UpdateMode.WARM_START))
    second.current.load_state_dict(first.current.state_dict())
    assert second.current.trained and second.current.warm_starts == 1
    assert second.metric(VAL) == first.metric(VAL)
    with pytest.raises(ConfigurationError, match="do not fit"):
        parts(Normalised).current.load_state_dict(first.current.state_dict())


# Ranks.


class Write(Callback):
    """Write what a rank has seen where the parent process finds it."""

    def __init__(self, folder):
        self.folder = folder
        self.seen = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.seen.append([trainer.current_epoch, batch[0][:, 0].tolist()])

    def on_train_end(self, trainer, module):
        path = self.folder / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps({"seen": self.seen, "steps": trainer.global_step}))


def numbered(start, stop):
    """Samples whose first feature is their number."""
    number = torch.arange(float(start), float(stop))
    return TensorDataset(torch.stack([number, number], 1) / 100, number.long() % 4)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of forking a process with threads
@pytest.mark.parametrize("mode", [UpdateMode.FULL_RETRAIN, UpdateMode.REPLAY])
def test_two_ranks_share_an_update(tmp_path, mode):
    batch = UpdateData(new=numbered(0, 40), stored=numbered(100, 160), held=numbered(0, 40))
    updating = parts(
        OneCycle,
        strategy="ddp_fork",
        devices=2,
        default_root_dir=tmp_path,
        loader={"batch_size": 4},
        max_epochs=10,
    )
    updating.keep(updating.model, Action(mode=UpdateMode.FULL_RETRAIN))
    before = updating.model.layer.weight.detach().clone()
    action = Action(mode=mode)
    steps = updating.plan.steps(action, n_new=40, n_stored=60, n_held=40)
    # Two ranks take 8 samples a step: 10 epochs of 5 batches; 2 epochs of 10, of which half is new.
    assert steps == {UpdateMode.FULL_RETRAIN: 50, UpdateMode.REPLAY: 20}[mode]
    model = updating.train(
        Candidate(action=action, steps=steps),
        batch,
        position=0,
        callbacks=[Write(tmp_path), StopOnNan()],
    )
    assert not torch.equal(model.layer.weight, before)  # the parent has what the ranks trained
    told = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [rank["steps"] for rank in told] == [steps, steps]
    epochs = {epoch for epoch, _ in told[0]["seen"]}
    assert len(epochs) == {UpdateMode.FULL_RETRAIN: 10, UpdateMode.REPLAY: 2}[mode]
    for each in epochs:
        shares = [
            [round(100 * x) for epoch, batch in rank["seen"] if epoch == each for x in batch]
            for rank in told
        ]
        new = [[number for number in share if number < 100] for share in shares]
        assert sorted(new[0] + new[1]) == list(range(40))
        stored = [[number for number in share if number >= 100] for share in shares]
        if mode is UpdateMode.REPLAY:
            assert [len(share) for share in stored] == [20, 20]
            assert stored[0] != stored[1]
        else:
            assert stored == [[], []]
