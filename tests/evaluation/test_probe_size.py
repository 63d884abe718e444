"""How many samples a look may draw energy for, and which logged name is the loss."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Trainer
from torch.utils.data import DataLoader

from greentrain.evaluation.fast_eval import loss_name
from greentrain.evaluation.probe import PROBE_SHARE, probe_size
from tests.models import Classifier, blobs

anything = st.floats(allow_nan=True, allow_infinity=True)


@given(anything, anything)
def test_a_probe_never_uses_more_than_its_share(budget_j, sample_j):
    samples = probe_size(budget_j=budget_j, sample_j=sample_j)
    assert samples == 0 or 32 <= samples <= 512
    if samples:
        assert samples * sample_j <= PROBE_SHARE * budget_j * (1 + 1e-9)


@given(st.floats(1e-3, 1e9), st.floats(1e-6, 1e3))
def test_a_probe_is_as_large_as_its_share_allows(budget_j, sample_j):
    samples = probe_size(budget_j=budget_j, sample_j=sample_j)
    more = 32 if samples == 0 else samples + 1
    if samples < 512:
        assert more * sample_j > PROBE_SHARE * budget_j * (1 - 1e-9)


@pytest.mark.parametrize(
    ("budget_j", "sample_j", "samples"),
    [
        (3200.0, 1.0, 32),  # 32 J for 32 samples
        (3199.0, 1.0, 0),
        (1e9, 0.0, 512),  # too little to measure
        (0.0, 0.0, 0),
        (math.inf, 1.0, 512),
        (math.nan, 1.0, 0),
        (1e9, math.nan, 0),
        (-1.0, 1.0, 0),
        (1e9, -1.0, 0),
        (math.inf, math.inf, 0),
    ],
)
def test_sizes_by_hand(budget_j, sample_j, samples):
    assert probe_size(budget_j=budget_j, sample_j=sample_j) == samples


def test_the_loss_of_a_real_validation_is_found_beside_the_metric():
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.validate(Classifier(), DataLoader(blobs(range(4), 5), batch_size=20), verbose=False)
    assert loss_name(trainer.callback_metrics, "val_acc") == "val_loss"


@pytest.mark.parametrize(
    ("names", "monitor", "expected"),
    [
        (["val_acc"], "val_acc", None),
        ([], "val_acc", None),
        (["val_loss_box", "val_loss"], "val_loss_box", "val_loss"),
        (["val_Loss", "train_loss"], "val_acc", "val_Loss"),
        (["val/loss", "my_loss"], "my_loss", "my_loss"),
        (["val_loss_step", "val_loss_epoch", "valid_loss"], "val_acc", "valid_loss"),
        (["b_loss", "a_loss"], "val_acc", "a_loss"),
    ],
)
def test_names_by_hand(names, monitor, expected):
    assert loss_name(names, monitor) == expected
