"""What an update leaves behind: its learning curve and its weights."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pytorch_lightning import Callback
from torch import nn

from greentrain.training.fit_callbacks import POINTS, LossCurve, learning_slope
from greentrain.training.stream_state import weight_growth, weight_norm
from tests.models import Classifier
from tests.training.fitting import parts, train

finite = st.floats(-1e6, 1e6)


class Given(Callback):
    """Note the loss that ``training_step`` returned."""

    def __init__(self):
        self.losses = []

    def on_train_start(self, trainer, module):
        step = module.training_step

        def noting(*args):
            loss = step(*args)
            self.losses.append(float(loss.detach()))
            return loss

        module.training_step = noting


def fed(losses):
    """A curve that was told of losses, as by a fit without accumulated gradients."""
    curve, module = LossCurve(), Classifier()
    module.automatic_optimization = False
    for loss in losses:
        curve.on_train_batch_end(None, module, {"loss": torch.tensor(loss)}, None, 0)
    return curve


@pytest.mark.parametrize("accumulated", [1, 4])
def test_a_fit_leaves_the_losses_of_all_of_its_batches(accumulated):
    told, curve = Given(), LossCurve()
    train(parts(accumulate_grad_batches=accumulated), callbacks=[told, curve], steps=40)
    assert curve.values == pytest.approx(told.losses)
    tenths = [sum(told.losses[start : start + 4]) / 4 for start in (32, 36)]
    assert curve.slope == pytest.approx(tenths[1] - tenths[0], abs=1e-6)


class ByHand(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.optimizers().zero_grad()
        self.manual_backward(loss)
        self.optimizers().step()
        return loss if batch_idx % 2 else None


def test_a_step_by_hand_may_return_its_loss_or_not():
    told, curve = LossCurve(), LossCurve()
    train(parts(ByHand), callbacks=[told, curve], steps=20)
    assert len(curve.values) == 10
    assert LossCurve().values == []
    assert LossCurve().slope is None


@pytest.mark.parametrize("n", [2 * POINTS - 1, 2 * POINTS, 2 * POINTS + 1, 5000])
def test_memory_is_bounded_and_no_batch_is_left_out(n):
    losses = [float(each % 97) for each in range(n)]
    curve = fed(losses)
    values = curve.values
    assert len(values) < 2 * POINTS
    each = n // len(values) if n >= 2 * POINTS else 1
    assert each & (each - 1) == 0  # 1, 2, 4, ...
    means = [sum(losses[i : i + each]) / each for i in range(0, len(values) * each, each)]
    assert values == pytest.approx(means, rel=1e-5)
    assert n - len(values) * each < each


def test_a_loss_that_is_no_number_takes_only_its_own_points_along():
    losses = [math.exp(-0.01 * each) for each in range(1000)]
    clean = fed(losses).slope
    losses[500] = math.nan
    assert fed(losses).slope == pytest.approx(clean, abs=1e-3)
    assert fed([math.nan] * 100).slope is None


@pytest.mark.parametrize("outputs", [None, {}, {"loss": None}, {"loss": 0.5}, torch.zeros(3)])
def test_what_is_no_loss_is_no_point(outputs):
    curve = LossCurve()
    curve.on_train_batch_end(None, Classifier(), outputs, None, 0)
    assert curve.values == []


def test_the_slope_by_hand():
    # Tenths of two: the last is (1 + 1) / 2, the one before (3 + 2) / 2.
    assert learning_slope([9.0] * 16 + [3.0, 2.0, 1.0, 1.0]) == -1.5
    assert learning_slope([9.0] * 9) is None
    assert learning_slope([math.nan, math.inf] * 50 + [2.0] * 9) is None
    assert learning_slope([-1e308] * 18 + [1e308] * 2) is None  # too large for a float
    assert learning_slope([1e308] * 20) == 0.0


@given(st.lists(finite, min_size=10, max_size=60), st.floats(-10, 10), finite)
def test_the_slope_goes_with_the_values(values, factor, offset):
    slope = learning_slope(values)
    changed = learning_slope([factor * value + offset for value in values])
    scale = max(1.0, abs(offset), max(abs(factor * value) for value in values))
    assert changed == pytest.approx(factor * slope, abs=1e-9 * scale)
    mirrored = learning_slope([-value for value in values])
    assert mirrored == pytest.approx(-slope)


@given(st.lists(st.floats(), max_size=50))
def test_whatever_the_values_the_slope_is_finite_or_none(values):
    slope = learning_slope(values)
    assert slope is None or math.isfinite(slope)


def test_the_norm_is_that_of_all_parameters_in_one_vector():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    flat = nn.utils.parameters_to_vector(model.parameters()).detach()
    assert weight_norm(model) == pytest.approx(float(flat.norm()))
    assert weight_norm(nn.ReLU()) == 0.0
    assert weight_norm(nn.LazyLinear(3)) == 0.0


def test_huge_and_broken_weights_have_a_norm_too():
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 3e38)  # whose square is no 32-bit number
    assert weight_norm(model) == pytest.approx(math.sqrt(2) * 3e38)
    nn.init.constant_(model.weight, math.nan)
    assert math.isnan(weight_norm(model))


@given(st.floats(), st.none() | st.floats())
def test_growth_is_finite_or_none(norm, reference):
    growth = weight_growth(norm, reference)
    assert growth is None or math.isfinite(growth)


@pytest.mark.parametrize(
    ("norm", "reference", "growth"),
    [
        (15.0, 10.0, 0.5),
        (5.0, 10.0, -0.5),
        (1.0, 0.0, None),
        (1.0, None, None),
        (math.nan, 1, None),
    ],
)
def test_growth_by_hand(norm, reference, growth):
    assert weight_growth(norm, reference) == growth
