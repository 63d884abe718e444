"""What the steps of an update draw, and what its first steps foretell."""

from __future__ import annotations

import pytest

from greentrain.energy import WindowRecorder
from greentrain.training.fit_callbacks import StepEnergy
from tests.models import Clock, Tick, constant_meter
from tests.training.fitting import parts, train


class Slowly(Tick):
    """The first two batches take ten times as long, and those after twenty more twice as long."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.batches = 0

    def on_train_batch_start(self, *args, **kwargs) -> None:
        self.batches += 1
        first, late = self.batches <= 2, self.batches > 22
        self.clock.seconds += self.step_s * (10 if first else 2 if late else 1)


def measured(steps: int, **arguments) -> StepEnergy:
    """Measure a fit at 1 J a step, 10 J for each of the first two and 2 J from the 23rd on."""
    clock = Clock()
    meter = constant_meter(clock)
    meter.start()
    energy = StepEnergy(WindowRecorder(meter, lambda window: None), **arguments)
    train(parts(callbacks=[Slowly(clock)]), steps=steps, callbacks=[energy])
    return energy


def test_the_first_steps_are_not_counted():
    assert measured(12).step_j == pytest.approx(1.0)
    # 20 at 1 J and 18 at 2 J, of 40 of which two are not counted
    assert measured(40).step_j == pytest.approx((20 * 1 + 18 * 2) / 38)


def test_the_first_twenty_after_them_predict_the_update(caplog):
    with caplog.at_level("INFO"):
        energy = measured(40, planned=40, other_j=7.0)
    assert energy.projected_j == pytest.approx(7.0 + 40 * 1.0)
    assert "after 22 of 40 steps the update is projected to use 47 J" in caplog.text


@pytest.mark.parametrize(
    ("steps", "other_j", "projected_j"), [(22, 7.0, 29.0), (21, 7.0, None), (22, None, None)]
)
def test_nothing_is_predicted_of_a_short_update_or_an_unknown_cost(steps, other_j, projected_j):
    energy = measured(steps, planned=steps, other_j=other_j)
    assert energy.projected_j == (projected_j and pytest.approx(projected_j))


@pytest.mark.parametrize("steps", [1, 2])
def test_too_few_steps_say_nothing(steps):
    energy = measured(steps, planned=steps, other_j=1.0)
    assert energy.step_j is energy.projected_j is None


def test_without_a_fit_there_is_nothing():
    energy = StepEnergy(WindowRecorder(constant_meter(Clock()), lambda window: None))
    assert energy.step_j is None
