"""StreamTrainer with a floor, and how well it foretells what updates draw."""

from __future__ import annotations

import pytest

from greentrain import UpdateMode
from greentrain.control import Always
from greentrain.errors import ConfigurationError
from tests.models import Clock
from tests.training.test_stream_trainer import run, trainer


def test_a_low_target_holds_after_the_first_training_and_a_high_one_costs_more(tmp_path):
    drawn_j = {}
    for floor in (0.3, 0.9):
        _, results, clock = run(tmp_path / str(floor), target_metric=floor, budget="5000 J")
        drawn_j[floor] = clock.seconds * 100.0
        looked_at = [result for result in results[1:] if result.metric_before is not None]
        assert looked_at
        for result in looked_at:  # nothing is trained where the floor holds
            held = result.metric_before >= floor
            assert (result.update_mode is UpdateMode.SKIP) == held, result.decision.sentence
    assert drawn_j[0.3] < drawn_j[0.9]
    assert results[-1].metric_after >= 0.9


def test_a_target_of_a_loss_is_an_upper_bound(tmp_path):
    changes = {"monitor": "val_loss", "mode": "min", "budget": "5000 J"}
    _, results, _ = run(tmp_path, target_metric=5.0, **changes)
    assert {result.update_mode for result in results[1:]} == {UpdateMode.SKIP}


def test_a_target_metric_and_a_policy_are_two_objectives(tmp_path):
    with pytest.raises(ConfigurationError, match="a target has its own policy"):
        trainer(tmp_path, Clock(), target_metric=0.9, policy=Always(mode=UpdateMode.REPLAY))


def test_the_error_of_the_cost_model_is_shown_where_an_update_went_as_planned(tmp_path):
    policy = Always(mode=UpdateMode.WARM_START)
    _, results, _ = run(tmp_path, policy=policy, budget="1 kWh")
    assert results[0].cost_error is None  # a first training knows no cost
    assert all(abs(result.cost_error) < 0.05 for result in results[3:])
    for result in results[1:]:
        predicted_j = result.decision.cost_j.mean
        assert result.cost_error == pytest.approx(predicted_j / result.update_j - 1.0)


def test_there_is_no_error_of_an_update_that_was_cut_or_of_none(tmp_path):
    _, results, _ = run(tmp_path, policy=Always(mode=UpdateMode.SKIP))
    assert [result.cost_error for result in results[1:]] == [None] * 5
    # A first training under a cap has no plan that could be missed.
    _, (first, *_), _ = run(tmp_path / "capped", budget="300 J")
    assert first.steps < first.decision.steps
    assert first.cost_error is None
