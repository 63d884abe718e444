"""Controls: what they measure, what they draw, and what becomes of their models."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from greentrain import Experience, StreamTrainer, UpdateMode
from greentrain.budget import Budget
from greentrain.control import Always, Reason
from greentrain.decisions import DecisionCore
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.report import build, render_html
from greentrain.report.write import FORMATS
from greentrain.tracking import names
from greentrain.training import EvaluationConfig
from greentrain.training import baseline_runs as control_runs
from greentrain.training.run_context import RunContext
from tests.models import Clock, Tick, experience
from tests.training.streaming import open_stream, rows
from tests.training.test_shadow import LookClock, Looked, Noted

URL = "sqlite:///{}/greentrain.db"
SKIPPING = Always(mode=UpdateMode.SKIP)
REPLAYING = Always(mode=UpdateMode.REPLAY)


def arrivals(length: int = 7) -> list[Experience]:
    return [experience(f"{number}", (number % 4,), seed=number) for number in range(length)]


def streaming(folder: Path, clock: Clock, **changes) -> StreamTrainer:
    options = {"max_epochs": 10, "accelerator": "cpu", "callbacks": [Tick(clock)]}
    usual = {"num_experiences": 7, "trainer": options, "baseline_every": 3}
    return open_stream(folder, lambda: Looked(clock), clock=clock, **{**usual, **changes})


def weights(trainer: StreamTrainer) -> torch.Tensor:
    return torch.cat([each.detach().flatten() for each in trainer.model.parameters()])


def report_of(folder: Path) -> dict:
    ledger = Ledger(URL.format(folder), create=False)
    try:
        return build(ledger)
    finally:
        ledger.close()


def test_every_third_experience_but_the_first_has_a_control(tmp_path):
    clock = LookClock()
    with streaming(tmp_path, clock, policy=REPLAYING) as trainer:
        results = trainer.run(arrivals())
    assert [each.experience_id for each in trainer.baselines] == ["3", "6"]
    assert len(results) == len(trainer.results) == 7
    decided = [row for row in rows(tmp_path, "decision") if row["reason"] == "BASELINE"]
    assert [row["position"] for row in decided] == [3, 6]
    assert {(row["update_mode"], row["step_fraction"]) for row in decided} == {
        ("FULL_RETRAIN", 1.0)
    }
    reserved = {row["reservation_id"]: row for row in rows(tmp_path, "reservation")}
    windows = rows(tmp_path, "window")
    for control, row in zip(trainer.baselines, decided, strict=True):
        # All that came so far, in 10 epochs of batches of 8: 10 * 5 * 4 and 10 * 5 * 7 steps.
        assert control.steps == control.decision.steps == 50 * (row["position"] + 1)
        assert control.decision.reason is Reason.BASELINE
        of_it = [each for each in windows if each["reservation_id"] == row["reservation_id"]]
        assert [each["phase"] for each in of_it] == ["probe", "baseline"]
        assert of_it[1]["energy_j"] == pytest.approx(control.steps * 1.0, rel=0.02)
        assert (
            reserved[row["reservation_id"]]["purpose"]
            == f"baseline retraining at {control.experience_id}"
        )
        assert sum(each["energy_j"] for each in of_it) == pytest.approx(control.energy_j)
    settled_j = sum(row["actual_j"] for row in rows(tmp_path, "settlement"))
    assert settled_j == pytest.approx(clock.seconds * 100.0)


def test_a_control_that_is_better_becomes_the_model_and_nothing_waits(tmp_path):
    with streaming(tmp_path, LookClock(), policy=SKIPPING) as trainer:
        results = trainer.run(arrivals(4))
        (control,) = trainer.baselines
        assert [each.update_mode for each in results[1:]] == [UpdateMode.SKIP] * 3
        assert control.kept
        assert control.metric_after > control.metric_before + 0.5  # four classes, not one
        after = trainer.update(arrivals(5)[4])
    assert after.metric_before > 0.5
    decisions = rows(tmp_path, "decision")
    outcomes = rows(tmp_path, "outcome")
    assert outcomes[-2]["kept"] is True
    assert outcomes[-2]["reservation_id"] == decisions[-2]["reservation_id"]
    state = json.loads(decisions[-1]["state"])
    assert (state["n_pending"], state["warm_starts"]) == (0, 0)


def test_a_control_that_is_no_better_is_thrown_away(tmp_path):
    with streaming(tmp_path, LookClock(), baseline_every=None) as without:
        without.run(arrivals(3))
    folder = tmp_path / "with"
    folder.mkdir()
    full = Always(mode=UpdateMode.FULL_RETRAIN)
    with streaming(folder, LookClock(), baseline_every=1, policy=full) as trainer:
        trainer.run(arrivals(1))
        before = trainer.update(arrivals(2)[1])
        expected = weights(trainer).clone()
        assert not trainer.baselines[0].kept
        assert torch.equal(weights(trainer), expected)
        assert trainer.baselines[0].metric_before == pytest.approx(before.metric_after, abs=0.01)


def test_its_weights_begin_elsewhere_than_those_of_the_update(tmp_path, monkeypatch):
    seen = []
    with streaming(tmp_path, LookClock(), baseline_every=1) as trainer:
        train = trainer._runner.trainer.train
        monkeypatch.setattr(
            trainer._runner.trainer,
            "train",
            lambda *args, position, **others: (
                seen.append(position) or train(*args, position=position, **others)
            ),
        )
        trainer.run(arrivals(3))
    assert len(seen) == len(set(seen))
    assert {-3, -4} < set(seen)


@pytest.mark.parametrize("budget", ["60 J", "700 J", "4000 J"])
def test_controls_overspend_no_budget(tmp_path, budget, caplog):
    clock = LookClock()
    with (
        caplog.at_level(logging.WARNING),
        streaming(tmp_path, clock, budget=budget, baseline_every=1) as trainer,
    ):
        trainer.run(arrivals())
    results = [*trainer.results, *trainer.baselines]
    overrun_j = sum(each.overrun_j for each in results)
    assert clock.seconds * 100.0 <= Budget.parse(budget).energy_j + overrun_j
    assert len(trainer.results) == 7
    left_out = caplog.text.count("no baseline retraining at experience")
    assert left_out + len(trainer.baselines) == 6
    assert (left_out > 0) == (budget != "4000 J")
    rows(tmp_path, "settlement")  # and the ledger verifies


def test_a_control_that_cannot_be_paid_is_left_out_with_a_word(tmp_path, caplog):
    with (
        caplog.at_level(logging.WARNING),
        streaming(tmp_path, LookClock(), policy=SKIPPING, budget="120 J") as trainer,
    ):
        trainer.run(arrivals(4))  # whose control would draw 200 J
    assert not trainer.baselines
    assert "no baseline retraining at experience 3: " in caplog.text
    assert all(row["reason"] != "BASELINE" for row in rows(tmp_path, "decision"))


def test_a_control_counts_as_no_experience(tmp_path):
    for length in (4, 5):  # without a state, positions are those of the ledger's decisions
        with streaming(tmp_path, LookClock(), policy=REPLAYING) as trainer:
            (result,) = trainer.run(arrivals(length)[-1:]) if length == 5 else (None,)
            if result is None:
                trainer.run(arrivals(length))
    assert result.position == 4


class Killed(BaseException):
    """As if the process had been killed."""


@pytest.mark.parametrize("when", ["before", "training", "after"])
def test_a_stream_killed_at_its_control_goes_on_with_the_next_experience(
    tmp_path, monkeypatch, when
):
    def kill(*args, **kwargs):
        raise Killed

    count = RunContext.count

    def kill_baseline(self, result, *, baseline=False):
        if baseline:
            raise Killed
        count(self, result)

    changes = {"state_dir": tmp_path / "state", "policy": REPLAYING}
    trainer = streaming(tmp_path, LookClock(), **changes)
    trainer.run(arrivals(3))
    with monkeypatch.context() as patch:
        if when == "before":
            patch.setattr(control_runs.BaselineRuns, "run", kill)
        elif when == "training":
            patch.setattr(control_runs, "BudgetGuard", kill)
        else:
            patch.setattr("greentrain.training.run_context.RunContext.count", kill_baseline)
        with pytest.raises(Killed):
            trainer.update(arrivals(4)[3])
    expected = weights(trainer)
    trainer.close()
    with streaming(tmp_path, LookClock(), **changes) as again:
        assert list(again.known) == ["0", "1", "2", "3"]  # the update itself was saved
        assert torch.equal(weights(again), expected) or when == "after"
        results = again.run(arrivals())
    assert [each.position for each in results] == [4, 5, 6]
    assert [each.experience_id for each in again.baselines] == ["6"]
    outcomes = [row["experience_id"] for row in rows(tmp_path, "outcome")]
    assert outcomes == ["0", "1", "2", "3", "4", "5", "6", "6"]
    found = report_of(tmp_path)["avoided"]["measured"]
    assert (found["baseline_retrainings"], found["unfinished"]) == (1, 0 if when == "before" else 1)


def test_an_outcome_of_a_baseline_that_was_not_recorded_is_recorded_later(tmp_path, monkeypatch):
    changes = {"state_dir": tmp_path / "state", "policy": REPLAYING}
    trainer = streaming(tmp_path, LookClock(), **changes)
    trainer.run(arrivals(3))
    record = DecisionCore.record

    def kill(self, row):
        if trainer.results[-1].position == 3:  # the update's is recorded, and now the baseline's
            raise Killed
        record(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(DecisionCore, "record", kill)
        with pytest.raises(Killed):
            trainer.update(arrivals(4)[3])
    trainer.close()
    with streaming(tmp_path, LookClock(), **changes) as again:
        again.run(arrivals(5))
    outcomes = [row["experience_id"] for row in rows(tmp_path, "outcome")]
    assert outcomes == ["0", "1", "2", "3", "3", "4"]


def test_the_report_says_what_was_measured(tmp_path):
    changes = {"policy": REPLAYING, "baseline_every": 1}
    with streaming(tmp_path, LookClock(), **changes) as trainer:
        trainer.run(arrivals())
    report = report_of(tmp_path)
    found = report["avoided"]["measured"]
    controls, updates = list(trainer.baselines), list(trainer.results)[1:]
    assert (
        found["method"]
        == f"measured ({len(controls)} baseline retrainings)"
        == "measured (6 baseline retrainings)"
    )
    windows = rows(tmp_path, "window")
    control_j = [each["energy_j"] for each in windows if each["phase"] == "baseline"]
    assert found["baseline_j"] == pytest.approx(sum(control_j) / 6)
    assert found["stream_j"] == pytest.approx(sum(each.energy_j for each in updates) / 6)
    assert found["avoided_j"] == pytest.approx(found["baseline_j"] - found["stream_j"])
    differences = [each.metric_before - each.metric_after for each in controls]
    assert found["difference"] == pytest.approx(sum(differences) / 6)
    assert len(report["experiences"]) == 7  # controls are none
    assert report["summary"]["experiences"] == 7
    # They were drawn all the same: what is modelled as avoided is less by them.
    total_j = report["totals"]["energy_j"]
    avoided = report["avoided"]["energy"]
    assert avoided["method"] == "modelled"
    assert avoided["used_j"] == pytest.approx(total_j, rel=1e-3)
    page = render_html(report)
    assert "measured (6 baseline retrainings)" in page
    assert "As good as full retraining, by 6 baseline retrainings" in page


def test_without_controls_nothing_is_called_as_good_as_full(tmp_path, caplog):
    told = Noted()
    with (
        caplog.at_level(logging.DEBUG),
        streaming(tmp_path, LookClock(), baseline_every=None, tracking_uri=told) as trainer,
    ):
        trainer.run(arrivals())
    report = report_of(tmp_path)
    assert report["avoided"]["measured"] is None
    texts = [caplog.text, str(told.__dict__)]
    for each in FORMATS.values():
        texts += [str(render(report)) for render in each.files.values()]
        texts += each.missing(report)
    assert len(texts) > len(FORMATS)
    for text in texts:
        assert "as good as full" not in text.lower()


def test_the_tracker_logs_a_baseline_in_the_streams_run(tmp_path):
    told = Noted()
    with streaming(tmp_path, LookClock(), policy=REPLAYING, tracking_uri=told) as trainer:
        trainer.run(arrivals(4))
    (metrics, step, _) = told.logged[-1]
    assert step == 3
    assert metrics[names.ENERGY_BASELINE] == pytest.approx(trainer.baselines[0].energy_j / 3600)
    assert metrics[names.METRIC_BASELINE] == trainer.baselines[0].metric_after
    drawn_j = sum(each.energy_j for each in [*trainer.results, *trainer.baselines])
    assert metrics[names.ENERGY_CUMULATIVE] == pytest.approx(drawn_j / 3600)
    assert len(told.updates) == 4  # no run of its own


def test_a_kept_control_fills_its_row_of_the_matrix(tmp_path):
    with streaming(
        tmp_path,
        LookClock(),
        policy=SKIPPING,
        evaluation=EvaluationConfig(eval_each_experience=True),
    ) as trainer:
        trainer.run(arrivals(4))
        assert trainer.baselines[0].kept
        scores = trainer.matrix.compute()
    assert scores[3].min() > 0.8  # on all four classes, of which the stream knew one
    assert scores[2, 1:3].max() < 0.5


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_how_often_is_a_whole_number(tmp_path, every):
    with pytest.raises(ConfigurationError, match="baseline_every is"):
        streaming(tmp_path, LookClock(), baseline_every=every)
