"""Training of one's own under a budget: decided, paid for, learned from, also after a kill."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import math
import signal
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import greentrain
from greentrain import Budget, UpdateMode, candidates_of, open_controller
from greentrain.control import Always, PricedPolicy, Reason, inputs_of
from greentrain.control.decision import decided
from greentrain.decisions.step_cost import split
from greentrain.energy import ConstantMeter
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger import Ledger, verify
from greentrain.report import build, write
from greentrain.report.model_origin import origins
from greentrain.training import weights_sha256
from tests import prepared

ROOT = Path(__file__).parents[2]
FULL = candidates_of({"FULL_RETRAIN": 100}, step_fractions=(1.0,))
ALL = candidates_of({"REPLAY": 10, "WARM_START": 40, "FULL_RETRAIN": 100})


@dataclass(frozen=True)
class OnDrop:
    """A policy of one's own: the last candidate, if the new data go worse than what is known."""

    def decide(self, state, options, balance, forecast):
        calm = state.has_model and state.metric_new >= state.metric_before
        return decided(
            options[0] if calm else options[-1], Reason.FIXED, "calm" if calm else "drop"
        )


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'own.db'}"


@pytest.fixture
def meter(seconds):
    """A hundred watts: 36 s are 3600 J, which is 1 Wh."""
    return ConstantMeter(100.0, clock=lambda: seconds[0])


@pytest.fixture
def opened(url, meter):
    """Open the stream ``churn`` with 2 Wh for 8 experiences."""

    def open_it(**options):
        settings = {"budget": "2 Wh", "num_experiences": 8, "ledger": url, "meter": meter}
        return open_controller("churn", **{**settings, **options})

    return open_it


def rows(url, kind):
    ledger = Ledger(url, create=False)
    try:
        return ledger.rows(kind)
    finally:
        ledger.close()


def verified(url):
    ledger = Ledger(url, create=False)
    try:
        found = verify(ledger)
    finally:
        ledger.close()
    assert found.failures == ()
    return found


def trained(controller, name, seconds, *, spend_s=1.0, metric_after=0.75, **known):
    """One update of ``spend_s`` seconds, which are as many hundred joules."""
    known = {"candidates": ALL, "n_new": 100, **known}
    with controller.update(name, **known) as update:
        if update.action.mode is not UpdateMode.SKIP:
            seconds[0] += spend_s
            update.done(metric_after=metric_after)
    return update


def known_of(controller):
    """What the models have learned; a mode of which there is nothing is as good as none."""
    learned = controller.control.state_dict()
    return {**learned, "utility": {mode: each for mode, each in learned["utility"].items() if each}}


# One update


def test_an_update_is_reserved_measured_and_settled(opened, seconds, url):
    with opened(step_j=2.0, monitor="auc") as controller:
        with controller.update("monday", candidates=FULL, n_new=500) as update:
            assert (update.action.mode, update.steps) == (UpdateMode.FULL_RETRAIN, 100)
            assert update.decision.reason is Reason.NO_MODEL
            assert update.decision.cost_j.mean == pytest.approx(200.0)  # 100 steps of 2 J
            assert controller.balance().reserved_j == update.reserved_j == update.left_j > 200.0
            seconds[0] += 1.5
            assert update.left_j == pytest.approx(update.reserved_j - 150.0)
            update.done(metric_after=0.75)
        balance = controller.balance()
        assert (balance.spent_j, balance.reserved_j) == (150.0, 0.0)
        assert controller.experiences == ("monday",)
    (decision,), (outcome,) = rows(url, "decision"), rows(url, "outcome")
    assert decision["reservation_id"] == outcome["reservation_id"]
    assert (decision["predicted_j"], decision["position"]) == (pytest.approx(200.0), 0)
    assert (outcome["metric"], outcome["metric_after"], outcome["kept"]) == ("auc", 0.75, True)
    assert (outcome["steps"], outcome["planned_steps"], outcome["energy_j"]) == (100, 100, 150.0)
    (drawn,) = rows(url, "window")
    assert (drawn["phase"], drawn["energy_j"]) == ("update", 150.0)
    assert drawn["reservation_id"] == decision["reservation_id"]
    assert verified(url).exit_code == 0


def test_an_outcome_has_the_weights_in_use_and_the_run_its_tags(opened, seconds, url):
    first, second, third = ({"weight": torch.full((2,), value)} for value in (1.0, 2.0, 3.0))

    def done(controller, name, steps=100, **outcome):
        with controller.update(name, candidates=FULL, n_new=500) as update:
            seconds[0] += 0.1
            update.done(steps=steps, metric_after=0.75, **outcome)

    tags = {"team": "night shift", "project": "churn"}
    always = Always(mode=UpdateMode.FULL_RETRAIN)
    with opened(step_j=2.0, policy=always, **tags) as controller:
        done(controller, "a", weights_sha256=weights_sha256(first))
        done(controller, "b", weights_sha256=weights_sha256(second), kept=False)
        done(controller, "c", weights_sha256=weights_sha256(second))
    with opened(step_j=2.0, policy=always) as controller:  # another process
        done(controller, "d", weights_sha256=weights_sha256(third), kept=False)
        done(controller, "e")  # new weights, and their hash is not given
    held = [row["weights_sha256"] for row in rows(url, "outcome")]
    one, two = weights_sha256(first), weights_sha256(second)
    assert held == [one, one, two, two, None]
    assert [(run["team"], run["project"]) for run in rows(url, "run")] == [
        ("night shift", "churn"),
        (None, None),
    ]
    settings = json.loads(rows(url, "run")[0]["environment"])["settings"]
    assert {name: settings[name] for name in tags} == tags
    ledger = Ledger(url, create=False)
    (origin,) = origins(ledger, two)
    ledger.close()
    assert (origin.experience_id, origin.energy_j) == ("c", pytest.approx(10.0))
    assert verified(url).exit_code == 0


@pytest.mark.parametrize("wrong", ["", "a" * 63, "A" * 64, b"a" * 64, 7])
def test_a_hash_of_weights_is_64_digits(opened, wrong):
    with opened(step_j=2.0) as controller:
        update = controller.decide("monday", candidates=FULL, n_new=500)
        with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
            controller.settle(update, metric_after=0.75, weights_sha256=wrong)
        assert controller.settle(update, weights_sha256="0" * 64) == 0.0


def test_two_calls_do_what_a_block_does(opened, seconds, url):
    with opened(step_j=2.0) as controller:
        update = controller.decide("monday", candidates=FULL, n_new=500)
        with pytest.raises(ConfigurationError, match="'monday' is not settled yet"):
            controller.decide("tuesday", candidates=FULL, n_new=500)
        seconds[0] += 4.0
        overrun_j = controller.settle(update, steps=120, metric_after=0.75)
        assert overrun_j == pytest.approx(400.0 - update.reserved_j)
        with pytest.raises(ConfigurationError, match="settled already"):
            controller.settle(update)
    (outcome,) = rows(url, "outcome")
    assert (outcome["steps"], outcome["planned_steps"], outcome["energy_j"]) == (120, 100, 400.0)
    assert verified(url).exit_code == 0


def test_what_is_used_elsewhere_is_given(opened, url):
    with opened(step_j=2.0, elsewhere=True) as controller:
        update = controller.decide("monday", candidates=FULL, n_new=500)
        assert update.left_j == update.reserved_j
        with pytest.raises(ConfigurationError, match="energy_j is missing"):
            controller.settle(update, metric_after=0.75)
        controller.settle(update, metric_after=0.75, energy_j=123.0)
        assert controller.balance().spent_j == 123.0
        with controller.update(
            "tuesday", candidates=ALL, n_new=500, metric_before=0.7, metric_new=0.1
        ) as update:
            update.done(metric_after=0.8, energy_j=7.0)
        assert controller.balance().spent_j == 130.0
        with pytest.raises(ConfigurationError, match="give step_j instead"):
            controller.calibrate(print)
    assert rows(url, "window") == []
    found = verified(url)
    assert found.exit_code == 0
    assert sum(note.startswith("given") for note in found.notes) == 2


def test_what_is_measured_is_not_given(opened):
    with opened(step_j=2.0) as controller:
        update = controller.decide("monday", candidates=FULL, n_new=500)
        with pytest.raises(ConfigurationError, match="measured here"):
            controller.settle(update, energy_j=1.0)
        controller.settle(update)


def test_a_skip_is_finished_at_once_and_its_data_stay_pending(opened, seconds, url):
    with opened(step_j=2.0, policy=OnDrop()) as controller:
        trained(controller, "a", seconds, n_new=100)
        same = {"metric_before": 0.75, "metric_new": 0.99, "n_new": 30}
        skipped = trained(controller, "b", seconds, **same)
        assert skipped.action.mode is UpdateMode.SKIP
        assert (skipped.steps, skipped.reserved_j) == (0, 0.0)
        with pytest.raises(ConfigurationError, match="was skipped"):
            controller.settle(skipped, steps=3)
        again = trained(controller, "b", seconds, **same)  # tried again: its data count once
        assert (again.state.n_new, again.state.n_pending) == (30, 0)
        broken = {"metric_before": 0.5, "metric_new": 0.1, "n_new": 70}
        update = trained(controller, "c", seconds, **broken)
        assert update.action.mode is not UpdateMode.SKIP
        assert (update.state.n_new, update.state.n_pending, update.state.n_stored) == (100, 30, 100)
        after = trained(controller, "d", seconds, **same)
        assert (after.state.n_new, after.state.n_stored) == (30, 200)
        assert (after.state.since_update, after.state.position) == (1, 4)
    assert [row["kept"] for row in rows(url, "outcome")] == [True] * 5
    assert rows(url, "outcome")[1]["metric_after"] == 0.75
    assert verified(url).exit_code == 0


def test_a_controller_decides_nothing_after_its_block(opened, seconds):
    with opened() as controller:
        trained(controller, "monday", seconds)
    with pytest.raises(ConfigurationError, match="the controller is closed"):
        trained(controller, "tuesday", seconds)


@pytest.mark.parametrize("wrong", [{"monitor": None}, {"monitor": ""}, {"mode": "best"}], ids=str)
def test_a_metric_has_a_name_and_a_direction(opened, wrong):
    (argument,) = wrong
    with pytest.raises(ConfigurationError, match=f"{argument} is "), opened(**wrong):
        pass


def test_kept_is_true_or_false(opened, seconds):
    with opened() as controller:
        with controller.update("monday", candidates=ALL, n_new=100) as update:
            with pytest.raises(ConfigurationError, match="kept is None; it must be True or False"):
                update.done(kept=None)
            update.done(metric_after=0.75)
        assert controller.experiences == ("monday",)


def test_a_block_that_raises_is_settled_and_not_kept(opened, seconds, url):
    error = RuntimeError("out of memory")
    with (
        pytest.raises(RuntimeError) as caught,
        opened(step_j=2.0) as controller,
        controller.update("monday", candidates=FULL, n_new=500),
    ):
        seconds[0] += 0.5
        raise error
    assert caught.value is error
    (outcome,) = rows(url, "outcome")
    assert (outcome["steps"], outcome["energy_j"], outcome["kept"]) == (0, 50.0, False)
    assert [row["actual_j"] for row in rows(url, "settlement")] == [50.0]
    assert [row["status"] for row in rows(url, "closing")] == ["failed"]
    assert verified(url).exit_code == 0
    with opened(step_j=2.0) as controller:  # there is no model yet
        retried = trained(controller, "monday", seconds, n_new=500)
        assert retried.decision.reason is Reason.NO_MODEL
        assert retried.state.n_new == 500


def test_a_block_that_says_nothing_is_warned_of(opened, seconds, url, caplog):
    with (
        caplog.at_level(logging.WARNING),
        opened(step_j=2.0) as controller,
        controller.update("monday", candidates=FULL, n_new=500),
    ):
        seconds[0] += 0.5
    assert "ended without done()" in caplog.text
    assert [row["kept"] for row in rows(url, "outcome")] == [False]


def test_calls_that_are_never_settled_are_at_the_end(opened, seconds, url):
    with opened(step_j=2.0) as controller:
        controller.decide("monday", candidates=FULL, n_new=500)
        seconds[0] += 0.5
    assert [row["actual_j"] for row in rows(url, "settlement")] == [50.0]
    assert [row["kept"] for row in rows(url, "outcome")] == [False]
    assert verified(url).exit_code == 0


def test_elsewhere_an_unknown_use_stays_reserved(opened, url, caplog):
    with opened(step_j=2.0, elsewhere=True) as controller:
        update = controller.decide("monday", candidates=FULL, n_new=500)
    assert "its whole reservation stays spent" in caplog.text
    with opened(step_j=2.0, elsewhere=True) as controller:
        assert controller.balance().reserved_j == update.reserved_j
    assert [row["energy_j"] for row in rows(url, "outcome")] == [None]


def test_an_update_that_is_not_kept_leaves_the_metric_as_it_was(opened, seconds, url):
    with opened(step_j=2.0) as controller:
        trained(controller, "a", seconds)
        known = {"candidates": ALL, "n_new": 50, "metric_before": 0.5, "metric_new": 0.1}
        with controller.update("b", **known) as update:
            update.done(metric_after=0.25, kept=False)
        assert controller.decide("c", **known).state.n_pending == 50
    assert rows(url, "outcome")[1]["metric_after"] == 0.5


def test_the_windows_of_a_fit_inside_are_paid_from_the_reservation(opened, seconds, url):
    with opened(step_j=2.0) as controller:
        with controller.update("a", candidates=FULL, n_new=100) as update:
            seconds[0] += 0.25
            with controller.recorder.phase("train_epoch", epoch=0):
                seconds[0] += 0.5
            update.done(metric_after=0.75)
        assert controller.balance().spent_j == 75.0
    drawn = {row["phase"]: row["energy_j"] for row in rows(url, "window")}
    assert drawn == {"train_epoch": 50.0, "update": 25.0}
    assert len({row["reservation_id"] for row in rows(url, "window")}) == 1
    assert verified(url).exit_code == 0


def test_a_loss_is_turned_round(opened, seconds, url):
    with opened(step_j=2.0, monitor="loss", mode="min") as controller:
        trained(controller, "a", seconds, metric_after=0.5)
        update = trained(
            controller,
            "b",
            seconds,
            metric_before=0.75,
            metric_new=2.0,
            metric_past=0.5,
            loss_new=2.0,
            metric_after=0.25,
        )
        state = update.state
        assert (state.metric_before, state.metric_new, state.metric_last) == (-0.75, -2.0, -0.5)
        assert (state.metric_past, state.loss_new, state.metric_ceiling) == (-0.5, 2.0, 0.0)
        assert controller.decide("c", candidates=ALL, n_new=1).state.metric_best == -0.25
    assert [row["metric_after"] for row in rows(url, "outcome")][:2] == [0.5, 0.25]


def test_a_model_from_elsewhere_is_taken_as_it_is(opened):
    with opened(step_j=2.0) as controller:
        known = {"metric_before": 0.8, "metric_new": 0.6, "n_new": 100, "n_stored": 300}
        update = controller.decide("a", candidates=ALL, **known)
        assert update.state.has_model
        assert (update.state.metric_last, update.state.metric_best) == (0.8, 0.8)
        assert update.state.drop == pytest.approx(0.2 * 100 / 400)
        assert update.action.mode is not UpdateMode.SKIP


@pytest.mark.parametrize("metric", [math.nan, math.inf])
def test_a_metric_that_is_no_number_is_unknown(opened, seconds, url, metric):
    with opened(step_j=2.0) as controller:
        update = trained(controller, "a", seconds, metric_before=metric, metric_after=metric)
        assert not update.state.has_model
    assert [row["metric_after"] for row in rows(url, "outcome")] == [None]


# What a step costs


def test_the_first_update_says_what_a_step_costs(opened, seconds, url):
    with opened() as controller:
        assert not controller.calibrated
        first = trained(controller, "a", seconds, spend_s=2.5)
        assert str(first.action) == "FULL_RETRAIN at 25%"  # the least work that makes a model
        assert first.reserved_j == 720.0  # a tenth of 2 Wh
        assert "the cost of a step is unknown" in first.decision.sentence
        assert controller.calibrated
        # 250 J for 25 steps: a tenth is taken for the fixed part, so a step has 9 J.
        again = controller.control.cost.predict(UpdateMode.FULL_RETRAIN, 25)
        assert again.mean == pytest.approx(250.0)
        more = controller.control.cost.predict(UpdateMode.FULL_RETRAIN, 50)
        assert more.mean == pytest.approx(475.0, rel=0.02)
    assert [row["predicted_j"] for row in rows(url, "decision")] == [None]


def test_the_first_reservation_is_the_users(opened, seconds):
    with opened(first_j=500.0) as controller:
        assert trained(controller, "a", seconds).reserved_j == 500.0


def test_a_first_update_that_cannot_be_reserved_is_skipped(opened, seconds, url):
    with opened(first_j=8000.0) as controller:  # 2 Wh are 7200 J
        update = trained(controller, "a", seconds)
        assert update.action.mode is UpdateMode.SKIP
        assert update.decision.reason is Reason.BUDGET_EXHAUSTED
        assert not controller.calibrated
    assert rows(url, "reservation") == []


def test_a_calibration_is_paid_for(opened, seconds, url):
    asked = []

    def train(steps):
        asked.append(steps)
        seconds[0] += (0.5 if len(asked) == 1 else 0.0) + 0.1 + 0.02 * steps

    with opened() as controller:
        controller.calibrate(train, steps=10)
        assert asked == [10, 10, 40]
        # Each training draws 10 J and 2 J a step; the first one 50 J more.
        predicted = controller.control.cost.predict(UpdateMode.FULL_RETRAIN, 100)
        assert predicted.mean == pytest.approx(210.0)
        assert controller.balance().spent_j == pytest.approx(80.0 + 30.0 + 90.0)
        update = trained(controller, "a", seconds)
        assert update.decision.cost_j.mean == pytest.approx(210.0)
    assert rows(url, "reservation")[0]["purpose"] == "calibration"
    assert verified(url).exit_code == 0


def test_a_calibration_that_fails_is_settled(opened, seconds, url):
    def train(steps):
        seconds[0] += 1.0
        raise RuntimeError("no such column")

    with opened() as controller:
        with pytest.raises(RuntimeError, match="no such column"):
            controller.calibrate(train)
        assert (controller.balance().spent_j, controller.balance().reserved_j) == (100.0, 0.0)
        with pytest.raises(ConfigurationError, match="the meter measured no energy for 80 steps"):
            controller.calibrate(lambda steps: None)
        with pytest.raises(ConfigurationError, match="steps is 0"):
            controller.calibrate(train, steps=0)
        assert not controller.calibrated


def test_noise_never_makes_steps_free():
    assert split(50.0, 40.0, 10) == (40.0, 1.0)  # all 40 J of 40 steps are the steps'


# The past


def test_a_new_process_knows_what_the_last_one_learned(opened, seconds, url):
    arrivals = [(None, None), (0.7, 0.3), (0.74, 0.75), (0.6, 0.2), (0.7, 0.5)]

    def take(controller, index):
        before, new = arrivals[index]
        return trained(
            controller,
            f"day {index}",
            seconds,
            metric_before=before,
            metric_new=new,
            metric_after=0.7 + 0.02 * index,
            spend_s=0.25 * (index + 1),
        )

    with opened(step_j=2.0, policy=OnDrop()) as controller:
        for index in range(4):
            take(controller, index)
        learned = known_of(controller)
    with opened(step_j=2.0, policy=OnDrop()) as controller:
        assert known_of(controller) == learned
        assert controller.experiences == ("day 0", "day 1", "day 2", "day 3")
        last = take(controller, 4)
        assert (last.state.position, last.state.num_experiences) == (4, 8)
    assert {row["update_mode"] for row in rows(url, "decision")} > {"SKIP"}
    # One process for all five decides and predicts the very same.
    whole = f"{url}.whole"
    with opened(step_j=2.0, policy=OnDrop(), ledger=whole) as controller:
        for index in range(5):
            other = take(controller, index)
    assert (other.decision, other.state.history) == (last.decision, last.state.history)
    assert other.decision.forecast.tables


def test_a_recorded_decision_can_be_redone(opened, seconds, url):
    with opened(step_j=2.0) as controller:
        trained(controller, "a", seconds)
        update = trained(controller, "b", seconds, metric_before=0.7, metric_new=0.2)
    row = rows(url, "decision")[1]
    inputs = inputs_of(json.loads(row["state"]), json.loads(row["alternatives"]))
    again = PricedPolicy().decide(*inputs)
    assert dataclasses.replace(again, forecast=inputs[3]) == update.decision


def test_a_state_with_other_fields_is_read(opened, seconds, url):
    from greentrain.decisions.history import state_of

    held = {
        "position": 2,
        "num_experiences": 8,
        "has_model": True,
        "metric_before": 0.5,
        "novelty": 1.0,
    }
    state = state_of(json.dumps(held))
    assert (state.position, state.metric_before, state.n_new, state.history) == (2, 0.5, 0, ())


def test_a_renewed_budget_counts_its_own_period(opened, seconds, url):
    with opened(budget="2 Wh per day", step_j=2.0) as controller:
        for name in ("a", "b"):
            assert trained(controller, name, seconds).state.remaining in (8, 7)
        moment = controller._ledger.now()
        controller._ledger.clock = lambda: moment + timedelta(days=1)
        update = trained(controller, "c", seconds)
        assert (update.state.position, update.state.remaining) == (2, 8)


def test_a_budget_with_an_end_plans_until_then(opened, seconds):
    end = datetime.now(UTC) + timedelta(days=10)
    budget = Budget.parse("2 Wh", num_experiences=8, until=end)
    with opened(budget=budget, num_experiences=None, step_j=2.0) as controller:
        opened_at = controller._ledger.terms(controller._account.budget_id).opened
        controller._ledger.clock = lambda: opened_at + 0.8 * (end - opened_at)
        assert trained(controller, "a", seconds).state.remaining == 2  # a fifth of 8


# Other processes


@dataclass(frozen=True)
class TooLate:
    """Chooses a full retraining, while another run takes all that is left."""

    url: str

    def decide(self, state, options, balance, forecast):
        ledger = Ledger(self.url)
        with ledger.open_run("stream", "faster") as run:
            account = ledger.account(ledger.find_budget("churn")["budget_id"], run)
            account.reserve(account.balance().left_j, "everything")
        ledger.close()
        return decided(options[-1], Reason.FIXED, "the dearest")


def test_what_another_run_took_first_is_a_skip(opened, seconds, url):
    with opened(step_j=2.0, policy=TooLate(url)) as controller:
        update = trained(controller, "a", seconds)
        assert update.action.mode is UpdateMode.SKIP
        assert update.decision.reason is Reason.BUDGET_EXHAUSTED
        assert "everything" in update.decision.sentence  # who holds the rest
    assert [row["reason"] for row in rows(url, "decision")] == ["BUDGET_EXHAUSTED"]
    assert len(rows(url, "outcome")) == 1
    assert verified(url).exit_code == 0


def test_a_decision_that_cannot_be_recorded_reserves_nothing(opened, seconds, monkeypatch):
    with opened(step_j=2.0) as controller:

        def full(*_, **__):
            raise LedgerError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(controller._core._run, "append", full)
            with pytest.raises(LedgerError, match="disk is full"):
                controller.decide("a", candidates=FULL, n_new=1)
        assert (controller.balance().spent_j, controller.balance().reserved_j) == (0.0, 0.0)
        trained(controller, "a", seconds)


def test_a_settlement_that_cannot_be_written_stops_nothing(opened, seconds, monkeypatch, caplog):
    with opened(step_j=2.0) as controller:
        update = controller.decide("a", candidates=FULL, n_new=1)

        def gone(*_):
            raise LedgerError("the server is gone")

        with monkeypatch.context() as patch:
            patch.setattr(controller._account, "settle", gone)
            assert controller.settle(update, metric_after=0.5) == 0.0
        assert "stays spent until it is released" in caplog.text
        assert controller.balance().reserved_j == update.reserved_j


KILLED = """
import os, signal, sys
from greentrain import candidates_of, open_controller
from greentrain.energy import ConstantMeter

with open_controller(
    "churn",
    budget="2 Wh",
    num_experiences=8,
    ledger=sys.argv[1],
    step_j=2.0,
    meter=ConstantMeter(100.0),
) as controller:
    full = candidates_of({"FULL_RETRAIN": 100}, step_fractions=(1.0,))
    with controller.update("a", candidates=full, n_new=100) as update:
        update.done(metric_after=0.75)
    with controller.update(
        "b", candidates=full, n_new=50, metric_before=0.5, metric_new=0.1
    ) as update:
        print(update.reserved_j, controller.balance().spent_j, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_in_mid_update_leaves_its_reservation_spent(opened, seconds, url):
    done = prepared.python("-c", KILLED, url, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    reserved_j, spent_j = map(float, done.stdout.split())
    assert reserved_j > 0
    with opened(step_j=2.0) as controller:
        assert controller.balance().reserved_j == reserved_j
        assert controller.balance().spent_j == spent_j
        assert controller.experiences == ("a",)
        known = {"metric_before": 0.5, "metric_new": 0.1, "n_new": 50, "candidates": FULL}
        again = trained(controller, "b", seconds, **known)
        assert (again.state.position, again.state.n_new, again.state.n_pending) == (1, 50, 0)
        assert again.state.metric_last == 0.75
        assert controller.balance().reserved_j == reserved_j  # until somebody releases it
    assert len(rows(url, "outcome")) == 2
    verified(url)


LOOP = """
import itertools, sys, time
from greentrain import candidates_of, open_controller
from greentrain.control import Always, UpdateMode
from greentrain.energy import ConstantMeter

with open_controller(
    "churn",
    budget="0.5 Wh",
    num_experiences=40,
    ledger=sys.argv[1],
    step_j=0.5,
    meter=ConstantMeter(1000.0),
    policy=Always(mode=UpdateMode.FULL_RETRAIN),
) as controller:
    full = candidates_of({"FULL_RETRAIN": 100}, step_fractions=(1.0,))
    done = len(controller.experiences)
    for number in itertools.count(done):
        with controller.update(f"day {number}", candidates=full, n_new=10) as update:
            print(number, flush=True)
            while update.left_j > 0.05 * update.reserved_j:
                time.sleep(0.001)
            if update.action.mode is not UpdateMode.SKIP:
                update.done(metric_after=0.75)
"""


@pytest.mark.slow
def test_whatever_is_killed_the_budget_holds_and_the_stream_goes_on(url):
    numbers = []
    for turns in (1, 3, 2, 4, 60):  # the last ones are skipped: nothing is left
        with prepared.running("-c", LOOP, url, cwd=ROOT) as (_, printed):
            numbers.append([int(printed.readline()) for _ in range(turns)])
        ledger = Ledger(url, create=False)
        balance = ledger.balance(ledger.find_budget("churn")["budget_id"])
        assert verify(ledger).failures == ()  # the rule holds after every single row
        ledger.close()
        assert balance.within
        assert balance.reserved_j > 0  # what was killed stays spent
    for earlier, later in itertools.pairwise(numbers):
        assert later[0] in (earlier[-1], earlier[-1] + 1)  # goes on where it was
        assert later == list(range(later[0], later[0] + len(later)))
    reasons = {row["reason"] for row in rows(url, "decision")}
    assert "TOO_EXPENSIVE" in reasons


# The report


def test_the_ledger_can_be_reported_on(opened, seconds, url, tmp_path):
    with opened(monitor="auc", zone="DE") as controller:
        trained(controller, "a", seconds)
        trained(controller, "b", seconds, metric_before=0.7, metric_new=0.2)
        trained(controller, "c", seconds, metric_before=0.75, metric_new=0.99)
        try:
            with controller.update("d", candidates=ALL, n_new=9, metric_before=0.5, metric_new=0.1):
                raise RuntimeError("out of memory")
        except RuntimeError:
            pass
    ledger = Ledger(url, create=False)
    document = build(ledger)
    ledger.close()
    listed = document["experiences"]
    assert [one["experience_id"] for one in listed] == ["a", "b", "c", "d"]
    assert [one["status"] for one in listed] == ["done"] * 4
    assert listed[0]["predicted_j"] is None
    assert listed[1]["update_energy_j"] == pytest.approx(100.0)
    assert [one["kept"] for one in listed] == [True, True, True, False]
    for path in write(document, tmp_path / "report", ("html", "json", "csv", "md")):
        assert path.stat().st_size > 0
    assert "out of memory" not in (tmp_path / "report" / "report.html").read_text()
    assert verified(url).exit_code == 0


# The budget holds

TURNS = st.lists(
    st.tuples(
        st.floats(0.0, 1.0),  # the metric on the new data
        st.floats(0.4, 1.0),  # the share of the reservation that is drawn
        st.sampled_from(["kept", "not kept", "raises", "silent", "next process"]),
    ),
    min_size=1,
    max_size=8,
)


@pytest.mark.slow
@settings(max_examples=12, phases=[Phase.generate])
@given(
    turns=TURNS,
    policy=st.sampled_from([PricedPolicy(), Always(mode=UpdateMode.WARM_START)]),
    budget_j=st.floats(50.0, 2000.0),
    step_j=st.sampled_from([None, 2.0]),
)
def test_no_sequence_of_updates_spends_more_than_the_budget(
    tmp_path_factory, turns, policy, budget_j, step_j
):
    url = f"sqlite:///{tmp_path_factory.mktemp('own') / 'own.db'}"
    seconds, before = [0.0], None
    options = {
        "budget": Budget(energy_j=budget_j, num_experiences=8),
        "ledger": url,
        "meter": ConstantMeter(100.0, clock=lambda: seconds[0]),
        "policy": policy,
        "step_j": step_j,
    }

    def holds(controller):
        balance = controller.balance()
        assert balance.spent_j + balance.reserved_j <= budget_j * (1 + 1e-9)

    with contextlib.ExitStack() as stack:
        controller = stack.enter_context(open_controller("churn", **options))
        for index, (metric_new, share, end) in enumerate(turns):
            if end == "next process":
                stack.close()
                controller = stack.enter_context(open_controller("churn", **options))
            known = {"metric_before": before, "metric_new": metric_new, "n_new": 100}
            with (
                contextlib.suppress(InterruptedError),
                controller.update(f"day {index}", candidates=ALL, **known) as update,
            ):
                holds(controller)
                if update.action.mode is not UpdateMode.SKIP:
                    seconds[0] += share * update.left_j / 100.0
                    if end == "raises":
                        raise InterruptedError
                    if end != "silent":
                        update.done(metric_after=0.75, kept=end != "not kept")
                        before = before if end == "not kept" else 0.7
            holds(controller)
            assert controller.balance().reserved_j == 0.0
    assert len(rows(url, "decision")) == len(rows(url, "outcome")) == len(turns)
    assert verified(url).exit_code == 0


# What cannot be used


def test_candidates_have_the_steps_of_their_step_fraction():
    found = [(str(each.action), each.steps) for each in candidates_of({"REPLAY": 10})]
    assert found == [("REPLAY at 25%", 2), ("REPLAY at 50%", 5), ("REPLAY", 10)]
    assert candidates_of({"REPLAY": 1}, step_fractions=(0.0625,))[0].steps == 1


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        (
            {"SKIP": 10},
            "'SKIP' is no update mode that trains; use one of FINE_TUNE, REPLAY, WARM_START, "
            "FULL_RETRAIN",
        ),
        ({"warm": 10}, "'warm' is no update mode that trains"),
        ({"REPLAY": 0}, "REPLAY has 0 steps"),
        ({"REPLAY": 2.5}, "REPLAY has 2.5 steps"),
    ],
)
def test_steps_that_cannot_be_taken_say_why(steps, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        candidates_of(steps)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"budget": "40 % of full"}, "by your own code is unknown"),
        ({"budget": "5 gCO2e"}, "needs a carbon intensity"),
        ({"budget": Budget.parse("2 Wh")}, "Give the number once"),
        ({"mode": "best"}, "allowed are 'max' and 'min'"),
        ({"step_j": 0.0}, "step_j is 0.0"),
        ({"first_j": math.nan}, "first_j is nan"),
        ({"step_j": 1.0, "fixed_j": -1.0}, "fixed_j is -1.0"),
    ],
)
def test_what_cannot_be_used_leaves_no_ledger(opened, tmp_path, options, complaint):
    with pytest.raises(ConfigurationError, match=complaint), opened(**options):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_budget_of_the_name_is_refused(opened):
    with opened():
        pass
    with pytest.raises(ConfigurationError, match="churn"), opened(budget="3 Wh"):
        pass


@pytest.mark.parametrize(
    ("known", "complaint"),
    [
        ({"n_new": -1}, "n_new is -1"),
        ({"n_stored": 2.0}, "n_stored is 2.0"),
        ({"candidates": []}, "candidates are none"),
        ({"candidates": candidates_of({"REPLAY": 3})}, "there is no model yet"),
        ({"novelty": 1.0}, "'novelty' is no signal; known are metric_past"),
    ],
)
def test_what_cannot_be_decided_about_records_nothing(opened, url, known, complaint):
    with opened(step_j=2.0) as controller:
        with pytest.raises(ConfigurationError, match=complaint):
            controller.decide("a", **{"candidates": FULL, "n_new": 1, **known})
        assert controller.experiences == ()
    assert rows(url, "decision") == rows(url, "reservation") == []


def test_what_came_has_to_make_sense(opened):
    with opened(step_j=2.0, elsewhere=True) as controller:
        update = controller.decide("a", candidates=FULL, n_new=1)
        for came, complaint in (
            ({"steps": -1, "energy_j": 1.0}, "steps is -1"),
            ({"energy_j": -1.0}, "energy_j is -1.0"),
        ):
            with pytest.raises(ConfigurationError, match=complaint):
                controller.settle(update, **came)
        controller.settle(update, energy_j=1.0)


def test_a_calibration_that_cannot_be_paid_raises(opened, seconds):
    with opened(first_j=8000.0) as controller, pytest.raises(BudgetExceeded):
        controller.calibrate(lambda steps: None)


def test_the_names_are_handed_on():
    assert greentrain.open_controller is open_controller


# The example


@pytest.mark.slow
def test_the_example_goes_on_where_it_was(tmp_path):
    def run(*arguments):
        script = ROOT / "examples" / "own_training.py"
        done = prepared.python(script, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return [line.split(":")[0] for line in done.stdout.splitlines()]

    assert run("--quick") == ["0-first", "1-more", "2-again"]
    assert run() == ["3-new-classes", "4-inverted", "5-new-classes", "6-more", "7-dim"]
    assert run() == []
    url = str(tmp_path / "own.db")
    assert len(rows(url, "outcome")) == 8
    assert verified(url).exit_code == 0
