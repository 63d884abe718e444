"""The bounds of a guard, worked out by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest

from greentrain.callbacks.usage_bounds import SAVE_STEPS, EndBound, StepBound, UsagePoint


def observed(*energies_j: float, step_s: float = 0.1, bound: StepBound | None = None) -> StepBound:
    """Observe each step, each of which took a tenth of a second."""
    bound = bound or StepBound()
    used_j = 0.0
    for number, energy_j in enumerate(energies_j):
        used_j += energy_j
        steps = number + 1
        now = UsagePoint(steps=steps, seconds=steps * step_s, energy_j=used_j, steps_j=used_j)
        bound = bound.observe(now)
    return bound


def test_the_mean_leaves_the_first_five_steps_out_once_there_are_ten():
    assert observed(50.0, *[10.0] * 4).mean_j == 18.0
    assert observed(50.0, *[10.0] * 9).mean_j == 10.0


def test_what_is_kept_for_a_step_is_twice_the_mean_and_less_and_less_for_doubt():
    bound = observed(*[10.0] * 105)
    assert bound.power_w == pytest.approx(100.0)
    assert bound.lag_j == pytest.approx(10.0)
    # 100 steps count: 10 J, a lag of 10 J over all of them, and twice the root of 1 / 100 on top.
    assert bound.mean_bound_j == pytest.approx((10.0 + 10.0 / 100) * 1.2)
    assert bound.step_j == pytest.approx(2 * bound.mean_bound_j)
    assert observed(*[10.0] * 10_005).step_j == pytest.approx(20.4, rel=0.01)


def test_a_step_that_was_dearer_than_that_is_kept_for_again():
    bound = observed(*[10.0] * 50, 200.0, *[10.0] * 50)
    assert bound.step_j == pytest.approx(200.0, rel=0.1)  # less a lag, which is kept besides


def test_steps_that_become_dearer_are_followed():
    bound = observed(*[10.0] * 1000, *[20.0] * 20)
    assert bound.mean_j is not None
    assert bound.mean_j < 10.5
    assert bound.mean_bound_j == pytest.approx(20.0)


def test_a_first_step_that_compiles_says_nothing_of_a_thousand():
    assert observed(500.0).likely_j == 0.0
    assert observed(500.0, *[10.0] * 6).likely_j < 11.0


def test_a_power_limit_stands_for_the_power_until_that_was_measured():
    bound = StepBound(power_w=400.0)
    assert bound.lag_j == 40.0
    assert observed(*[10.0] * 5, bound=bound).lag_j == 40.0
    assert observed(*[10.0] * 15, bound=StepBound(power_w=400.0)).lag_j == pytest.approx(10.0)


def test_looks_are_a_quarter_of_what_is_left_apart_and_at_each_step_at_first():
    assert observed(*[10.0] * 4).steps_until_check(1e6) == 1
    bound = observed(*[10.0] * 105)
    assert bound.steps_until_check(1212.0) == int(1212.0 / 4 / bound.mean_bound_j) == 25
    assert bound.steps_until_check(0.1) == 1
    assert observed(*[0.0] * 50).steps_until_check(1e6) == 1  # nothing was measured yet
    assert bound.steps_until_check(-math.inf) == 1


def test_an_end_is_bounded_from_steps_until_it_was_measured():
    end = EndBound(batches=50.0, batch_steps=2.0, saves=True)
    assert end.total_j(10.0) == 50 * 2 * 10.0 + SAVE_STEPS * 10.0
    assert end.total_j(10.0, validates=False) == SAVE_STEPS * 10.0
    end = end.observe("validating", 400.0)
    end = end.observe("validating", 380.0)
    end = end.observe("epoch", 60.0)
    assert end.total_j(10.0) == pytest.approx(1.05 * (400.0 + 60.0))
    assert end.saving_j(10.0, "validation") == 0.0
    assert end.saving_j(10.0, "validation", "epoch") == pytest.approx(63.0)


def test_a_saving_that_was_seen_is_enough_to_know_what_saving_takes():
    end = EndBound(saves=True)
    end = end.observe("validation", 30.0)
    assert end.total_j(10.0) == pytest.approx(31.5 + SAVE_STEPS * 10.0)
    assert dataclasses.replace(end, saved=True).total_j(10.0) == pytest.approx(31.5)


@pytest.mark.parametrize(
    ("steps_j", "next_j"),
    [
        ((12.0,), 12.0),  # the first step, although it is usually the most expensive one
        ((12.0, 1.0), 2.0),  # twice the steady step
        ((12.0, 8.0), 10.0),  # twice would be more than the mean so far
        ((1.0, 1.0, 4.0), 4.0),  # one of the last two is more than the mean
        ((12.0, 12.0, 1.0), 12.0),  # one of the last two steps is slow
        ((12.0, 12.0, 12.0, 1.0, 1.0), 2.0),
        ((1.0, 1.0, 1.0), 1.0),
        ((12.0, *[1.0] * 6), 2.0),
    ],
)
def test_slow_steps_do_not_bound_the_next_one_once_two_steady_steps_follow(steps_j, next_j):
    assert observed(*steps_j, bound=StepBound(lag_s=0.0)).step_j == pytest.approx(next_j)


def test_a_mean_from_an_earlier_fit_bounds_the_second_step():
    known = StepBound(lag_s=0.0, mean_j=1.0, known_j=1.0)
    assert observed(12.0, bound=known).step_j == 2.0


def test_the_least_of_the_first_steps_bounds_a_validation_until_enough_is_known():
    assert observed(12.0, bound=StepBound(lag_s=0.0)).likely_j == 0.0
    assert observed(12.0, 3.0, 2.0, bound=StepBound(lag_s=0.0)).likely_j == 2.0
    assert observed(12.0, 3.0, 0.0, bound=StepBound(lag_s=0.0)).likely_j == 0.0  # no tick yet
