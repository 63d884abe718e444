"""Advice beside a job of one's own: what it decides, learns, draws and leaves alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from torch.utils.data import ConcatDataset, DataLoader

from greentrain import Experience, StreamTrainer, UpdateMode
from greentrain.budget import Budget
from greentrain.control import Always, Reason, StepPlan
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.tracking import Tracker, names
from greentrain.training import EvaluationConfig
from greentrain.training.data import UpdateData
from greentrain.training.shadow import ShadowAccount, ShadowBudget, check_report, shadow_j
from tests.models import Classifier, Clock, Tick, blobs, experience
from tests.training.streaming import open_stream, rows

URL = "sqlite:///{}/greentrain.db"
STEP_J = 1.0  # 100 W for 0.01 s
LOOK_S = 0.0001


class LookClock(Clock):
    """A clock that stays the same one in a copy of a model, which a look is taken with."""

    def __deepcopy__(self, memo):
        return self


class Looked(Classifier):
    """A classifier at which looking takes its time, with a Trainer and without."""

    def __init__(self, clock: Clock, classes: int = 4) -> None:
        super().__init__(classes)
        self.clock = clock

    def validation_step(self, batch, batch_idx):
        self.clock.seconds += LOOK_S
        super().validation_step(batch, batch_idx)


def arrivals(length: int = 6) -> list[Experience]:
    return [experience(f"{number}", (number % 4,), seed=number) for number in range(length)]


def advising(folder: Path, clock: Clock, **changes) -> StreamTrainer:
    options = {"max_epochs": 10, "accelerator": "cpu", "callbacks": [Tick(clock)]}
    usual = {"budget": "1000 J", "num_experiences": 6, "trainer": options, "shadow": True}
    return open_stream(folder, lambda: Looked(clock), clock=clock, **{**usual, **changes})


def job(so_far: list[Experience], epochs: int = 10) -> tuple[LightningModule, int]:
    """What the team's own job does: retrain in full on all that there is."""
    torch.manual_seed(0)
    model = Classifier()
    data = ConcatDataset([each.train for each in so_far])
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=8, shuffle=True))
    return model, trainer.global_step


def follow(trainer: StreamTrainer, stream: list[Experience], told_j: float | None = STEP_J):
    """Ask for advice on each experience, and let the job retrain in full whatever it is."""
    pairs = []
    for number, each in enumerate(stream):
        advice = trainer.update(each)
        model, steps = job(stream[: number + 1])
        energy_j = None if told_j is None else steps * told_j
        pairs.append((advice, trainer.report_training(model, steps=steps, energy_j=energy_j)))
    return pairs


def test_a_job_gets_a_decision_and_nothing_but_probes_is_used(tmp_path):
    clock = LookClock()
    stream = arrivals()
    with advising(tmp_path, clock) as trainer:
        pairs = follow(trainer, stream)
        drawn_j = clock.seconds * 100.0
    for advice, came in pairs:
        assert advice.shadow
        assert advice.reported is None
        assert advice.steps == 0
        assert advice.metric_after == advice.metric_before  # nothing has happened yet
        assert came.decision is advice.decision
        assert came.done.mode is UpdateMode.FULL_RETRAIN
        assert came.reported.energy_j == came.reported.steps * STEP_J
    assert pairs[0][0].decision.reason is Reason.NO_MODEL
    later = [advice.decision for advice, _ in pairs[1:]]
    assert all(decision.alternatives for decision in later)
    assert pairs[-1][1].metric_after > 0.9
    purposes = {row["purpose"].rpartition(" ")[0] for row in rows(tmp_path, "reservation")}
    assert purposes == {"probe of", "evaluation after"}
    settled_j = sum(row["actual_j"] for row in rows(tmp_path, "settlement"))
    assert settled_j == pytest.approx(drawn_j)
    assert drawn_j <= 0.03 * 1000.0
    decisions, outcomes = rows(tmp_path, "decision"), rows(tmp_path, "outcome")
    assert all(row["reservation_id"] is None for row in decisions)
    assert [row["energy_j"] for row in outcomes] == [came.reported.energy_j for _, came in pairs]
    assert [row["steps"] for row in outcomes] == [50, 100, 150, 200, 250, 300]  # 10 epochs of each


def test_the_cost_of_the_job_is_learned_from_what_it_tells(tmp_path):
    with advising(tmp_path, LookClock()) as trainer:
        pairs = follow(trainer, arrivals())
    full = [one for one in pairs[-1][0].decision.alternatives if str(one.action) == "FULL_RETRAIN"]
    assert full[0].option.candidate.steps == 300
    assert full[0].option.cost_j.mean == pytest.approx(300 * STEP_J, rel=0.05)


def test_what_was_decided_paces_and_what_the_job_used_does_not(tmp_path):
    with advising(tmp_path, LookClock(), policy=Always(mode=UpdateMode.WARM_START)) as trainer:
        pairs = follow(trainer, arrivals(), told_j=STEP_J)
        last = trainer.update(experience("last", (1,), seed=9))
    # On paper the first training drew the 50 J that the job's did, and each later advice what was
    # predicted of it; what the other full retrainings drew, 1,000 J in all, is on nobody's account.
    paper_j = 50.0 + sum(advice.decision.cost_j.mean for advice, _ in pairs[1:])
    looks_j = [row["actual_j"] for row in rows(tmp_path, "settlement")]
    looking_j = rows(tmp_path, "reservation")[-1]["amount_j"]  # the last look was not over yet
    assert last.left_j == pytest.approx(1000.0 - paper_j - sum(looks_j))
    state = json.loads(rows(tmp_path, "decision")[-1]["state"])
    left_j = 1000.0 - paper_j - sum(looks_j[:-1]) - looking_j
    assert state["left_j"] == pytest.approx(left_j)
    assert last.update_mode is UpdateMode.WARM_START


def test_a_shadow_budget_that_is_used_up_skips(tmp_path):
    with advising(tmp_path, LookClock(), budget="150 J") as trainer:
        pairs = follow(trainer, arrivals(), told_j=STEP_J)
    advised = sum(
        shadow_j(advice.decision.reason, advice.decision.cost_j.mean, came.reported.energy_j)
        for advice, came in pairs
    )
    assert advised <= 150.0
    assert any(advice.update_mode is UpdateMode.SKIP for advice, _ in pairs)


def test_the_paper_is_read_from_the_ledger_again(tmp_path):
    stream = arrivals()
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    for folder in (whole, pieces):
        folder.mkdir()
    with advising(whole, LookClock(), state_dir=whole / "state") as trainer:
        expected = follow(trainer, stream)
    found = []
    for number, each in enumerate(stream):
        with advising(pieces, LookClock(), state_dir=pieces / "state") as trainer:
            assert list(trainer.known) == [str(other) for other in range(number)]
            advice = trainer.update(each)
            model, steps = job(stream[: number + 1])
            found.append(
                (advice, trainer.report_training(model, steps=steps, energy_j=steps * STEP_J))
            )
    for (mine, came), (theirs, other) in zip(found, expected, strict=True):
        assert mine.decision.action == theirs.decision.action
        assert mine.left_j == pytest.approx(theirs.left_j)
        assert came.metric_after == pytest.approx(other.metric_after)


def test_what_nobody_reported_waits_as_pending_data(tmp_path):
    stream = arrivals(3)
    with advising(tmp_path, LookClock()) as trainer:
        trainer.update(stream[0])
        model, steps = job(stream[:1])
        trainer.report_training(model, steps=steps, energy_j=50.0)
        trainer.update(stream[1])  # the job leaves this one alone
        trainer.update(stream[2])
        assert trainer.results[1].done.mode is UpdateMode.SKIP
        with pytest.raises(ConfigurationError, match="already had an experience '1'"):
            trainer.update(stream[1])
    decisions, outcomes = rows(tmp_path, "decision"), rows(tmp_path, "outcome")
    assert [row["experience_id"] for row in outcomes] == ["0", "1", "2"]
    assert [row["energy_j"] for row in outcomes] == [50.0, 0.0, 0.0]
    assert json.loads(decisions[2]["state"])["n_pending"] == 40


def test_a_process_that_dies_before_the_report_has_not_had_the_experience(tmp_path):
    stream = arrivals(2)
    changes = {"state_dir": tmp_path / "state"}
    dying = pytest.raises(RuntimeError, match="the job")
    with dying, advising(tmp_path, LookClock(), **changes) as trainer:
        trainer.update(stream[0])
        raise RuntimeError("the job died")
    with advising(tmp_path, LookClock(), **changes) as again:
        assert list(again.known) == []
        with pytest.raises(ConfigurationError, match="no decision is pending"):
            again.report_training(Classifier())
        assert again.update(stream[0]).position == 0
        model, steps = job(stream[:1])
        again.report_training(model, steps=steps, energy_j=50.0)
    with advising(tmp_path, LookClock(), **changes) as third:
        assert list(third.known) == ["0"]
        # What was begun twice is on paper once.
        assert third.update(stream[1]).left_j > 900.0


def test_without_any_reported_energy_there_is_no_decision_and_it_says_so(tmp_path):
    with advising(tmp_path, LookClock()) as trainer:
        pairs = follow(trainer, arrivals(3), told_j=None)
    last = pairs[-1][0].decision
    assert (last.action.mode, last.reason) == (UpdateMode.SKIP, Reason.NOT_FEASIBLE)
    assert "until the energy of one training is reported" in last.sentence
    assert [row["energy_j"] for row in rows(tmp_path, "outcome")] == [None] * 3
    assert pairs[-1][1].metric_after is not None


def test_the_model_of_the_job_becomes_the_current_one(tmp_path):
    with advising(tmp_path, LookClock()) as trainer:
        trainer.update(arrivals(1)[0])
        model, _ = job(arrivals(1))
        trainer.report_training(model, energy_j=50.0)
        for mine, theirs in zip(trainer.model.parameters(), model.parameters(), strict=True):
            assert torch.equal(mine, theirs)
        assert trainer.model is not model


@pytest.mark.parametrize(
    ("told", "named"),
    [
        ({"update_mode": "SKIP"}, "allowed are FINE_TUNE, REPLAY, WARM_START, FULL_RETRAIN"),
        ({"update_mode": "full"}, "update_mode is 'full'"),
        ({"steps": 0}, "steps is 0"),
        ({"steps": True}, "steps is True"),
        ({"energy_j": -1.0}, "energy_j is -1.0"),
        ({"energy_j": float("nan")}, "energy_j is nan"),
    ],
)
def test_what_cannot_be_reported_is_refused_and_can_be_reported_again(tmp_path, told, named):
    with advising(tmp_path, LookClock()) as trainer:
        trainer.update(arrivals(1)[0])
        with pytest.raises(ConfigurationError, match=named):
            trainer.report_training(Classifier(), **told)
        with pytest.raises(ConfigurationError, match=r"'layer\.weight' is \(7, 2\) and has to be"):
            trainer.report_training(Classifier(classes=7))
        with pytest.raises(ConfigurationError, match="it takes the LightningModule"):
            trainer.report_training("a path")
        assert trainer.report_training(Classifier(), energy_j=50.0).reported.steps == 50
        with pytest.raises(ConfigurationError, match="no decision is pending"):
            trainer.report_training(Classifier())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"baseline_every": 2}, "shadow is True and baseline_every is 2"),
        (
            {"evaluation": EvaluationConfig(eval_each_experience=True)},
            "shadow is True and eval_each_experience is True",
        ),
        ({"shared_budget": "all"}, "shadow is True and shared_budget is 'all'"),
        ({"budget": "40 % of full"}, "Shadow mode trains nothing"),
    ],
)
def test_what_needs_trainings_of_its_own_is_refused(tmp_path, changes, named):
    with pytest.raises(ConfigurationError, match=named):
        advising(tmp_path, LookClock(), **changes)


def test_only_shadow_decisions_wait_for_a_report(tmp_path):
    with advising(tmp_path, LookClock(), shadow=False) as trainer:
        trainer.update(arrivals(1)[0])
        with pytest.raises(ConfigurationError, match="no decision is pending"):
            trainer.report_training(Classifier())


def test_a_report_claims_nothing_of_what_was_only_decided(tmp_path):
    with advising(tmp_path, LookClock()) as trainer:
        follow(trainer, arrivals())
    ledger = Ledger(URL.format(tmp_path), create=False)
    report = build(ledger)
    ledger.close()
    assert report["avoided"]["energy"]["avoided_j"] is None
    assert all(one["shadow"] for one in report["experiences"])
    assert all(one["energy_j"] is None for one in report["experiences"])
    assert report["experiences"][0]["reported_energy_j"] == 50.0
    assert sum(report["summary"]["update_modes"].values()) == 0


def test_advice_is_marked_as_such_for_the_tracker(tmp_path):
    told = Noted()
    with advising(tmp_path, LookClock(), tracking_uri=told) as trainer:
        (advice, _), *_ = follow(trainer, arrivals(2))
    assert told.started[names.TAG_SHADOW] == "true"
    assert [name for name, _ in told.skipped] == ["0", "1"]
    assert told.skipped[0][1]["shadow"] is True
    metrics, tags, decision = told.updates[0]
    assert metrics[names.ENERGY_UPDATE] == pytest.approx(50.0 / 3600)
    assert tags[names.TAG_SHADOW] == str(advice.decision.action)
    assert tags[names.TAG_UPDATE_MODE] == "FULL_RETRAIN"
    assert decision["done"] == "FULL_RETRAIN"
    # Of the second full retraining it was said beforehand what it would draw: 100 steps at 1 J.
    assert told.updates[1][0][names.ENERGY_PREDICTED] == pytest.approx(100.0 / 3600, rel=0.2)


def test_a_renewed_budget_forgets_the_paper_of_earlier_periods():
    from datetime import UTC, datetime

    paper = ShadowBudget(Budget.parse("100 J / month"))
    paper.add(datetime(2026, 1, 31, tzinfo=UTC), 80.0)
    paper.add(datetime(2026, 2, 1, tzinfo=UTC), 30.0)
    assert paper.used_j(datetime(2026, 1, 31, 12, tzinfo=UTC)) == 80.0
    assert paper.used_j(datetime(2026, 2, 28, tzinfo=UTC)) == 30.0


def test_a_shadow_account_takes_off_and_pays_for_probes(tmp_path):
    ledger = Ledger(URL.format(tmp_path))
    with ledger.open_run("stream", "x", environment={}) as run:
        real = ledger.account(ledger.open_budget("x", Budget.parse("100 J")), run)
        account = ShadowAccount(real, 70.0)
        assert account.balance().left_j == pytest.approx(30.0)
        assert account.settle(account.reserve(40.0, "look"), 10.0) == 0.0
        assert account.balance().left_j == pytest.approx(20.0)
        assert real.balance().left_j == pytest.approx(90.0)
    ledger.close()


def test_steps_are_the_usual_ones_of_the_mode_unless_given():
    plan = StepPlan(epochs=10, batch_size=8, reuse_fraction=0.2)
    samples = blobs((0,), 80)
    data = UpdateData(new=samples, stored=samples, held=samples)
    assert check_report(plan, data, "FULL_RETRAIN", None, None).steps == 100  # 10 x 80 / 8
    half = check_report(plan, data, "FULL_RETRAIN", 50, None)
    assert (half.steps, half.action.step_fraction) == (50, 0.5)
    assert check_report(plan, data, "FULL_RETRAIN", 500, None).action.step_fraction == 1.0


class Noted(Tracker):
    """A tracker that notes what it is told."""

    def __init__(self) -> None:
        self.skipped, self.updates, self.logged, self.started = [], [], [], {}

    def start(self, stream, params, tags):
        self.started = dict(tags)

    def end_update(self, metrics, tags, decision, model=None):
        self.updates.append((dict(metrics), dict(tags), dict(decision)))

    def skip(self, experience, position, decision):
        self.skipped.append((experience, dict(decision)))

    def log(self, metrics, step, note, tags):
        self.logged.append((dict(metrics), step, note))

    def state_dict(self):
        return {}
