"""Caps of a few dozen steps on models whose first steps are slow, at 20 W and 50 ms a step."""

from __future__ import annotations

import warnings

import pytest
from pytorch_lightning import Callback

from greentrain.callbacks import BudgetGuard
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

STEP_S, POWER_W = 0.05, 20.0


class SlowSteps(Callback):
    """Let the first steps take longer than the others."""

    def __init__(self, clock: Clock, seconds: list[float]) -> None:
        self.clock = clock
        self.seconds = seconds

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step < len(self.seconds):
            self.clock.seconds += self.seconds[trainer.global_step]


def share_used(cap_steps: float, share: float = 0.0, slow: int = 1, **options) -> float:
    """Return the share of a cap that is used.

    Args:
        cap_steps: The cap, in steady steps.
        share: Share of it that the slow steps use together.
        slow: Number of slow steps.
        **options: Of the Trainer.
    """
    clock = Clock()
    cap_s = cap_steps * STEP_S
    slower = SlowSteps(clock, [max(0.0, share * cap_s / slow - STEP_S)] * slow)
    guard = BudgetGuard(f"{cap_s * POWER_W} J", meter=constant_meter(clock, POWER_W))
    tick = Tick(clock, STEP_S, 0.3 * STEP_S)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="BudgetGuard: .* more than its cap")
        trainer(guard, tick, slower, max_epochs=50, **options).fit(Classifier(), loader(200))
    assert guard.stopped or guard.reason
    return clock.seconds / cap_s


@pytest.mark.parametrize(
    ("share", "slow"), [(0.3, 1), (0.45, 1), *((s, n) for s in (0.3, 0.5, 0.6) for n in (2, 3))]
)
@pytest.mark.parametrize("cap_steps", [20, 100])
def test_slow_first_steps_leave_the_rest_of_a_small_cap_to_be_used(slow, share, cap_steps):
    used = share_used(cap_steps, share, slow)
    assert (0.85 if cap_steps == 20 else 0.95) <= used <= 1.0


@pytest.mark.parametrize("share", [0.55, 0.7, 0.9])
def test_a_first_step_of_more_than_half_of_a_cap_ends_the_fit(share):
    # The second step may use as much as the first.
    assert share_used(50, share) == pytest.approx(share)


@pytest.mark.parametrize("steps", [1.2, 1.5, 1.99, 2.2, 2.5, 3.5, 5, 8, 12])
def test_equal_steps_never_exceed_a_cap(steps):
    used = share_used(steps)
    assert used <= 1.0 + 1e-9
    assert used >= 0.5  # one step of a cap of almost two
    assert used >= 0.74 or steps < 2


@pytest.mark.parametrize(("share", "slow"), [(0.16, 2), (0.3, 2), (0.3, 3)])
def test_slow_first_steps_do_not_bound_a_saving_that_was_never_measured(share, slow, tmp_path):
    # 20 of the 100 steady steps are set aside for the saving, and 20 % of the uncertain mean.
    options = {"enable_checkpointing": True, "default_root_dir": tmp_path}
    assert 0.6 <= share_used(100, share, slow, **options) <= 0.8


def test_equal_first_steps_bound_a_saving_that_was_never_measured(tmp_path):
    # A saving may use 10 steps, half of this cap.
    used = share_used(20, enable_checkpointing=True, default_root_dir=tmp_path)
    assert 0.05 <= used <= 0.5
