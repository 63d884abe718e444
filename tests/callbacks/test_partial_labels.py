"""``PartialLabels``: the loss of samples with and without labels, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain.callbacks import BudgetGuard, EnergyMonitor, PartialLabels
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.methods import MissingAsMinusOne

ODDS = math.log(9)  # of a probability of 0.9


class Fixed(LightningModule):
    """Logits ``(weight * input, 0)``; keeps its batches and losses."""

    def __init__(self, mapping: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.mapping = mapping
        self.seen: list[list[float]] = []
        self.losses: list[float] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        first = self.weight * inputs[:, 0]
        return torch.stack([first, torch.zeros_like(first)], 1)

    def training_step(self, batch, batch_idx):
        inputs, targets = batch
        self.seen.append(inputs[:, 0].tolist())
        loss = nn.functional.cross_entropy(self(inputs), targets)
        return {"loss": loss} if self.mapping else loss

    def validation_step(self, batch, batch_idx):
        pass

    def on_before_backward(self, loss: torch.Tensor) -> None:
        self.losses.append(float(loss.detach()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def partial(**options) -> PartialLabels:
    """Augmentation that is seen in the result: none, and inputs of half the size."""
    given = {"weak": lambda inputs: inputs, "strong": lambda inputs: inputs / 2}
    return PartialLabels(**{"threshold": 0.85, **given, **options})


def fit(module, *callbacks, inputs, targets, val=None, batch_size=4, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"accelerator": "cpu", "max_epochs": 1, "enable_checkpointing": False}
    data = TensorDataset(torch.tensor(inputs)[:, None], torch.tensor(targets))
    trainer = Trainer(callbacks=list(callbacks), **{**quiet, **options})
    trainer.fit(module, DataLoader(data, batch_size), val)
    return module


@pytest.mark.parametrize("mapping", [False, True])
def test_a_confident_sample_adds_the_loss_of_its_strong_form(mapping):
    """Of three without labels one has p = 0.9; at half the input p = 3 / 4, as sqrt(9) = 3."""
    module, callback = Fixed(mapping), partial(weight=2.0)
    fit(module, callback, inputs=[0.0, ODDS, 0.0, 0.1], targets=[0, -1, -1, -1])
    expected = math.log(2) + 2.0 * -math.log(0.75) / 3
    assert module.losses == pytest.approx([expected])
    assert module.seen == [[0.0]]
    assert (callback.labels, callback.pseudo) == (1, (1, 3))


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_a_batch_without_labels_trains_on_pseudo_labels_or_is_skipped():
    module, callback = Fixed(), partial()
    fit(
        module,
        callback,
        inputs=[0.0, 0.0, ODDS, 0.0, 0.1, 0.2],
        targets=[0, -1, -1, -1, -1, -1],
        batch_size=2,
    )
    assert module.losses == pytest.approx([math.log(2), -math.log(0.75) / 2])
    assert callback.pseudo == (1, 5)


def test_the_weight_grows_and_samples_with_labels_are_augmented_unless_forbidden():
    """At step 1 of 4 the weight of the confident sample is a quarter, at step 2 a half."""
    module, callback = Fixed(), partial(weak=lambda inputs: inputs + 0.5, warm_up=4)
    fit(module, callback, inputs=[0.0, ODDS, 0.0, ODDS], targets=[0, -1] * 2, batch_size=2)
    first = -math.log(1 / (1 + math.exp(-0.5)))
    assert module.losses == pytest.approx(
        [first + share * -math.log(0.75) for share in (0.25, 0.5)]
    )
    assert module.seen == [[0.5], [0.5]]
    plain = Fixed()
    fit(plain, partial(weak=lambda x: x + 0.5, augment=False), inputs=[0.0, 1.0], targets=[0, -1])
    assert plain.seen == [[0.0]]


def test_a_class_of_minus_one_and_a_regression_are_refused():
    with pytest.raises(ConfigurationError, match="-1 seems to be a class"):
        fit(Fixed(), partial(), inputs=[0.0, 1.0], targets=[1, -1])
    with pytest.raises(ConfigurationError, match="a regression has no confidence"):
        fit(Fixed(), partial(), inputs=[0.0, 1.0], targets=[0.5, math.nan])


def test_all_labels_leave_the_step_as_it_is():
    module = fit(Fixed(), partial(), inputs=[0.0, 1.0], targets=[0, 1])
    assert module.seen == [[0.0, 1.0]]
    assert "training_step" not in vars(module)


def test_the_threshold_is_calibrated_on_labelled_validation_data():
    """At 0.9 and above 12 of 12 are right, at 0.6 and above 12 of 14; samples without count not."""
    odds = [ODDS] * 12 + [math.log(1.5)] * 2 + [math.log(4)]
    classes = [0] * 12 + [1] * 2 + [-1]
    val = DataLoader(TensorDataset(torch.tensor(odds)[:, None], torch.tensor(classes)), 5)
    callback = partial(threshold="calibrated")
    fit(Fixed(), callback, inputs=[0.0, 1.0], targets=[0, -1], val=val)
    assert callback.current == pytest.approx(0.9)
    again = partial(threshold="calibrated")
    again.load_state_dict(callback.state_dict())
    assert again.current == callback.current


def test_missing_targets_of_any_kind_can_be_batched():
    dataset = MissingAsMinusOne([(torch.zeros(1), 1), (torch.zeros(1), None)])
    [(_, targets)] = DataLoader(dataset, 2)
    assert targets.tolist() == [1, -1]


def test_it_works_with_guard_ledger_bf16_accumulation_and_checkpoints(own_folder, tmp_path):
    monitor = EnergyMonitor(ConstantMeter(1.0), ledger="sqlite:///l.db", summary=False)
    saved, callback = ModelCheckpoint(dirpath=tmp_path / "saved"), partial()
    module = fit(
        Fixed(),
        *(monitor, BudgetGuard("1 kWh"), callback, saved),
        inputs=[0.0, ODDS + 0.1] * 4,
        targets=[0, -1] * 4,
        batch_size=2,
        precision="bf16-mixed",
        accumulate_grad_batches=2,
        enable_checkpointing=True,
    )
    assert len(module.losses) == 4
    states = torch.load(saved.best_model_path, weights_only=True)["callbacks"]
    assert states["PartialLabels"]["pseudo"] == [4, 4]


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")
def test_data_without_any_label_are_refused():
    callback = partial()
    with pytest.raises(ConfigurationError, match="none of the 3 samples of the first epoch has"):
        fit(Fixed(), callback, inputs=[0.0, 9.0, 9.0], targets=[-1, -1, -1])
    assert callback.pseudo == (0, 3)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"threshold": 0}, "threshold is 0"),
        ({"threshold": "high"}, "threshold is 'high'"),
        ({"precision": 2}, "precision is 2"),
        ({"weight": -1}, "weight is -1"),
        ({"warm_up": -1}, "warm_up is -1"),
        ({"augment": "weak"}, "augment is 'weak'"),
    ],
)
def test_unusable_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        PartialLabels(**arguments)


def test_batches_and_outputs_of_another_form_are_refused():
    class Flat(Fixed):
        def forward(self, inputs):
            return inputs[:, 0]

    with pytest.raises(ConfigurationError, match="no pair of tensors"):
        fit(Fixed(), partial(), inputs=[0.0], targets=[[0, 1]])
    with pytest.raises(ConfigurationError, match="forward of Flat returns no logits"):
        module = Flat()
        module.training_step = lambda batch, batch_idx: module.weight.sum()
        fit(module, partial(), inputs=[0.0, 1.0], targets=[0, -1])


def test_several_processes_are_refused():
    trainer = type("Two", (), {"world_size": 2})()
    with pytest.raises(ConfigurationError, match="2 processes"):
        partial().setup(trainer, Fixed(), "fit")
