"""A guard on two forked ranks takes one decision, even if their measurements differ."""

from __future__ import annotations

import pytest

from greentrain.callbacks import BudgetGuard
from tests.callbacks.forks import FORKS, free_port, stopped_together
from tests.models import Clock, Tick, constant_meter

__all__ = ["free_port"]  # a fixture


class Uneven(Tick):
    """Let the second rank's time pass faster; what is on the host is measured by the first."""

    def on_train_batch_start(self, trainer, *args, **kwargs) -> None:
        self.clock.seconds += self.step_s * (1 + 0.5 * trainer.global_rank)


@FORKS
@pytest.mark.parametrize("options", [{"cap": "60 J"}, {"cap": "0.006 gCO2e", "zone": "DE"}])
def test_ranks_stop_together_and_have_room_for_the_validation(tmp_path, options):
    clock = Clock()
    guard = BudgetGuard(meter=constant_meter(clock), anneal=True, **options)
    first = stopped_together(tmp_path, guard, Uneven(clock, 0.01, 0.02))
    assert first["used_j"] <= 60.0
