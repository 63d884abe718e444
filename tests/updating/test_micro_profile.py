"""Short trials of two update modes: when they are made, what they draw, and what they turn."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import TensorDataset

from greentrain import Experience, StreamTrainer
from greentrain.budget import Balance
from greentrain.control import (
    SKIP,
    Action,
    BudgetController,
    Candidate,
    CostModel,
    Decision,
    Estimate,
    Option,
    PricedPolicy,
    Reason,
    State,
    UpdateMode,
    decided,
    options_of,
)
from greentrain.control import utility as utility_module
from greentrain.control.decision import unweighed
from greentrain.energy import WindowRecorder
from greentrain.errors import BudgetExceeded
from greentrain.ledger import Ledger, verify
from greentrain.updating import micro_profile
from greentrain.updating.micro_profile import combined, part_of, planned, reconsidered, rivals
from greentrain.updating.probe import Look
from greentrain.updating.progress import Progress
from greentrain.updating.reading import together
from greentrain.updating.sampling import train_loader
from greentrain.updating.trial import MeanPoints
from tests.models import Classifier, Clock, Tick, blobs, constant_meter
from tests.updating.fitting import BATCH, NEW, VAL, train, updater
from tests.updating.test_stream_trainer import open_ledger

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
WARM = Action(mode=UpdateMode.WARM_START)
HALF = Action(mode=UpdateMode.WARM_START, effort=0.5)
REPLAY = Action(mode=UpdateMode.REPLAY)
NOTHING = Estimate(mean=0.0, sd=0.0, upper=0.0)


def option(action, steps, gain, sd=0.05):
    """An option at 1 J a step and 1 J besides, as the cost model below has it."""
    cost_j = 1.0 + steps if steps else 0.0
    return Option(
        candidate=Candidate(action=action, steps=steps),
        cost_j=Estimate(mean=cost_j, sd=0.0, upper=1.1 * cost_j),
        gain=Estimate(mean=gain, sd=sd, upper=gain + 2 * sd),
    )


OPTIONS = [
    Option(candidate=Candidate(action=SKIP, steps=0), cost_j=NOTHING, gain=NOTHING),
    option(FULL, 3000, 0.30),
    option(WARM, 500, 0.25),
    option(HALF, 250, 0.20),
    option(REPLAY, 200, 0.10),
]


def decision_for(action, options=OPTIONS, price_per_j=0.0) -> Decision:
    chosen = next(each for each in options if each.action == action)
    return decided(
        chosen,
        Reason.BEST_NET_GAIN,
        "stub",
        price_per_j=price_per_j,
        alternatives=unweighed(options),
    )


def known(left_j=10_000.0) -> State:
    return State(
        position=1,
        horizon=3,
        has_model=True,
        metric_before=0.5,
        metric_new=0.5,
        metric_last=0.9,
        metric_best=0.9,
        n_new=40,
        n_stored=40,
        left_j=left_j,
    )


def cost_model() -> CostModel:
    cost = CostModel()
    cost.calibrate(fixed_j=1.0, step_j=1.0)
    return cost


class Sampling:
    """Stands in for a probe that knows what a sample draws."""

    def __init__(self, sample_j: float) -> None:
        self.sample_j = sample_j

    def look_j(self, samples: int) -> float:
        return samples * self.sample_j


class Paper:
    """An account in memory, in which only one thing may be open at a time."""

    def __init__(self, left_j: float) -> None:
        self.left_j = left_j
        self.reserved_j = self.actual_j = 0.0

    def reserve(self, upper_bound_j: float, purpose: str) -> str:
        if upper_bound_j > self.left_j:
            raise BudgetExceeded(purpose, asked_j=upper_bound_j, left_j=self.left_j)
        self.reserved_j = upper_bound_j
        return purpose

    def settle(self, reservation: str, actual_j: float) -> float:
        self.actual_j = actual_j
        return max(0.0, actual_j - self.reserved_j)


def hard(classes, count: int, seed: int) -> TensorDataset:
    """Samples of classes that overlap: no model is right about all of them."""
    samples, labels = blobs(classes, count, seed).tensors
    random = torch.Generator().manual_seed(seed)
    return TensorDataset(samples + 0.6 * torch.randn(samples.shape, generator=random), labels)


class Turned:
    """A turn with a trained model, and what a trial of it draws on a fake clock at 1 W."""

    def __init__(self, *, step_j=1.0, sample_j=0.05, rising=1.0, paid_j=10_000.0) -> None:
        clock, each_j = Clock(), [sample_j]

        class Looking(Classifier):
            def validation_step(self, batch, batch_idx):
                clock.seconds += each_j[0] * len(batch[1])
                each_j[0] *= rising
                super().validation_step(batch, batch_idx)

        self.updater = updater(Looking, callbacks=[Tick(clock, step_j)])
        first, _ = train(self.updater, steps=20)
        self.updater.keep(first, FULL)
        self.progress = Progress(more_is_better=True)
        self.progress.take(0.9)
        meter = constant_meter(clock, 1.0)
        meter.start()
        self.windows = []
        self.account = Paper(paid_j)
        held = hard(range(4), 16, seed=9)
        before = self.updater.measured([held])
        look = Look(held=(held,), past=None, measured=together(before), new=before[0])
        self.payments = []
        self.turn = SimpleNamespace(
            account=self.account,
            batch=BATCH,
            experience=Experience("1", NEW, VAL),
            look=look,
            paid=self.payments.append,
            position=1,
            session=SimpleNamespace(recorder=WindowRecorder(meter, self.windows.append)),
        )
        self.controller = BudgetController(cost=cost_model())

    def reconsider(self, decision, state=None, *, sample_j=0.05):
        return reconsidered(
            self.turn,
            known() if state is None else state,
            decision,
            updater=self.updater,
            controller=self.controller,
            probe=Sampling(sample_j),
            progress=self.progress,
        )


def test_the_rival_is_the_best_affordable_option_of_another_mode():
    first, second = rivals(known(), decision_for(FULL))
    assert (first.action, second.action) == (FULL, WARM)
    first, second = rivals(known(), decision_for(WARM))  # and not its own half effort
    assert (first.action, second.action) == (WARM, FULL)
    # At 0.001 a joule full retraining nets 0.30 - 3.001, and replay 0.10 - 0.201.
    assert rivals(known(), decision_for(WARM, price_per_j=0.001))[1].action == REPLAY
    # 551.1 J may be needed for a warm start.
    assert rivals(known(left_j=551.0), decision_for(FULL))[1].action == HALF


@pytest.mark.parametrize(
    ("state", "decision"),
    [
        (known(), decision_for(SKIP)),
        (known(), decision_for(FULL, price_per_j=None)),  # no gains were weighed
        (known(), decision_for(WARM, [*OPTIONS[:1], OPTIONS[2], OPTIONS[3]])),
        (known(left_j=None), decision_for(FULL)),
        (known(left_j=200.0), decision_for(FULL)),
    ],
)
def test_nobody_is_a_rival_where_nothing_is_weighed_or_can_be_had(state, decision):
    assert rivals(state, decision) is None


def look_at(samples: int) -> Look:
    one = together([])
    return Look(held=(blobs((0,), samples),), past=None, measured=one, new=one)


def plan_for(action=FULL, *, look=None, state=None, options=OPTIONS, sample_j=0.05):
    decision = decision_for(action, options)
    return planned(
        known() if state is None else state,
        decision,
        look=look_at(200) if look is None else look,
        cost=cost_model(),
        probe=Sampling(sample_j),
    )


def test_a_plan_by_hand():
    plan = plan_for()
    assert [each.action for each in plan.options] == [FULL, WARM]
    assert plan.steps == (42, 20)  # 1.4 % of 3000; 1.4 % of 500 are fewer than 20
    assert plan.reserved_j == pytest.approx(125.0)  # 5 % of 3001 J - 501 J
    # The steps take 43 J and 21 J of that; half of the other 61 J, a ninth for each reading, is
    # 3.39 J, for which 67 samples can be read.
    assert plan.reading_j == pytest.approx(3.35)
    assert plan.expected_j == pytest.approx((43.0 + 4 * 3.35, 21.0 + 4 * 3.35))
    assert [len(each) for each in plan.held] == [67]
    assert [len(each) for each in plan_for(sample_j=0.0).held] == [200]


@pytest.mark.parametrize(
    "changes",
    [
        {"look": look_at(40)},  # too few samples to say anything
        {"sample_j": 0.1},  # 33 samples could be read
        {"options": [*OPTIONS[:1], option(FULL, 1200, 0.30), *OPTIONS[2:]]},  # 35 J for 43 J
        {"options": [*OPTIONS[:1], option(FULL, 3000, 0.60), *OPTIONS[2:]]},  # 0.35 apart, no doubt
        {"state": known(left_j=3425.0)},  # 3301.1 J for the update, and 125 J more
    ],
    ids=["few", "dear to read", "little at stake", "no doubt", "cannot be paid"],
)
def test_what_is_not_worth_it_is_not_planned(changes):
    assert plan_for(**changes) is None


def test_nothing_is_planned_without_a_look():
    found = planned(known(), decision_for(FULL), look=None, cost=cost_model(), probe=Sampling(0.05))
    assert found is None


@given(costs=st.tuples(*[st.integers(1, 10**6)] * 2), sample_j=st.floats(0, 10))
def test_a_plan_fits_into_its_reservation_and_that_into_what_is_at_stake(costs, sample_j):
    options = [OPTIONS[0], option(FULL, costs[0], 0.3), option(WARM, costs[1], 0.25)]
    plan = plan_for(options=options, state=known(left_j=1e7), sample_j=sample_j)
    if plan is not None:
        assert sum(plan.expected_j) + plan.reading_j < plan.reserved_j
        assert plan.reserved_j == pytest.approx(0.05 * abs(costs[0] - costs[1]))


def test_a_trial_has_its_part_of_the_data_and_replay_keeps_its_halves():
    part = part_of(BATCH, 8, seed=3)
    assert (part.n_new, part.n_stored, part.n_held) == (8, 8, 8)  # 7 % of 40 are less than a batch
    assert part.new.indices == part_of(BATCH, 8, seed=3).new.indices
    assert part.new.indices != part_of(BATCH, 8, seed=4).new.indices
    larger = part_of(BATCH, 1, seed=3)
    assert (larger.n_new, larger.n_stored, larger.n_held) == (3, 3, 6)
    for _, labels in train_loader(REPLAY, part, loader={"batch_size": 8}, seed=0):
        assert sum(label in (2, 3) for label in labels.tolist()) == 4  # the classes of the stored


def test_points_are_the_mean_weights_of_each_quarter():
    class Weights(Classifier):
        def on_train_batch_end(self, *args):
            seen.append(self.layer.weight.detach().clone())

    seen: list[torch.Tensor] = []
    points = MeanPoints(21)
    train(updater(Weights), steps=21, callbacks=[points])
    edges = [0, 5, 10, 16, 21]  # 5.25, 10.5 and 15.75, rounded
    assert [step for step, _ in points.points] == edges[1:]
    # The hook of the module comes after those of callbacks, in the same batch.
    for place, (_, state) in enumerate(points.points):
        mean = torch.stack(seen[edges[place] : edges[place + 1]]).mean(0)
        assert torch.allclose(state["layer.weight"], mean, atol=1e-6)


estimates = st.builds(
    lambda mean, sd: Estimate(mean=mean, sd=sd, upper=mean + 2 * sd),
    st.floats(-1, 1),
    st.floats(1e-4, 1),
)


@given(estimates, estimates)
def test_together_two_estimates_lie_between_and_are_surer(first, second):
    both = combined(first, second)
    low, high = sorted((first.mean, second.mean))
    assert low - 1e-9 <= both.mean <= high + 1e-9
    assert both.sd < min(first.sd, second.sd)
    again = combined(second, first)
    assert (again.mean, again.sd) == pytest.approx((both.mean, both.sd))


def test_to_reconsider_with_nothing_new_is_to_decide_the_same():
    control = BudgetController(cost=cost_model())
    balance = Balance(total_j=10_000.0, spent_j=0.0, reserved_j=0.0)
    first = PricedPolicy().decide(known(), OPTIONS, balance)
    assert control.reconsider(known(), first, {}) == first
    better = Estimate(mean=0.9, sd=0.01, upper=0.92)
    second = control.reconsider(known(), first, {OPTIONS[4].candidate: better})
    assert first.action != REPLAY
    assert (second.action, second.gain) == (REPLAY, better)


def test_trials_leave_the_model_and_the_random_numbers_as_they_are(caplog):
    turned = Turned()
    weights = [each.detach().clone() for each in turned.updater.model.parameters()]
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with caplog.at_level(logging.INFO, logger=micro_profile.__name__):
        state, again = turned.reconsider(decision_for(FULL))
    assert torch.equal(torch.rand(3), expected)
    for before, after in zip(weights, turned.updater.model.parameters(), strict=True):
        assert torch.equal(before, after)
    (payment,) = turned.payments
    # 42 and 20 steps of 1 J, and 9 readings of all 64 samples or fewer, at 0.05 J.
    assert payment.actual_j == pytest.approx(62.0 + 9 * 64 * 0.05)
    assert state.left_j == pytest.approx(10_000.0 - payment.actual_j)
    assert {window.phase for window in turned.windows} == {"profile"}
    gains = {each.action: each.option.gain for each in again.alternatives}
    for before in OPTIONS[1:4]:  # all efforts of the two update modes know better now
        assert gains[before.action].sd < before.gain.sd
    assert gains[REPLAY] == OPTIONS[4].gain
    assert len(caplog.records) == 1
    assert "trials of FULL_RETRAIN (+0.300 expected" in caplog.text


@settings(max_examples=15)
@given(
    step_j=st.floats(0.1, 5.0),
    sample_j=st.floats(0.0, 0.2),
    rising=st.sampled_from([1.0, 1.04, 1.08]),
    expected_j=st.floats(0.0, 0.05),
)
@example(step_j=1.0, sample_j=0.05, rising=1.08, expected_j=0.0)
def test_trials_never_draw_more_than_is_reserved(step_j, sample_j, rising, expected_j):
    """Steps and readings may be far dearer than expected; a reading up to 1.08**8 of the last."""
    turned = Turned(step_j=step_j, sample_j=sample_j, rising=rising)
    state, again = turned.reconsider(decision_for(FULL), sample_j=expected_j)
    assert turned.account.reserved_j == pytest.approx(125.0)
    assert 0 < turned.account.actual_j <= turned.account.reserved_j
    assert state.left_j == pytest.approx(10_000.0 - turned.account.actual_j)
    if step_j > 2.5:  # 43 steps are not to be had
        assert {each.option for each in again.alternatives} == set(OPTIONS)


def test_joules_that_another_run_took_first_leave_the_decision():
    turned, decision = Turned(paid_j=124.0), decision_for(FULL)
    assert turned.reconsider(decision) == (known(), decision)
    assert turned.windows == []


def test_a_metric_without_a_known_best_value_has_no_curve():
    turned, decision = Turned(), decision_for(FULL)
    turned.progress.take(1.5)
    assert turned.reconsider(decision) == (known(), decision)


def test_a_metric_that_is_no_number_tells_nothing():
    turned, decision = Turned(), decision_for(FULL)
    turned.progress.oriented = lambda metric: None
    state, again = turned.reconsider(decision)
    assert state.left_j < 10_000.0
    assert {each.option for each in again.alternatives} == set(OPTIONS)


# In a stream: at 1 J a step, classes that overlap, one more of them each time.

PRIORS = {
    UpdateMode.FULL_RETRAIN: (0.90, 0.2, 0.1, 0.0, -0.3),  # it seems best, at full effort
    UpdateMode.WARM_START: (0.85, 0.0, 0.0, -0.05, 0.0),
    UpdateMode.REPLAY: (0.2, 0.0, 0.0, -0.05, 0.0),
}


def overlapping(number: int) -> Experience:
    classes = [(0, 1), (2,), (3,)][number]
    return Experience(
        str(number), hard(classes, 40, seed=number), hard(classes, 40, seed=number + 100)
    )


def stream(folder: Path, *callbacks, max_epochs: int = 100) -> StreamTrainer:
    clock = Clock()

    class Looking(Classifier):
        def validation_step(self, batch, batch_idx):
            clock.seconds += 0.01 * len(batch[1])
            super().validation_step(batch, batch_idx)

    return StreamTrainer(
        Looking,
        budget="9000 J",
        horizon=6,
        monitor="val_acc",
        ledger=f"sqlite:///{folder / 'greentrain.db'}",
        trainer={
            "max_epochs": max_epochs,
            "accelerator": "cpu",
            "callbacks": [Tick(clock, 1.0), *callbacks],
        },
        loader={"batch_size": 8},
        meter=constant_meter(clock, 1.0),
        state=folder / "state",
    )


def last_state(folder: Path) -> State:
    """Return the state of the last decision."""
    ledger = open_ledger(folder)
    recorded = ledger.rows("decision")[-1]["state"]
    ledger.close()
    return State.from_dict(json.loads(recorded))


@pytest.mark.slow
def test_a_trial_turns_a_decision_for_the_dear_option_that_is_no_better(tmp_path, monkeypatch):
    monkeypatch.setattr(utility_module, "PRIOR_WEIGHTS", PRIORS)
    found = {}
    for name in ("tried", "not tried"):
        if name == "not tried":
            monkeypatch.setattr(micro_profile, "planned", lambda *args, **kwargs: None)
        (tmp_path / name).mkdir()
        with stream(tmp_path / name) as streaming:
            found[name] = [streaming.update(overlapping(number)) for number in range(2)][1]
    tried, plain = found["tried"], found["not tried"]
    assert plain.update_mode is UpdateMode.FULL_RETRAIN
    assert tried.update_mode is UpdateMode.WARM_START
    assert tried.metric_after > plain.metric_after - 0.05  # and it was right
    assert tried.energy_j < 0.5 * plain.energy_j  # the trial included
    ledger = open_ledger(tmp_path / "tried")
    windows, decisions = ledger.rows("window"), ledger.rows("decision")
    reservations = {row["purpose"]: row for row in ledger.rows("reservation")}
    settled = {row["reservation_id"]: row["actual_j"] for row in ledger.rows("settlement")}
    assert verify(ledger).ok
    ledger.close()
    (window,) = [row for row in windows if row["phase"] == "profile"]
    paid = reservations["profile of 1"]
    assert window["reservation_id"] == paid["reservation_id"]
    assert 40.0 < settled[paid["reservation_id"]] <= paid["amount_j"]
    looked_j = settled[reservations["look at 1"]["reservation_id"]]
    beside_j = tried.energy_j - tried.update_j
    assert beside_j == pytest.approx(looked_j + settled[paid["reservation_id"]])
    # What is recorded says all that the second decision was taken on.
    recorded = last_state(tmp_path / "tried")
    balance = Balance(total_j=recorded.left_j, spent_j=0.0, reserved_j=0.0)
    options = options_of(json.loads(decisions[1]["alternatives"]))
    again = PricedPolicy().decide(recorded, options, balance)
    assert (again.action, again.sentence) == (tried.decision.action, decisions[1]["sentence"])


def test_a_small_stream_tries_nothing(tmp_path):
    with stream(tmp_path, max_epochs=10) as streaming:
        results = [streaming.update(overlapping(number)) for number in range(3)]
    ledger = open_ledger(tmp_path)
    phases = {row["phase"] for row in ledger.rows("window")}
    ledger.close()
    assert [result.decision.reason for result in results[1:]] == [Reason.BEST_NET_GAIN] * 2
    assert rivals(last_state(tmp_path), results[2].decision) is not None  # there was a choice
    assert "probe" in phases
    assert "profile" not in phases


class Killer(MeanPoints):
    """Ends the process in the second quarter of a trial, as nothing but a kill does."""

    def on_train_batch_end(self, trainer, *args, **kwargs):
        if trainer.max_steps == 21 and trainer.global_step == 8:  # 1.4 % of 1500 steps
            os.kill(os.getpid(), signal.SIGKILL)


def _be_killed(folder: str) -> None:
    torch.set_num_threads(1)
    utility_module.PRIOR_WEIGHTS = PRIORS
    with stream(Path(folder), Killer(21)) as streaming:
        for number in range(2):
            streaming.update(overlapping(number))


@pytest.mark.slow
def test_what_is_killed_in_mid_trial_begins_anew_and_its_joules_stay_spent(tmp_path, monkeypatch):
    monkeypatch.setattr(utility_module, "PRIOR_WEIGHTS", PRIORS)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "mlflow"])
    worker = context.Process(target=_be_killed, args=(str(tmp_path),))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    ledger = open_ledger(tmp_path)
    assert verify(ledger).failures == ()
    assert [row["experience_id"] for row in ledger.rows("decision")] == ["0"]
    held = [row for row in ledger.rows("reservation") if row["purpose"] == "profile of 1"]
    balance = ledger.balance(ledger.rows("budget")[0]["budget_id"])
    ledger.close()
    (killed,) = held
    assert balance.reserved_j == pytest.approx(killed["amount_j"])
    with stream(tmp_path) as streaming:
        results = streaming.run(overlapping(number) for number in range(2))
    assert [result.experience_id for result in results] == ["1"]
    ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)
    purposes = [row["purpose"] for row in ledger.rows("reservation")]
    balance = ledger.balance(ledger.rows("budget")[0]["budget_id"])
    assert purposes.count("profile of 1") == 2  # tried anew, under a reservation of its own
    assert balance.reserved_j == pytest.approx(killed["amount_j"])
    assert balance.within
    assert verify(ledger).failures == ()
    ledger.close()
