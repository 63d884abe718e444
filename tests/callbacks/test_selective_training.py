"""``SelectiveTraining``: what is left out, what is weighted, and what stays as it was."""

from __future__ import annotations

import math

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from greentrain.callbacks import SelectiveTraining
from greentrain.errors import ConfigurationError

SAMPLES = 60


class Numbered(LightningModule):
    """Fits one weight; keeps the numbers of the samples that it was trained on."""

    def __init__(self, output: str = "loss") -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout(0.5)
        self.output = output
        self.epochs: list[list[int]] = []
        self.losses: list[float] = []
        self.modes: set[bool] = set()

    def on_train_epoch_start(self) -> None:
        self.epochs.append([])

    def training_step(self, batch, batch_idx):
        numbers, targets = batch
        if torch.is_grad_enabled():
            self.epochs[-1].extend(int(each) for each in numbers)
        self.modes.add(self.dropout.training)
        losses = (self.weight - targets) ** 2
        self.log("train_loss", losses.mean())
        if self.output == "loss":
            return losses.mean()
        return {"loss": losses.mean(), "sample_losses": losses}

    def on_before_backward(self, loss: torch.Tensor) -> None:
        self.losses.append(float(loss.detach()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def data() -> TensorDataset:
    """Two thirds of the samples have no loss at first, the others one of 1."""
    targets = torch.tensor([0.0, 0.0, 1.0] * (SAMPLES // 3))
    return TensorDataset(torch.arange(SAMPLES), targets)


def trainer(*callbacks, **options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    quiet |= {"enable_model_summary": False, "accelerator": "cpu", "max_epochs": 8}
    return Trainer(callbacks=list(callbacks), **{**quiet, **options})


def fit(
    selective: SelectiveTraining,
    module: Numbered,
    *callbacks,
    batch_size: int = 5,
    workers: int = 0,
    ckpt_path: str | None = None,
    **given,
) -> Numbered:
    dataset = data()
    loader = DataLoader(
        dataset, batch_size, sampler=selective.sampler(dataset), num_workers=workers
    )
    trainer(selective, *callbacks, **given).fit(module, loader, ckpt_path=ckpt_path)
    return module


@pytest.mark.parametrize("workers", [0, 1])
def test_infobatch_leaves_out_half_of_the_samples_with_a_low_loss(workers):
    module = fit(SelectiveTraining("infobatch"), Numbered("sample_losses"), workers=workers)
    sizes = [len(each) for each in module.epochs]
    assert sizes[0] == sizes[-1] == SAMPLES  # the first epoch, and the last eighth
    low = 2 * SAMPLES // 3
    for epoch in module.epochs[1:-1]:
        left_out = set(range(SAMPLES)) - set(epoch)
        assert len(epoch) == len(set(epoch))
        assert all(each % 3 != 2 for each in left_out)
        assert 0.2 * low < len(left_out) < 0.8 * low
    assert len({tuple(sorted(each)) for each in module.epochs[1:-1]}) == 6


def test_the_weighted_losses_of_an_epoch_expect_those_of_all_samples():
    """Over many choices, the mean of the weighted losses is that of all samples."""
    dataset = data()
    sums = []
    for seed in range(200):
        sampler = SelectiveTraining("infobatch", seed=seed).sampler(dataset)
        losses = torch.linspace(0, 1, SAMPLES)
        sampler.scores.copy_(losses)
        sampler._choose(1, whole=False)
        kept = list(sampler)
        sums.append(float((sampler.weights[kept] * losses[kept]).sum()))
    spread = torch.tensor(sums).std().item() / math.sqrt(len(sums))
    assert abs(sum(sums) / len(sums) - losses.sum().item()) < 4 * spread


def test_infobatch_keeps_what_else_is_in_the_loss():
    class Penalised(Numbered):
        def training_step(self, batch, batch_idx):
            output = super().training_step(batch, batch_idx)
            return {**output, "loss": output["loss"] + 100.0}

    module = fit(SelectiveTraining("infobatch"), Penalised("sample_losses"))
    assert min(module.losses) >= 100.0
    assert max(module.losses) < 110.0


@pytest.mark.parametrize("strange", [math.nan, math.inf, -math.inf])
def test_a_sample_without_a_finite_loss_is_kept_and_counts_for_no_other(strange):
    sampler = SelectiveTraining("infobatch", prune=0.99).sampler(range(100))
    sampler.scores.copy_(torch.linspace(0, 1, 100))
    sampler.scores[3] = strange
    sampler._choose(1, whole=False)
    kept = list(sampler)
    assert 3 in kept
    assert set(range(51, 100)) <= set(kept)
    assert len(kept) < 60


def test_a_batch_loss_scores_its_samples():
    selective = SelectiveTraining()
    dataset = data()
    order = selective.sampler(dataset)
    first = list(order)
    trainer(selective, max_epochs=1).fit(Numbered(), DataLoader(dataset, 5, sampler=order))
    for start in range(0, SAMPLES, 5):
        batch = first[start : start + 5]
        expected = sum(each % 3 == 2 for each in batch) / 5
        assert order.scores[batch] == pytest.approx(expected, abs=1e-3)


def test_batch_losses_find_the_samples_with_a_high_loss():
    selective = SelectiveTraining(prune=0.6)
    fit(selective, Numbered(), max_epochs=30)
    scores = selective.sampler(data()).scores
    high, low = scores[2::3], torch.cat([scores[0::3], scores[1::3]])
    assert high.mean() > low.mean() + 0.05
    used, whole = selective.used
    assert whole == 30 * SAMPLES
    assert 0.6 < used / whole < 0.9


def test_the_share_that_was_used_is_logged():
    selective = SelectiveTraining("infobatch")
    dataset = data()
    loader = DataLoader(dataset, 5, sampler=selective.sampler(dataset))
    fitted = trainer(selective)
    fitted.fit(Numbered("sample_losses"), loader)
    used, whole = selective.used
    assert float(fitted.callback_metrics["samples_used"]) == pytest.approx(used / whole)


def test_selective_backprop_trains_on_the_samples_with_a_high_loss():
    selective = SelectiveTraining("selective_backprop")
    module = Numbered("sample_losses")
    loader = DataLoader(data(), 10, shuffle=True, generator=torch.Generator().manual_seed(1))
    fitted = trainer(selective, max_epochs=4)
    fitted.fit(module, loader)
    trained = [each for epoch in module.epochs for each in epoch]
    high = sum(each % 3 == 2 for each in trained)
    assert high == 4 * SAMPLES // 3  # no loss is above theirs
    used, whole = selective.used
    assert (used, whole) == (len(trained), 4 * SAMPLES)
    assert used < 0.7 * whole
    assert module.modes == {True, False}  # scored without dropout, trained with it
    assert module.training
    # Of the last batch, what is logged is the loss of the chosen samples.
    assert float(fitted.callback_metrics["train_loss"]) == pytest.approx(module.losses[-1])


def test_the_module_has_its_own_training_step_again():
    module = fit(SelectiveTraining(), Numbered(), max_epochs=1)
    assert "training_step" not in vars(module)

    class Fails(Numbered):
        def on_train_batch_end(self, *args):
            raise RuntimeError("on purpose")

    failing = Fails()
    with pytest.raises(RuntimeError, match="on purpose"):
        fit(SelectiveTraining(), failing)
    assert "training_step" not in vars(failing)


@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_a_resumed_fit_goes_on_with_the_scores(tmp_path):
    whole = fit(SelectiveTraining("infobatch"), Numbered("sample_losses"), max_epochs=16)
    path = None
    for number, epochs in enumerate((8, 16)):
        selective = SelectiveTraining("infobatch")
        saved = ModelCheckpoint(tmp_path / str(number), save_last=True)
        given = {"max_epochs": epochs, "enable_checkpointing": True, "ckpt_path": path}
        module = fit(selective, Numbered("sample_losses"), saved, **given)
        path = saved.last_model_path
    assert sorted(module.epochs[0]) == list(range(SAMPLES))
    assert module.epochs[1:] == whole.epochs[9:]


def test_a_loader_of_each_epoch_keeps_the_scores():
    class OwnLoader(Numbered):
        def __init__(self, selective: SelectiveTraining) -> None:
            super().__init__("sample_losses")
            self.selective = selective

        def train_dataloader(self):
            dataset = data()
            return DataLoader(dataset, 5, sampler=self.selective.sampler(dataset))

    selective = SelectiveTraining("infobatch")
    module = OwnLoader(selective)
    trainer(selective, reload_dataloaders_every_n_epochs=1).fit(module)
    assert len(module.epochs[0]) == SAMPLES
    assert all(len(each) < SAMPLES for each in module.epochs[1:7])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_it_works_with_accumulated_gradients_and_another_batch_size(accumulate):
    module = fit(
        SelectiveTraining("infobatch"),
        Numbered("sample_losses"),
        batch_size=7,
        accumulate_grad_batches=accumulate,
    )
    assert all(each % 3 != 2 for each in set(range(SAMPLES)) - set(module.epochs[2]))


def test_texts_and_nested_batches_are_chosen_from():
    from greentrain.callbacks.selective_training import _part

    batch = {"x": torch.arange(4), "text": list("abcd"), "more": (torch.eye(4), 7)}
    part = _part(batch, torch.tensor([1, 3]), 4)
    assert part["x"].tolist() == [1, 3]
    assert part["text"] == ["b", "d"]
    assert part["more"][0].shape == (2, 4)
    assert part["more"][1] == 7


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"method": "loss"}, "must be one of batch_loss, infobatch, selective_backprop"),
        ({"prune": 0}, "prune is 0; it must be between 0 and 1"),
        ({"prune": 1.0}, "it must be between 0 and 1"),
        ({"prune": "half"}, "prune is 'half'; it must be a number"),
        ({"prune": math.nan}, "must be between 0 and 1"),
        ({"power": -1}, "power is -1; it must be above 0"),
        ({"power": math.inf}, "must be above 0"),
        ({"seed": 1.5}, "seed is 1.5"),
    ],
)
def test_unusable_arguments_are_refused(arguments, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        SelectiveTraining(**arguments)


class Endless(IterableDataset):
    def __iter__(self):
        yield torch.zeros(1)


@pytest.mark.parametrize(("dataset", "words"), [(Endless(), "length"), ([], "no samples")])
def test_unusable_datasets_are_refused(dataset, words):
    with pytest.raises(ConfigurationError, match=words):
        SelectiveTraining().sampler(dataset)


def test_a_large_seed_is_one_too():
    assert sorted(SelectiveTraining(seed=2**80).sampler(range(3))) == [0, 1, 2]


def test_selective_backprop_has_no_sampler():
    with pytest.raises(ConfigurationError, match="needs no sampler"):
        SelectiveTraining("selective_backprop").sampler(data())


@pytest.mark.parametrize(
    "loader",
    [
        lambda dataset: DataLoader(dataset, 5, shuffle=True),
        lambda dataset: DataLoader(dataset, 5, sampler=WeightedRandomSampler([1.0] * SAMPLES, 9)),
        lambda dataset: DataLoader(dataset, 5, sampler=SelectiveTraining().sampler(dataset)),
        lambda dataset: {"a": DataLoader(dataset, 5), "b": DataLoader(dataset, 5)},
    ],
)
def test_a_loader_without_the_sampler_is_refused_before_the_first_step(loader):
    module = Numbered()
    with pytest.raises(ConfigurationError, match="sampler of this SelectiveTraining"):
        trainer(SelectiveTraining()).fit(module, loader(data()))
    assert module.epochs in ([], [[]])


@pytest.mark.parametrize("method", ["infobatch", "selective_backprop"])
def test_a_step_without_the_losses_of_single_samples_is_refused(method):
    selective = SelectiveTraining(method)
    dataset = data()
    sampler = None if method == "selective_backprop" else selective.sampler(dataset)
    with pytest.raises(ConfigurationError, match="no losses of single samples"):
        trainer(selective).fit(Numbered(), DataLoader(dataset, 5, sampler=sampler))


def test_losses_of_another_number_of_samples_are_refused():
    class Halved(Numbered):
        def training_step(self, batch, batch_idx):
            output = super().training_step(batch, batch_idx)
            return {**output, "sample_losses": output["sample_losses"][:2]}

    with pytest.raises(ConfigurationError, match="2 losses of a batch of 5 samples"):
        fit(SelectiveTraining("infobatch"), Halved("sample_losses"))


def test_a_step_without_a_batch_index_works():
    class Short(Numbered):
        def training_step(self, batch):
            return super().training_step(batch, 0)

    assert len(fit(SelectiveTraining(), Short()).epochs) == 8


def test_manual_optimization_is_refused():
    module = Numbered()
    module.automatic_optimization = False
    with pytest.raises(ConfigurationError, match="manual optimization"):
        fit(SelectiveTraining(), module)


def test_several_processes_are_refused():
    with pytest.raises(ConfigurationError, match="2 processes"):
        SelectiveTraining().setup(type("Trainer", (), {"world_size": 2}), Numbered(), "fit")
