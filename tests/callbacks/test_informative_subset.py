"""Scores of samples during a fit, and the sampler over the informative ones."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from greentrain import StreamTrainer
from greentrain.callbacks import InformativeSubset
from greentrain.control import Always, UpdateMode
from greentrain.demo import DigitsModel
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.streams import Stream, digits_stream

INPUTS = torch.arange(8.0).reshape(4, 2)
LABELS = torch.tensor([0, 1, 0, 1])


def seen(subset: InformativeSubset, logits: list[list[float]], samples: int = 4) -> None:
    """Score a batch, as after a training step."""
    outputs = {"loss": torch.tensor(1.0), "logits": torch.tensor(logits)}
    subset.on_train_batch_end(None, None, outputs, (INPUTS[:samples], LABELS[:samples]), 0)


def passed(subset: InformativeSubset, samples: int = 4) -> set[int]:
    return set(subset.sampler(TensorDataset(INPUTS[:samples], LABELS[:samples])))


class Scored(DigitsModel):
    """The model of the demo, with what the scores need."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        logits = self(batch[0])
        losses = nn.functional.cross_entropy(logits, batch[1], reduction="none")
        return {"loss": losses.mean(), "logits": logits, "sample_losses": losses}


def test_forgotten_samples_come_first_and_before_them_those_that_were_never_right() -> None:
    subset = InformativeSubset("forgetting", share=0.5)
    right, wrong = [[2.0, 0.0], [0.0, 2.0]] * 2, [[0.0, 2.0], [2.0, 0.0]] * 2
    first = [right[0], right[1], wrong[2], right[3]]  # sample 2 is never right
    seen(subset, first)
    seen(subset, [right[0], wrong[1], wrong[2], right[3]])  # sample 1 is forgotten
    seen(subset, first)
    assert passed(subset) == {1, 2}
    subset.share = 0.25
    assert passed(subset) == {2}


def test_small_margins_and_large_losses_come_first() -> None:
    margins = InformativeSubset("margin", share=0.5)
    seen(margins, [[3.0, 0.0], [0.0, 0.5], [0.0, 1.0], [0.0, 2.0]])  # 3, 0.5, -1 and 2
    assert passed(margins) == {1, 2}
    losses = InformativeSubset("loss", share=0.5)
    outputs = {"loss": torch.tensor(1.0), "sample_losses": torch.tensor([0.1, 0.9, 0.2, 0.8])}
    losses.on_train_batch_end(None, None, outputs, (INPUTS, LABELS), 0)
    assert passed(losses) == {1, 3}


def test_new_samples_are_all_in_a_pass() -> None:
    subset = InformativeSubset("margin", share=0.5)
    seen(subset, [[3.0, 0.0], [0.0, 0.5]], samples=2)
    assert passed(subset) == {1, 2, 3}


def test_samples_without_a_label_or_a_finite_score_have_no_score() -> None:
    subset = InformativeSubset("margin")
    logits = torch.tensor([[3.0, 0.0], [0.0, 0.5], [float("nan"), 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, -1, 0, 1])
    subset.on_train_batch_end(None, None, {"logits": logits}, (INPUTS, labels), 0)
    assert len(subset) == 2
    subset.share = 0.5
    assert passed(subset) == {1, 2, 3}  # the margins are 3 and 1


def test_reading_the_dataset_leaves_the_global_generator_alone() -> None:
    subset = InformativeSubset()
    seen(subset, [[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    before = torch.get_rng_state()
    subset.sampler(TensorDataset(INPUTS, LABELS))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_state_is_restored() -> None:
    subset, again = InformativeSubset(share=0.5), InformativeSubset(share=0.5)
    seen(subset, [[2.0, 0.0], [0.0, 2.0], [0.0, 2.0], [2.0, 0.0]])
    again.load_state_dict(subset.state_dict())
    assert len(again) == 4
    assert passed(again) == passed(subset) == {2, 3}
    seen(again, [[0.0, 2.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
    assert passed(again) == {0, 1}


@pytest.mark.parametrize("by", ["forgetting", "margin", "loss"])
def test_a_warm_start_of_a_stream_passes_over_less(tmp_path, by) -> None:
    subset, sizes = InformativeSubset(by, share=0.25), []

    def sampler(dataset: Any) -> Any:
        chosen = subset.sampler(dataset)
        sizes.append((len(chosen), len(dataset)))
        return chosen

    stream: Stream = digits_stream()
    with StreamTrainer(
        Scored,
        budget="1 kWh",
        num_experiences=2,
        monitor="val_acc",
        meter=ConstantMeter(10.0),
        ledger=f"sqlite:///{tmp_path}/run.db",
        trainer={"max_epochs": 3, "accelerator": "cpu", "callbacks": [subset]},
        loader={"batch_size": 16, "sampler": sampler},
        policy=Always(mode=UpdateMode.WARM_START),
    ) as trainer:
        results = list(trainer.run([stream[0], stream[3]]))
    first, second = (len(each.train) for each in (stream[0], stream[3]))
    assert sizes[0] == (first, first)
    warm = [length for length, of in sizes if of == first + second]
    assert [each.update_mode for each in results] == ["FULL_RETRAIN", "WARM_START"]
    assert warm == [second + round(0.25 * first)]
    assert len(subset) >= first


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"by": "entropy"}, "by is 'entropy'; it must be one of forgetting, margin, loss"),
        ({"share": 0}, "share is 0; it must be above 0 and at most 1"),
        ({"share": float("nan")}, "share is nan; it must be above 0 and at most 1"),
    ],
)
def test_arguments_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        InformativeSubset(**arguments)


def test_what_cannot_be_scored_is_refused(tmp_path) -> None:
    data = digits_stream()[0].train
    fit = Trainer(
        max_epochs=1,
        accelerator="cpu",
        callbacks=[InformativeSubset()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with pytest.raises(ConfigurationError, match="training_step returns no logits"):
        fit.fit(DigitsModel(), DataLoader(data, 16))
    with pytest.raises(ConfigurationError, match="precision is 'bf16-true', which changes the inp"):
        InformativeSubset().setup(SimpleNamespace(precision="bf16-true"), None, "fit")
    regression = {"loss": torch.tensor(1.0), "logits": torch.zeros(4, 2)}
    with pytest.raises(ConfigurationError, match="needs one class for each sample; give by='loss'"):
        InformativeSubset().on_train_batch_end(None, None, regression, (INPUTS, INPUTS), 0)
    with pytest.raises(ConfigurationError, match="inputs of a batch are list, and samples"):
        InformativeSubset().on_train_batch_end(None, None, regression, (["a"] * 4, LABELS), 0)
    with pytest.raises(ConfigurationError, match="returned 4 scores for a batch of 3 samples"):
        InformativeSubset("loss").on_train_batch_end(
            None, None, {"sample_losses": torch.zeros(4)}, (INPUTS[:3], LABELS[:3]), 0
        )
