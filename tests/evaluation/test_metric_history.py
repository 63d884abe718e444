"""How the metric goes, and how sure a gain is that few samples tell."""

from __future__ import annotations

import math

import pytest

from greentrain.evaluation.comparison import Measured, MetricHistory


def measured(*blocks: tuple[int, float]) -> Measured:
    samples = sum(size for size, _ in blocks)
    return Measured(value=sum(size * each for size, each in blocks) / samples, blocks=blocks)


def gain_of(before: Measured, after: Measured) -> tuple[float, float]:
    compared = MetricHistory(more_is_better=True).compare(before, after)
    return compared.gain, compared.sd


@pytest.mark.parametrize(("samples", "error"), [(8, 0.9 / 16), (800, 0.9 / 1600)])
def test_models_that_agree_on_few_samples_may_differ_on_others(samples, error):
    same = measured((samples, 0.9), (samples, 0.9))
    assert gain_of(same, same) == (0.0, pytest.approx(error))


def test_the_error_of_a_gain_is_that_of_its_pairs_and_of_one_sample_more():
    before, after = measured((10, 0.7), (10, 0.9)), measured((10, 0.9), (10, 0.9))
    gain, error = gain_of(before, after)
    assert gain == pytest.approx(0.1)
    assert error == pytest.approx(math.hypot(0.1, 0.8 / 20))


@pytest.mark.parametrize(
    ("more_is_better", "value", "farthest"),
    [
        (True, 0.3, 0.7),
        (True, 0.9, 0.9),
        (True, 50.0, 50.0),
        (True, -2.0, 2.0),
        (False, 0.3, 0.3),  # a loss may be of any scale
    ],
)
def test_one_sample_may_change_a_metric_as_far_as_0_or_1_is(more_is_better, value, farthest):
    same = measured((5, value), (5, value))
    found = MetricHistory(more_is_better=more_is_better).compare(same, same)
    assert found.sd == pytest.approx(farthest / 10)


def test_of_no_samples_nothing_is_said():
    unknown = Measured(value=math.nan)
    assert MetricHistory(more_is_better=True).compare(unknown, unknown).sd == 0.0
