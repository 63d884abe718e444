"""One core decides, pays and records for every way in, also where they share a budget."""

from __future__ import annotations

import contextlib

import pytest

from greentrain import Budget, StreamTrainer, UpdateMode, candidates_of, open_controller
from greentrain.control import SKIP, Always, BudgetController, Reason, State, broke
from greentrain.decisions import DecisionCore, UpdateOutcome
from greentrain.errors import LedgerError
from greentrain.ledger import Ledger, verify
from tests.models import Classifier, Clock, Tick, constant_meter, experience

CANDIDATES = candidates_of({"FULL_RETRAIN": 100}, step_fractions=(1.0,))


@contextlib.contextmanager
def opened():
    """A core with an account of 1 Wh in memory, at 2 J a step."""
    ledger = Ledger.in_memory()
    controller = BudgetController(policy=Always(mode=UpdateMode.FULL_RETRAIN))
    controller.cost.calibrate(fixed_j=0.0, step_j=2.0)
    with contextlib.closing(ledger), ledger.open_run("stream", "s") as run:
        account = ledger.account(ledger.open_budget("s", Budget.parse("1 Wh")), run)
        core = DecisionCore(controller, run, metric="loss", more_is_better=False)
        yield ledger, account, core


def state(**changes):
    return State(
        **{
            "position": 0,
            "num_experiences": 4,
            "has_model": True,
            "metric_before": -0.75,
            "n_new": 10,
            **changes,
        }
    )


def test_ask_reserves_and_records_and_tell_learns_and_returns_the_row():
    with opened() as (ledger, account, core):
        seen, decision = core.decide(state(), CANDIDATES, account)
        pending = core.ask(
            "a", position=0, state=seen, decision=decision, account=account, metric_before=0.75
        )
        assert pending.reserved_j == account.balance().reserved_j == decision.cost_j.upper
        (row,) = ledger.rows("decision")
        assert (row["experience_id"], row["reservation_id"]) == ("a", pending.reservation_id)
        account.settle(pending.reservation_id, 180.0)
        outcome = UpdateOutcome(steps=90, metric_before=0.75, metric_after=0.5, energy_j=180.0)
        core.record(core.tell(pending, outcome, trained_metric=0.5))
        (past,) = core.controller.state_dict()["history"]
        assert (past["steps"], past["cost_j"]) == (90, 180.0)
        assert (past["metric_before"], past["metric_after"]) == (-0.75, -0.5)  # oriented
    # 90 steps for 180 J: the next 100 are expected to use about 200 J.
    assert core.controller.cost.predict(UpdateMode.FULL_RETRAIN, 100).mean == pytest.approx(
        200.0, rel=0.05
    )


def test_a_budget_that_another_run_used_meanwhile_becomes_a_skip():
    with opened() as (ledger, account, core):
        seen, decision = core.decide(state(), CANDIDATES, account)
        account.reserve(3500.0, "another run")
        pending = core.ask("a", position=0, state=seen, decision=decision, account=account)
        assert pending.reservation_id is None
        assert pending.action == SKIP
        assert pending.decision.reason is Reason.BUDGET_EXHAUSTED
        core.tell(pending, UpdateOutcome(steps=0, energy_j=0.0))
        assert core.controller.state_dict()["history"] == []  # nothing was weighed
        assert ledger.rows("decision")[0]["update_mode"] == "SKIP"


def test_a_decision_that_cannot_be_recorded_gives_its_joules_back(monkeypatch):
    with opened() as (_, account, core):
        seen, decision = core.decide(state(), CANDIDATES, account)

        def full(*args, **content):
            raise LedgerError("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(core._run, "append", full)
            with pytest.raises(LedgerError, match="full"):
                core.ask("a", position=0, state=seen, decision=decision, account=account)
        assert (account.balance().reserved_j, account.balance().spent_j) == (0.0, 0.0)


def test_a_shadow_decision_is_recorded_and_reserves_nothing():
    with opened() as (ledger, account, core):
        seen, decision = core.decide(state(), CANDIDATES, account)
        pending = core.ask(
            "a", position=0, state=seen, decision=decision, account=account, reserve=False
        )
        assert pending.reservation_id is None
        assert pending.action.mode is UpdateMode.FULL_RETRAIN
        assert ledger.rows("reservation") == []


def test_without_a_state_nothing_is_learned():
    with opened() as (ledger, account, core):
        pending = core.ask("a", position=0, state=None, decision=broke("none"), account=account)
        core.record(core.tell(pending, UpdateOutcome(steps=0, energy_j=0.0)))
        assert core.controller.state_dict()["history"] == []
        assert ledger.rows("decision")[0]["state"] == "null"


def test_own_training_shares_a_budget_with_a_stream_and_its_baseline_retrainings(tmp_path):
    clock, url = Clock(), f"sqlite:///{tmp_path / 'team.db'}"
    shared = {"budget": "1 kWh", "num_experiences": 20, "ledger": url, "shared_budget": "team"}
    with StreamTrainer(
        Classifier,
        name="stream",
        monitor="val_acc",
        trainer={"max_epochs": 10, "accelerator": "cpu", "callbacks": [Tick(clock)]},
        loader={"batch_size": 8},
        meter=constant_meter(clock),
        baseline_every=1,
        **shared,
    ) as trainer:
        trainer.run([experience(f"{number}", (number,), seed=number) for number in range(3)])
        assert trainer.baselines
    for expected in ((), ("monday",)):  # the second time it is restored from the ledger
        with open_controller("own", meter=constant_meter(clock), step_j=1.0, **shared) as own:
            assert own.experiences == expected
            if not expected:
                with own.update("monday", candidates=CANDIDATES, n_new=500) as update:
                    # 20 experiences less the three of the stream and none of its own so far.
                    assert update.state.num_experiences == 17
                    assert update.action.mode is UpdateMode.FULL_RETRAIN  # there is no model yet
                    clock.seconds += 1.0
                    update.done(metric_after=0.75)
    with contextlib.closing(Ledger(url, create=False)) as ledger:
        assert verify(ledger).ok
        assert {row["name"] for row in ledger.rows("budget")} == {"team"}


class Counting(Always):
    """A policy that counts the outcomes that it observes."""

    def __init__(self):
        super().__init__(mode=UpdateMode.FULL_RETRAIN)
        object.__setattr__(self, "outcomes", [])

    __slots__ = ("__dict__",)

    def observe(self, outcome):
        self.outcomes.append(outcome.steps)

    def state_dict(self):
        return {"outcomes": list(self.outcomes)}

    def load_state_dict(self, saved):
        self.outcomes.extend(saved["outcomes"])


def test_a_policy_that_observes_outcomes_is_restored_with_its_stream(tmp_path):
    clock = Clock()
    arguments = {
        "budget": "1 kWh",
        "num_experiences": 4,
        "monitor": "val_acc",
        "ledger": f"sqlite:///{tmp_path / 'greentrain.db'}",
        "trainer": {"max_epochs": 10, "accelerator": "cpu", "callbacks": [Tick(clock)]},
        "loader": {"batch_size": 8},
        "meter": constant_meter(clock),
        "state_dir": tmp_path / "state",
    }
    arrivals = [experience(f"{number}", (number,), seed=number) for number in range(3)]
    policy = Counting()
    with StreamTrainer(Classifier, policy=policy, **arguments) as trainer:
        trainer.run(arrivals[:2])
    assert policy.outcomes == [50, 100]
    again = Counting()
    with StreamTrainer(Classifier, policy=again, **arguments) as trainer:
        assert again.outcomes == [50, 100]
        trainer.run(arrivals)
    assert again.outcomes == [50, 100, 150]


def test_a_policy_observes_the_outcomes_in_the_ledger_again(tmp_path):
    url = f"sqlite:///{tmp_path / 'own.db'}"
    for expected in ([], [100]):
        policy = Counting()
        with open_controller(
            "own",
            budget="1 Wh",
            num_experiences=4,
            ledger=url,
            step_j=2.0,
            policy=policy,
            elsewhere=True,
        ) as own:
            assert policy.outcomes == expected
            with own.update(f"{len(expected)}", candidates=CANDIDATES, n_new=5) as update:
                update.done(metric_after=0.5, energy_j=200.0)
