"""What is kept for the end of an update, and that a stream's reservations hold."""

from __future__ import annotations

from greentrain import UpdateMode
from greentrain.control import Always
from greentrain.training.stream_state import ClosingEnergy
from tests.models import Classifier, Clock
from tests.training.test_stream_trainer import stream, trainer


def test_the_dearest_of_the_last_three_is_kept():
    closing = ClosingEnergy()
    for energy_j in (9.0, 3.0, 2.0, 4.0):
        closing.learn(energy_j, validation_j=1.0)
    assert closing.upper_bound_j(10.0, unknown_j=100.0) == 13.0
    restored = ClosingEnergy()
    restored.load_state_dict(closing.state_dict())
    assert restored.upper_bound_j(10.0, unknown_j=100.0) == 13.0


def test_a_validation_that_was_cheaper_than_expected_takes_nothing_away():
    closing = ClosingEnergy()
    closing.learn(1.0, validation_j=2.0)
    assert closing.upper_bound_j(2.0, unknown_j=100.0) == 2.0


class SlowToEnd(Classifier):
    """Takes its time after the last step; from the fifth fit on its steps draw more than before."""

    fits = 0

    def on_train_start(self):
        SlowToEnd.fits += 1

    def training_step(self, batch, batch_idx):
        self.clock.seconds += 0.005 if SlowToEnd.fits > 4 else 0.0
        return super().training_step(batch, batch_idx)

    def on_train_end(self):
        self.clock.seconds += 0.1  # 10 J at 100 W


def test_what_the_end_of_a_fit_uses_is_kept_aside_where_the_guard_ends_it(tmp_path):
    clock = Clock()
    SlowToEnd.clock, SlowToEnd.fits = clock, 0
    policy = Always(mode=UpdateMode.WARM_START)
    with trainer(tmp_path, clock, SlowToEnd, policy=policy, budget="1 kWh") as streaming:
        results = [streaming.update(each) for each in stream()]
    cut = [result for result in results[1:] if result.steps < result.decision.steps]
    assert cut
    assert [result.overrun_j for result in cut] == [0.0] * len(cut)
