"""The guard's arithmetic, worked out by hand."""

from __future__ import annotations

import pytest

from greentrain.callbacks.guarding import SAVE_STEPS, Ending, Look, Pace


def paced(*energies_j: float, step_s: float = 0.1, pace: Pace | None = None) -> Pace:
    """Look after each step, each of which took a tenth of a second."""
    pace = pace or Pace()
    drawn_j = 0.0
    for number, energy_j in enumerate(energies_j):
        drawn_j += energy_j
        steps = number + 1
        look = Look(steps=steps, seconds=steps * step_s, energy_j=drawn_j, steps_j=drawn_j)
        pace.look(look)
    return pace


def test_the_mean_leaves_the_first_five_steps_out_once_there_are_ten():
    assert paced(50.0, *[10.0] * 4).mean_j == 18.0
    assert paced(50.0, *[10.0] * 9).mean_j == 10.0


def test_what_is_kept_for_a_step_is_twice_the_mean_and_less_and_less_for_doubt():
    pace = paced(*[10.0] * 105)
    assert pace.power_w == pytest.approx(100.0)
    assert pace.lag_j == pytest.approx(10.0)
    # 100 steps count: 10 J, a lag of 10 J over all of them, and twice the root of 1 / 100 on top.
    assert pace.mean_bound_j == pytest.approx((10.0 + 10.0 / 100) * 1.2)
    assert pace.step_j == pytest.approx(2 * pace.mean_bound_j)
    assert paced(*[10.0] * 10_005).step_j == pytest.approx(20.4, rel=0.01)


def test_a_step_that_was_dearer_than_that_is_kept_for_again():
    pace = paced(*[10.0] * 50, 200.0, *[10.0] * 50)
    assert pace.step_j == pytest.approx(200.0, rel=0.1)  # less a lag, which is kept besides


def test_steps_that_become_dearer_are_followed():
    pace = paced(*[10.0] * 1000, *[20.0] * 20)
    assert pace.mean_j is not None
    assert pace.mean_j < 10.5
    assert pace.mean_bound_j == pytest.approx(20.0)


def test_a_first_step_that_compiles_says_nothing_of_a_thousand():
    assert paced(500.0).likely_j == 0.0
    assert paced(500.0, *[10.0] * 6).likely_j < 11.0


def test_a_power_limit_stands_for_the_power_until_that_was_measured():
    pace = Pace(power_w=400.0)
    assert pace.lag_j == 40.0
    assert paced(*[10.0] * 5, pace=pace).lag_j == 40.0
    assert paced(*[10.0] * 15, pace=Pace(power_w=400.0)).lag_j == pytest.approx(10.0)


def test_looks_are_a_quarter_of_what_is_left_apart_and_at_each_step_at_first():
    assert paced(*[10.0] * 4).steps_until_look(1e6) == 1
    pace = paced(*[10.0] * 105)
    assert pace.steps_until_look(1212.0) == int(1212.0 / 4 / pace.mean_bound_j) == 25
    assert pace.steps_until_look(0.1) == 1
    assert paced(*[0.0] * 50).steps_until_look(1e6) == 1  # nothing was told yet


def test_an_end_is_bounded_from_steps_until_it_was_measured():
    ending = Ending(batches=50.0, batch_steps=2.0, saves=True)
    assert ending.kept_j(10.0) == 50 * 2 * 10.0 + SAVE_STEPS * 10.0
    assert ending.kept_j(10.0, validates=False) == SAVE_STEPS * 10.0
    ending.validated(400.0)
    ending.validated(380.0)
    ending.drew("epoch", 60.0)
    assert ending.kept_j(10.0) == pytest.approx(1.05 * (400.0 + 60.0))
    assert ending.saving_j(10.0, "validation") == 0.0
    assert ending.saving_j(10.0, "validation", "epoch") == pytest.approx(63.0)


def test_a_saving_that_was_seen_is_enough_to_know_what_saving_takes():
    ending = Ending(saves=True)
    ending.drew("validation", 30.0)
    assert ending.kept_j(10.0) == pytest.approx(31.5 + SAVE_STEPS * 10.0)
    ending.saved = True
    assert ending.kept_j(10.0) == pytest.approx(31.5)
