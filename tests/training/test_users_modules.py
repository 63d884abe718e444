"""Modules as users write them: late layers, complex weights, several optimizer steps a batch."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

import greentrain
from greentrain import StreamTrainer, UpdateMode
from greentrain.control import Action, Always
from greentrain.errors import ConfigurationError
from greentrain.evaluation.evaluator import Evaluator
from greentrain.memory import SampleList
from greentrain.training.data import UpdateData
from greentrain.training.fit import shrink_and_perturb
from greentrain.training.fit_callbacks import has_finite_weights
from greentrain.training.stream_state import weight_norm
from tests.models import Classifier, Clock, blobs, experience
from tests.training.fitting import VAL, parts, train
from tests.training.streaming import open_stream


def streaming(folder, make_model, **changes) -> StreamTrainer:
    replaying = {"policy": Always(mode=UpdateMode.REPLAY)}
    return open_stream(folder, make_model, **{**replaying, **changes})


# --- layers that are made after __init__ ----------------------------------------------------------


class InSetup(Classifier):
    """Makes its layer anew at each ``setup``, whatever it is for."""

    def __init__(self):
        super().__init__()
        del self.layer

    def setup(self, stage=None):
        self.layer = nn.Linear(2, 4)


class InSetupOnce(InSetup):
    def setup(self, stage=None):
        if not hasattr(self, "layer"):
            super().setup(stage)


class InConfigureModel(Classifier):
    def __init__(self):
        super().__init__()
        self.layer = None

    def configure_model(self):
        if self.layer is None:
            self.layer = nn.Linear(2, 4)


LATE = [InSetup, InSetupOnce, InConfigureModel]


@pytest.mark.parametrize("make_model", LATE)
def test_late_layers_go_on_as_those_of_init(tmp_path, make_model):
    results, expected = [], []
    for number in range(3):  # each in a process of its own, as it were
        for name, make, found in (("late", make_model, results), ("init", Classifier, expected)):
            (tmp_path / name).mkdir(exist_ok=True)
            with streaming(tmp_path / name, make, state_dir=tmp_path / name / "state") as stream:
                assert set(stream.model.state_dict()) == {"layer.weight", "layer.bias"}
                found.append(stream.update(experience(f"{number}", range(4), seed=number)))
    assert results[0].metric_after > 0.9  # of the weights that were trained, not of fresh ones
    assert [each.metric_after for each in results] == [each.metric_after for each in expected]
    assert all(result.kept for result in results)


@pytest.mark.parametrize("make_model", LATE)
def test_an_update_continues_from_late_weights(make_model):
    updating = parts(make_model)
    model, _ = train(updating, steps=20)
    assert updating.metric(VAL, model) > 0.9
    (found,) = updating.measure([VAL], model)
    assert found.value == updating.metric(VAL, model)
    updating.keep(model, Action(mode=UpdateMode.FULL_RETRAIN))

    class Frozen(make_model):
        def configure_optimizers(self):
            return SGD(self.parameters(), lr=0.0)

    updating.trainer._make_successor = Frozen
    again, _ = train(updating, mode=UpdateMode.WARM_START, steps=2)
    expected = updating.current.weights
    assert all(torch.equal(each, expected[name]) for name, each in again.state_dict().items())


@pytest.mark.parametrize("make_model", LATE)
def test_late_weights_are_shrunk_and_perturbed_once(make_model):
    class Frozen(make_model):
        def configure_optimizers(self):
            return SGD(self.parameters(), lr=0.0)

    updating = parts(Frozen, modes={"shrink": 0.5, "weight_averaging": 0})
    before = {name: each.clone() for name, each in updating.current.weights.items()}
    model, _ = train(updating, mode=UpdateMode.WARM_START, steps=2)
    for name, each in model.state_dict().items():
        assert torch.equal(each, 0.5 * before[name])


class NeedsData(Classifier):
    """Cannot make its layer without the data of a fit."""

    def __init__(self):
        super().__init__()
        del self.layer

    def setup(self, stage=None):
        if stage == "fit":
            self.layer = nn.Linear(self.trainer.datamodule.features, 4)


def test_a_setup_that_needs_more_than_a_trainer_is_left_to_the_fit():
    assert not list(parts(NeedsData).model.parameters())


# --- complex weights ------------------------------------------------------------------------------


class Complex(Classifier):
    def __init__(self):
        super().__init__()
        self.phase = nn.Parameter(torch.tensor([3 + 4j]))

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx) + 0.01 * self.phase.abs().sum()


def test_the_norm_of_a_complex_weight_is_its_absolute_value():
    module = nn.Module()
    module.weight = nn.Parameter(torch.tensor([3 + 4j]))
    assert weight_norm(module) == 5.0
    module.real = nn.Parameter(torch.tensor([12.0]))
    assert weight_norm(module) == 13.0
    module.bad = nn.Parameter(torch.tensor([complex(0, float("inf"))]))
    assert not has_finite_weights(module)


def test_complex_weights_are_averaged():
    model, _ = train(parts(Complex), steps=20)
    updating = parts(Complex, modes={"weight_averaging": 0})
    unaveraged, _ = train(updating, steps=20)
    # Its absolute value falls by 0.005 a step, and the mean of the last steps lags behind.
    assert 4.85 < float(unaveraged.phase.detach().abs()) < 4.95
    assert float(model.phase.detach().abs()) > float(unaveraged.phase.detach().abs()) + 0.005


def test_complex_weights_are_shrunk_and_perturbed():
    weight = torch.tensor([3 + 4j])
    shrink_and_perturb([weight], [torch.tensor([10j])], shrink=0.5, perturb=0.1)
    assert weight.item() == pytest.approx(1.5 + 3j)


def test_a_stream_of_complex_weights_goes_on(tmp_path):
    with streaming(tmp_path, Complex) as stream:
        results = [stream.update(experience(f"{n}", range(4), seed=n)) for n in range(2)]
    assert all(result.kept for result in results)


class Unnormed(Classifier):
    """Has a weight of a kind that has no norm."""

    def __init__(self):
        super().__init__()
        self.other = nn.Parameter(torch.ones(2).to(torch.float8_e4m3fn), requires_grad=False)


def test_whole_numbers_are_no_part_of_the_norm():
    module = nn.Module()
    module.quantised = nn.Parameter(torch.tensor([3, 4]), requires_grad=False)
    assert weight_norm(module) == 0.0
    module.weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    assert weight_norm(module) == 5.0


def test_weights_that_cannot_be_compared_are_refused_before_anything_is_paid(tmp_path):
    with pytest.raises(ConfigurationError, match=r"of Unnormed \(torch.float32, torch.float8"):
        streaming(tmp_path, Unnormed)
    assert not (tmp_path / "greentrain.db").exists()


# --- manual optimization --------------------------------------------------------------------------


class Adversarial(Classifier):
    """Steps its critic five times in each batch, and its other optimizer once."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.critic = nn.Linear(2, 1)

    def configure_optimizers(self):
        return [SGD(self.layer.parameters(), lr=0.5), SGD(self.critic.parameters(), lr=0.1)]

    def training_step(self, batch, batch_idx):
        generator, critic = self.optimizers()
        for _ in range(5):
            critic.zero_grad()
            self.manual_backward(self.critic(batch[0]).square().mean())
            critic.step()
        generator.zero_grad()
        self.manual_backward(super().training_step(batch, batch_idx))
        generator.step()


class NoStep(Adversarial):
    def training_step(self, batch, batch_idx):
        return None


@pytest.mark.parametrize("make_model", [Adversarial, NoStep])
@pytest.mark.parametrize("steps", [30, 40, 7])  # three passes of ten batches, four, and a part
def test_batches_are_counted_whatever_they_step(make_model, steps):
    _, note = train(parts(make_model), steps=steps)
    assert len(note.batches) == steps


# --- metrics that a fit does not have -------------------------------------------------------------


def with_plateau(monitor, *, form=0, **options):
    class Plateau(Classifier):
        def configure_optimizers(self):
            optimizer = SGD(self.parameters(), lr=0.5)
            schedule = ReduceLROnPlateau(optimizer)
            if form == 0:
                schedule = {"scheduler": schedule, "monitor": monitor, **options}
                return {"optimizer": optimizer, "lr_scheduler": schedule}
            if form == 1:
                return {"optimizer": optimizer, "lr_scheduler": schedule, "monitor": monitor}
            return [optimizer], [{"scheduler": schedule, "monitor": monitor, **options}]

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.log("train_loss", loss)
            return loss

    return Plateau


@pytest.mark.parametrize("form", [0, 1, 2])
@pytest.mark.parametrize("monitor", ["val_loss", "val_acc", "valid/loss"])
def test_a_plateau_of_validation_is_refused_at_construction(tmp_path, monitor, form):
    message = rf"returns a ReduceLROnPlateau of '{monitor}', and the fits of an update run no valid"
    with pytest.raises(ConfigurationError, match=message):
        streaming(tmp_path, with_plateau(monitor, form=form))
    assert not (tmp_path / "greentrain.db").exists()


def test_a_plateau_of_any_validation_metric_is_refused_before_the_first_fit(tmp_path):
    class Quality(with_plateau("quality")):
        def validation_step(self, batch, batch_idx):
            super().validation_step(batch, batch_idx)
            self.log("quality", 1.0)

    clock = Clock()
    with (
        streaming(tmp_path, Quality, clock=clock) as stream,
        pytest.raises(ConfigurationError, match="a ReduceLROnPlateau of 'quality'"),
    ):
        stream.update(experience("0", range(4)))
    assert clock.seconds == 0.0  # nothing was trained


@pytest.mark.parametrize(
    "make_model", [with_plateau("train_loss"), with_plateau("train_loss", form=2)]
)
def test_a_plateau_of_training_works(tmp_path, make_model):
    with streaming(tmp_path, make_model) as stream:
        assert stream.update(experience("0", range(4))).kept


@pytest.mark.filterwarnings("ignore:ReduceLROnPlateau conditioned on metric")
def test_a_plateau_that_may_lack_its_metric_is_not_refused(tmp_path):
    with streaming(tmp_path, with_plateau("val_loss", strict=False)) as stream:
        assert stream.update(experience("0", range(4))).kept


class NeedsIndex(Classifier):
    """A module for several loaders of validation."""

    def validation_step(self, batch, batch_idx, dataloader_idx):
        super().validation_step(batch, batch_idx)


class HasIndex(Classifier):
    """The same, with a default."""

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        assert dataloader_idx == 0
        super().validation_step(batch, batch_idx)


def test_an_index_of_loaders_is_refused_before_anything_is_paid_unless_it_has_a_default(tmp_path):
    message = "validation_step of NeedsIndex needs a dataloader_idx.*give it a default"
    with pytest.raises(ConfigurationError, match=message):
        open_stream(tmp_path, NeedsIndex)
    with pytest.raises(ConfigurationError, match=message):
        greentrain.update(NeedsIndex(), blobs((0, 1), 40), val=VAL)
    assert list(tmp_path.iterdir()) == []
    # With one loader, a Trainer raises its own error.
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    validating = Trainer(accelerator="cpu", enable_checkpointing=False, **quiet)
    with pytest.raises(RuntimeError, match="dataloader_idx=0"):
        validating.validate(NeedsIndex(), DataLoader(VAL, 32), verbose=False)
    model = HasIndex()
    (logged,) = validating.validate(model, DataLoader(VAL, 32), verbose=False)
    for fast in (True, False):
        evaluator = Evaluator(
            monitor="val_acc", options={"accelerator": "cpu"}, loader={"batch_size": 32}
        )
        evaluator._fast = fast
        assert evaluator.metric(model, VAL) == pytest.approx(logged["val_acc"])


def test_an_early_stopping_on_validation_is_refused(tmp_path):
    def trainer(monitor):
        return {"accelerator": "cpu", "callbacks": EarlyStopping(monitor)}

    with pytest.raises(ConfigurationError, match="has an EarlyStopping on 'val_loss', and the fit"):
        streaming(tmp_path, Classifier, trainer=trainer("val_loss"))
    streaming(tmp_path, Classifier, trainer=trainer("train_loss")).close()


class OfSteps(Classifier):
    def validation_step(self, batch, batch_idx):
        right = self.layer(batch[0]).argmax(1) == batch[1]
        self.log("val_acc", right.float().mean(), on_step=True, on_epoch=False)


def test_a_metric_of_steps_alone_is_named_with_the_fix(tmp_path):
    clock = Clock()
    message = r"logs 'val_acc' in validation with on_epoch=False, .* log it with on_epoch=True"
    with (
        streaming(tmp_path, OfSteps, clock=clock) as stream,
        pytest.raises(ConfigurationError, match=message),
    ):
        stream.update(experience("0", range(4)))
    assert clock.seconds == 0.0  # nothing was trained


# --- buffers that grow ----------------------------------------------------------------------------


class Queued(Classifier):
    """Keeps its last samples in a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer("queue", torch.zeros(1, 2))

    def training_step(self, batch, batch_idx):
        self.queue = torch.cat([self.queue, batch[0][:1]])[-4:]
        return super().training_step(batch, batch_idx)


def test_a_stream_of_models_with_a_growing_buffer_goes_on_and_is_resumed(tmp_path):
    clock, policy = Clock(), Always(mode=UpdateMode.WARM_START)
    for number in range(2):
        with streaming(tmp_path, Queued, clock=clock, policy=policy) as each:
            assert each.update(experience(str(number), range(4))).kept
            assert each.update(experience(f"{number} again", range(4))).steps > 0
            assert each.model.queue.shape == (4, 2)


# --- batches of one sample ------------------------------------------------------------------------


class Normed(Classifier):
    def __init__(self):
        super().__init__()
        self.layer = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 4))


def test_batch_normalisation_trains_on_161_samples_in_batches_of_32():
    updating = parts(Normed, loader={"batch_size": 32})
    held = blobs((0,), 161)
    data = UpdateData(new=held, stored=SampleList([]), held=held)
    _, note = train(updating, data=data)
    assert {len(batch[1]) for batch in note.batches} == {32, 33}
