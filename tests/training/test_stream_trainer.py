"""StreamTrainer on a small stream, at 1 J a batch of a fake clock."""

from __future__ import annotations

import dataclasses
import gc
import json
import sqlite3
from contextlib import closing
from types import SimpleNamespace

import pytest
import torch
from mlflow.tracking import MlflowClient
from pytorch_lightning import Callback, Trainer
from torch.utils.data import RandomSampler, Subset

from greentrain import Budget, Experience, StreamTrainer, UpdateMode
from greentrain.callbacks import EnergyMonitor
from greentrain.control import Always, Periodic, PricedPolicy, inputs_of
from greentrain.control.action import NOTHING
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger, verify
from greentrain.memory import FullBuffer, GenerativeBuffer, ReservoirBuffer
from greentrain.payments import Payment
from greentrain.training import CarbonConfig, EvaluationConfig, ModeConfig
from greentrain.training.update_context import AskedUpdate, UpdateContext
from tests.models import Classifier, Clock, Tick, blobs, constant_meter, experience
from tests.training.fitting import PROBE_S, timed

EACH = EvaluationConfig(eval_each_experience=True)


def stream(length: int = 6) -> list[Experience]:
    """More of the same, a new class, the same samples again, another new class, more of all."""
    first = experience("0-first", (0, 1), seed=0)
    again = Experience("3-again", first.train, first.val)
    return [
        first,
        experience("1-more", (0, 1), seed=1),
        experience("2-new-class", (2,), seed=2),
        again,
        experience("4-new-class", (3,), seed=4),
        experience("5-more", (0, 1, 2, 3), seed=5),
    ][:length]


def trainer(tmp_path, clock: Clock, make_model=Classifier, **changes) -> StreamTrainer:
    arguments = {
        "budget": "2000 J",
        "num_experiences": 6,
        "monitor": "val_acc",
        "ledger": f"sqlite:///{tmp_path / 'greentrain.db'}",
        "trainer": {
            "max_epochs": 10,
            "accelerator": "cpu",
            "callbacks": [Tick(clock)],
        },
        "loader": {"batch_size": 8},
        "meter": constant_meter(clock),
        **changes,
    }
    if isinstance(make_model, type):
        make_model = timed(clock, make_model)
    return StreamTrainer(make_model, **arguments)


def run(tmp_path, **changes):
    clock = Clock()
    with trainer(tmp_path, clock, **changes) as streaming:
        results = [streaming.update(each) for each in stream()]
    return streaming, results, clock


def open_ledger(tmp_path) -> Ledger:
    return Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}", create=False)


def test_a_stream_is_learned_inside_its_budget(tmp_path):
    _, results, clock = run(tmp_path)
    modes = [result.update_mode for result in results]
    assert modes[0] is UpdateMode.FULL_RETRAIN
    assert modes[3] is UpdateMode.SKIP  # samples that have been here before
    assert modes[2] is not UpdateMode.SKIP
    assert results[-1].metric_after > 0.9
    drawn_j = sum(result.energy_j for result in results)
    assert drawn_j == pytest.approx(clock.seconds * 100.0)  # every joule was paid for
    assert drawn_j <= 2000.0
    assert results[-1].left_j == pytest.approx(2000.0 - drawn_j)
    ledger = open_ledger(tmp_path)
    found = verify(ledger)
    ledger.close()
    assert found.ok
    assert not found.notes


def test_the_same_seed_gives_the_same_decisions_twice(tmp_path):
    outcomes = []
    for name in ("a", "b"):
        streaming, results, _ = run(tmp_path / name)
        outcomes.append(
            [
                (r.decision.action, r.energy_j, r.metric_after, r.decision.min_gain_per_j)
                for r in results
            ]
            + [[float(p.detach().sum()) for p in streaming.model.parameters()]]
        )
    assert outcomes[0] == outcomes[1]


def test_the_global_random_state_is_left_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    run(tmp_path)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("mode", list(UpdateMode))
def test_every_update_mode_can_be_carried_out(tmp_path, mode):
    given = {"eval_on": "current"} if mode is UpdateMode.FINE_TUNE else {}
    evaluation = EvaluationConfig(**given)
    _, results, _ = run(tmp_path, policy=Always(mode=mode), budget="1 kWh", evaluation=evaluation)
    assert [result.update_mode for result in results[1:]] == [mode] * 5
    if mode is not UpdateMode.SKIP:
        assert results[-1].metric_after > 0.8
    ledger = open_ledger(tmp_path)
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.filterwarnings("ignore:BudgetGuard.*over the cap")
@pytest.mark.parametrize("budget", ["1 J", "20 J", "60 J", "300 J", "900 J", "1 kWh"])
def test_no_budget_is_overspent(tmp_path, budget):
    _, results, clock = run(tmp_path, budget=budget)
    total_j = Budget.parse(budget).energy_j
    overrun_j = sum(result.overrun_j for result in results)
    assert clock.seconds * 100.0 <= total_j + overrun_j
    assert all(result.left_j >= 0 for result in results)
    ledger = open_ledger(tmp_path)
    found = verify(ledger)
    ledger.close()
    assert found.ok
    assert any("overrun" in note for note in found.notes) == (overrun_j > 0)


def test_each_experience_is_measured_by_itself_where_that_is_asked_for(tmp_path):
    streaming, results, _ = run(tmp_path, evaluation=EACH, budget="1 kWh")
    scores = streaming.matrix.compute()
    assert scores.shape == (6, 6)
    assert not scores.tril().isnan().any()  # a row for each experience, trained on or not
    skipped = [result.position for result in results if result.update_mode is UpdateMode.SKIP]
    assert skipped
    for position in skipped:  # the model is as it was before
        assert scores[position, :position].tolist() == scores[position - 1, :position].tolist()


def test_a_budget_that_pays_for_nothing_starts_nothing(tmp_path):
    _, results, clock = run(tmp_path, budget="0.9 J", evaluation=EACH)
    assert all(
        result.update_mode is UpdateMode.SKIP and result.budget_exhausted for result in results
    )
    assert clock.seconds == 0.0
    assert "too little to measure the cost of training" in results[0].reason
    ledger = open_ledger(tmp_path)
    assert ledger.rows("reservation") == []
    assert len(ledger.rows("decision")) == 6
    ledger.close()


def test_the_first_training_ends_at_two_even_shares_and_is_the_calibration(tmp_path):
    clock = Clock()
    with trainer(tmp_path, clock, budget="180 J") as streaming:
        result = streaming.update(stream()[0])
        cost = streaming._runner.state.controller.cost
    assert result.decision.cost_j.upper == pytest.approx(60.0)  # of 30 J for each of six
    assert result.decision.steps == 100
    # A tenth of the cap is kept for the end, and the guard leaves room for steps that take longer.
    assert 0.7 * 60 <= result.steps <= 0.9 * 60
    assert result.kept
    assert result.overrun_j == 0.0
    assert result.metric_before is None  # there was no model to look at
    assert result.metric_after > 0.9
    # Validated on 32 samples, and one sample was looked at before it began.
    assert result.update_j == pytest.approx(result.steps + 100.0 * PROBE_S * 33)
    assert cost.calibrated
    step = (
        cost.predict(UpdateMode.FULL_RETRAIN, 101).mean
        - cost.predict(UpdateMode.FULL_RETRAIN, 100).mean
    )
    assert step == pytest.approx(1.0)
    ledger = open_ledger(tmp_path)
    assert {row["name"] for row in ledger.rows("budget")} == {"stream"}
    assert not {row["phase"] for row in ledger.rows("window")} & {"calibration", "probe"}
    assert len(ledger.rows("reservation")) == 1
    ledger.close()


@pytest.mark.parametrize(("budget", "looks"), [("120 J", True), ("25 J", False)])
def test_what_is_left_says_whether_there_is_a_probe(tmp_path, budget, looks):
    # More than a third of it goes into the first training. The shortest update takes 20 J and more:
    # of 25 J none is affordable any more, so nothing is worth a look.
    clock = Clock()
    with trainer(tmp_path, clock, budget=budget) as streaming:
        _, second = (streaming.update(each) for each in stream(2))
    ledger = open_ledger(tmp_path)
    state = json.loads(ledger.rows("decision")[-1]["state"])
    phases = {row["phase"] for row in ledger.rows("window")}
    ledger.close()
    assert ("probe" in phases) == looks
    for name in ("metric_before", "metric_new", "metric_new_sd"):
        assert (state[name] is not None) == looks
    assert (second.metric_before is not None) == looks
    assert ("WARM_START may use" in second.reason) != looks


def test_a_meter_that_sees_no_probe_is_no_error(tmp_path):
    clock = Clock()
    with trainer(tmp_path, clock, lambda: Classifier(), evaluation=EACH) as streaming:
        results = [streaming.update(each) for each in stream(3)]
    assert results[1].energy_j == results[1].update_j  # looks seem to be free
    assert results[2].update_mode is not UpdateMode.SKIP  # and find the new class


@pytest.mark.parametrize("average", [None, 0.0])
def test_weights_are_averaged_at_a_constant_rate_or_the_rate_is_annealed(tmp_path, average):
    changes = {} if average is None else {"modes": ModeConfig(weight_averaging=average)}
    clock = Clock()
    with trainer(tmp_path, clock, budget="1 kWh", **changes) as streaming:
        streaming.update(stream()[0])
        rates = streaming.model.rates
    assert len(rates) == 100
    if average is None:
        assert set(rates) == {0.5}
    else:
        assert max(rates) == pytest.approx(0.5)
        assert 0 <= rates[-1] < 0.05 * 0.5


def test_a_share_of_full_becomes_joules_after_a_calibration_that_is_paid_for_apart(tmp_path):
    streaming, results, _ = run(tmp_path, budget="30 % of full")
    # 10 epochs of 10, 20, ... 60 batches of 1 J are 2,100 J, with what each update does besides.
    assert 0.3 * 2100 <= streaming.budget.energy_j <= 0.3 * 2100 * 1.3
    ledger = open_ledger(tmp_path)
    budgets = {row["name"]: row["budget_id"] for row in ledger.rows("budget")}
    assert set(budgets) == {"stream/calibration", "stream"}
    # Two steps to warm up, eighty in 0.8 s, and a validation on 32 samples.
    assert ledger.balance(budgets["stream/calibration"]).spent_j == pytest.approx(
        82.0 + 100.0 * PROBE_S * 32
    )
    assert ledger.balance(budgets["stream"]).spent_j <= streaming.budget.energy_j
    ledger.close()
    assert "cost per step unknown" not in results[0].reason
    assert results[-1].metric_after > 0.8


def test_experiences_beyond_their_number_are_still_inside_the_budget(tmp_path):
    _, results, clock = run(tmp_path, num_experiences=2, budget="400 J")
    assert len(results) == 6
    assert clock.seconds * 100.0 <= 400.0
    assert all(result.left_j >= 0 for result in results)


def test_only_a_warm_start_is_shrunk_and_perturbed(tmp_path):
    modes = ModeConfig(shrink=0.0, perturb=0.0)
    runner = trainer(tmp_path, Clock(), modes=modes)._runner
    weights = {}
    for mode in (UpdateMode.REPLAY, UpdateMode.WARM_START):
        model = Classifier()
        runner.trainer._load(model, runner.state.model.weights, mode)
        weights[mode] = float(model.layer.weight.detach().abs().sum())
    assert weights[UpdateMode.REPLAY] > 0
    assert weights[UpdateMode.WARM_START] == 0


def test_what_was_spent_stays_spent_when_a_stream_starts_again(tmp_path):
    _, results, _ = run(tmp_path)
    left_j = results[-1].left_j
    clock = Clock()
    with trainer(tmp_path, clock) as again:
        result = again.update(experience("6-new", (0, 1, 2, 3), seed=6))
    assert result.left_j < left_j
    assert result.position == 6
    with pytest.raises(ConfigurationError, match="has a budget 'stream' of"):
        trainer(tmp_path, clock, budget="3000 J")


@pytest.mark.parametrize("budget", ["2000 J", "300 J"])
def test_the_recorded_state_gives_the_recorded_decision(tmp_path, budget):
    _, results, _ = run(tmp_path, budget=budget)
    ledger = open_ledger(tmp_path)
    rows = ledger.rows("decision")
    ledger.close()
    first = json.loads(rows[0]["alternatives"])
    assert [each["update_mode"] for each in first] == ["SKIP", "FULL_RETRAIN"]  # none was weighed
    assert rows[0]["reason"] == "NO_MODEL"
    for row, result in zip(rows[1:], results[1:], strict=True):
        inputs = inputs_of(json.loads(row["state"]), json.loads(row["alternatives"]))
        state = inputs[0]
        assert state.position == result.position
        if not result.steps:  # else it is told on the samples of the validation
            assert state.metric_before == result.metric_before
        assert row["update_mode"] == str(result.update_mode)
        again = PricedPolicy().decide(*inputs)
        recorded = (row["update_mode"], row["step_fraction"], row["reason"], row["sentence"])
        assert (
            str(again.action.mode),
            again.action.step_fraction,
            str(again.reason),
            again.sentence,
        ) == recorded
        assert again.min_gain_per_j == row["min_gain_per_j"]


@pytest.mark.parametrize(
    ("memory", "modes"),
    [
        (FullBuffer(), {"FULL_RETRAIN", "WARM_START", "REPLAY"}),
        (ReservoirBuffer(20), {"FULL_RETRAIN", "WARM_START", "REPLAY"}),
        (None, {"WARM_START"}),
    ],
)
def test_what_may_be_kept_decides_what_is_feasible(tmp_path, memory, modes):
    _, results, _ = run(tmp_path, buffer=memory)
    weighed = {str(each.action.mode) for each in results[2].decision.alternatives}
    assert weighed - {"SKIP"} == modes
    if memory is not None:
        assert len(memory) > 0


def test_a_skipped_experience_stays_pending_and_is_new_data_later(tmp_path):
    clock = Clock()
    with trainer(tmp_path, clock, policy=Periodic(every=2)) as streaming:
        streaming.update(experience("first", (0, 1, 2, 3)))
        skipped = streaming.update(experience("alike", (0, 1, 2, 3), seed=1))
        assert skipped.update_mode is UpdateMode.SKIP
        streaming.update(experience("shifted", (0,), count=80, seed=3))
    ledger = open_ledger(tmp_path)
    last = json.loads(ledger.rows("decision")[-1]["state"])
    ledger.close()
    assert last["n_new"] == 160 + 80  # the skipped four times 40, and 80 of its own
    assert last["n_stored"] == 160


def test_an_update_that_makes_it_worse_is_not_kept(tmp_path):
    class Sour(Classifier):
        sour = False

        def on_train_end(self):
            if Sour.sour:
                torch.nn.init.zeros_(self.layer.weight)

    clock = Clock()
    policy = Always(mode=UpdateMode.FULL_RETRAIN)
    changes = {"policy": policy, "modes": ModeConfig(weight_averaging=0.0)}
    with trainer(tmp_path, clock, Sour, **changes) as streaming:
        first = streaming.update(experience("first", (0, 1)))
        model = streaming.model
        Sour.sour = True
        second = streaming.update(experience("second", (0, 1), seed=1))
    assert first.kept
    assert not second.kept
    assert streaming.model is model
    assert second.metric_after == second.metric_before
    assert second.update_j > 0  # its joules stay spent


@pytest.mark.parametrize(("validations", "samples"), [(2.9, 64), (3.1, 64 + 2 * 64)])
def test_what_seems_worse_on_a_few_samples_is_looked_at_on_more(tmp_path, validations, samples):
    clock = Clock()
    with trainer(tmp_path, clock) as streaming:
        streaming.update(experience("first", (0, 1)))
        runner, second = streaming._runner, experience("second", (0, 1), seed=1)
        state, stage = runner.state, runner._stage
        context = UpdateContext(
            experience=second,
            position=1,
            data=state.data.gather(second),
            held_out=state.held_out.with_current(second),
        )
        probe = state.probe.run(streaming.model, second, context.data.new, 200)
        pending = SimpleNamespace(decision=SimpleNamespace(gain=NOTHING))
        asked = AskedUpdate(context=context, pending=pending, probe=probe)
        assert probe.measured.samples == 64  # all that is held out of the two
        sour, before_s = timed(clock)(), clock.seconds
        torch.nn.init.zeros_(sour.layer.weight)
        reserved_j = validations * state.probe.validation_j
        payment = Payment(runner.run.recorder, "r", reserved_j=reserved_j)
        found = stage._compare(asked, sour, payment, context.held_out)
        # On what was looked at; then both on all of it, where three validations are left.
        assert clock.seconds - before_s == pytest.approx(samples * PROBE_S)
        assert found.worse
        assert found.gain <= -0.4
        same = stage._compare(asked, streaming.model, payment, context.held_out)
        assert (same.gain, same.worse) == (0.0, False)
        asked = dataclasses.replace(asked, probe=None)  # then held-out samples are looked at
        blind = stage._compare(asked, sour, payment, context.held_out)
        assert blind.worse
        assert blind.gain <= -0.4


def test_a_metric_where_less_is_better(tmp_path):
    _, results, _ = run(tmp_path, monitor="val_loss", mode="min")
    assert results[-1].metric_after < 0.5
    kept = [r for r in results if r.steps and r.kept and r.metric_before is not None]
    assert kept
    assert all(r.metric_after <= r.metric_before for r in kept)


def test_a_metric_that_the_model_does_not_log_is_found_before_any_training(tmp_path):
    clock = Clock()
    tracking = f"sqlite:///{tmp_path / 'mlflow.db'}"
    streaming = trainer(tmp_path, clock, monitor="val_f1", tracking_uri=tracking)
    with pytest.raises(ConfigurationError, match="It logs `val_acc`, `val_loss`"):
        streaming.update(experience("first", (0, 1)))
    streaming.close()
    ledger = open_ledger(tmp_path)
    assert [row["phase"] for row in ledger.rows("window")] == ["update"]  # without an epoch
    assert ledger.rows("settlement")[0]["actual_j"] < 0.5  # two validations of a few samples
    assert ledger.rows("closing")[0]["status"] == "failed"
    assert verify(ledger).ok
    ledger.close()
    client = MlflowClient(tracking_uri=tracking)
    runs = client.search_runs([client.get_experiment_by_name("greentrain").experiment_id])
    assert {run.info.status for run in runs} == {"FAILED"}


def test_a_training_that_fails_is_paid_for_and_recorded(tmp_path):
    class Failing(Classifier):
        def training_step(self, batch, batch_idx):
            if batch_idx == 3:
                raise ValueError("a bad batch")
            return super().training_step(batch, batch_idx)

    clock = Clock()
    streaming = trainer(tmp_path, clock, Failing)
    with pytest.raises(ValueError, match="a bad batch"), streaming:
        streaming.update(experience("first", (0, 1)))
    ledger = open_ledger(tmp_path)
    assert len(ledger.rows("decision")) == 1
    assert ledger.rows("outcome") == []
    assert ledger.rows("closing")[0]["status"] == "failed"
    settled = {row["reservation_id"]: row for row in ledger.rows("settlement")}
    assert set(settled) == {row["reservation_id"] for row in ledger.rows("reservation")}
    assert verify(ledger).ok
    ledger.close()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"budget": "2 parsecs"}, "the unit 'parsecs' is not known"),
        ({"budget": "0 Wh"}, "more than zero"),
        ({"budget": "-5 Wh"}, "more than zero"),
        ({"num_experiences": 0}, "num_experiences is 0"),
        ({"num_experiences": 2.5}, "num_experiences is 2.5"),
        ({"mode": "up"}, "mode is 'up'"),
        ({"buffer": "some"}, "buffer is 'some'"),
        ({"buffer": 500}, r"ReservoirBuffer\(500\) of greentrain.memory"),
        ({"buffer": GenerativeBuffer(9)}, r"give it learn_at_once=False, and trainer="),
        (
            {"buffer": GenerativeBuffer(9, learn_at_once=False)},
            r"nothing trains, .* give trainer={'callbacks': \[LearnBuffer\(buffer\)\]}",
        ),
        ({"policy": "greedy"}, r"such as Greedy\(\)"),
        ({"trainer": Trainer(logger=False)}, "trainer is a Trainer, which can fit only once"),
        ({"num_experiences": None}, "num_experiences is missing"),
        ({"trainer": {"max_steps": 10}}, "max_steps, which the controller decides"),
        ({"trainer": {"max_epochs": 0}}, "max_epochs=0"),
        ({"trainer": {"accelerator": "tpux"}}, "refuses the options of trainer: .*tpux"),
        ({"trainer": {"precision": 17}}, "refuses the options of trainer: .*17"),
        ({"loader": {"batch_size": 0}}, "batch_size is 0"),
        ({"loader": {"sampler": RandomSampler([1])}}, "RandomSampler as sampler"),
        ({"ledger": "mysql://host/db"}, "is of another database"),
        ({"calibration_budget": "much"}, "cannot read"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(tmp_path, changes, named):
    with pytest.raises(ConfigurationError, match=named):
        trainer(tmp_path, Clock(), **changes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: EvaluationConfig(eval_on="past"), "eval_on is 'past'"),
        (lambda: ModeConfig(weight_averaging=1.0), "weight_averaging is 1.0"),
        (lambda: CarbonConfig(zone="XX"), "XX"),
    ],
)
def test_a_wrong_configuration_fails_where_it_is_written(make, named):
    with pytest.raises(ConfigurationError, match=named):
        make()


def test_what_is_no_experience_is_refused(tmp_path):
    clock = Clock()
    streaming = trainer(tmp_path, clock)
    with pytest.raises(ConfigurationError, match="takes an Experience"):
        streaming.update((1, 2))
    streaming.update(experience("first", (0, 1)))
    with pytest.raises(ConfigurationError, match="already had an experience 'first'"):
        streaming.update(experience("first", (0, 1)))
    with pytest.raises(ConfigurationError, match="no samples; validation data"):
        Experience("x", blobs((0,), 4), Subset(blobs((0,), 4), []))
    with pytest.raises(ConfigurationError, match="val of experience 'x' is None"):
        Experience("x", blobs((0,), 4), None)
    streaming.close()


def test_a_stream_that_is_never_closed_is_closed_when_it_is_forgotten(tmp_path):
    streaming = trainer(tmp_path, Clock(), tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    streaming.update(experience("first", (0, 1)))
    del streaming
    gc.collect()
    ledger = open_ledger(tmp_path)
    assert [row["status"] for row in ledger.rows("closing")] == ["completed"]
    ledger.close()
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("greentrain").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_make_model_has_to_make_a_module(tmp_path):
    with pytest.raises(ConfigurationError, match="returned a str"):
        trainer(tmp_path, Clock(), lambda: "a model")
    assert not (tmp_path / "greentrain.db").exists()
    with pytest.raises(ConfigurationError, match="make_model is a Classifier instance"):
        StreamTrainer(Classifier(), budget="1 Wh", num_experiences=1, monitor="val_acc")
    with pytest.raises(ConfigurationError, match="make_model is 3"):
        StreamTrainer(
            3, budget="1 Wh", num_experiences=1, monitor="val_acc", ledger=str(tmp_path / "x.db")
        )


def test_a_closed_trainer_trains_nothing(tmp_path):
    streaming = trainer(tmp_path, Clock(), Classifier)
    streaming.update(experience("first", (0, 1)))
    streaming.close()
    with pytest.raises(ConfigurationError, match="the StreamTrainer is closed; open a new one"):
        streaming.update(experience("second", (0, 1)))
    streaming.close()


@pytest.mark.parametrize("monitor", ["", None, 5])
def test_the_monitor_has_to_be_a_name(tmp_path, monitor):
    file = tmp_path / "x.db"
    with pytest.raises(ConfigurationError, match=f"monitor is {monitor!r}; it must be a text"):
        StreamTrainer(
            Classifier, budget="1 Wh", num_experiences=1, monitor=monitor, ledger=str(file)
        )
    assert not file.exists()


def test_a_ledger_that_goes_away_in_mid_update_loses_no_model_and_starts_nothing(tmp_path, caplog):
    class GoAway(Callback):
        gone = False

        def on_train_start(self, trainer, pl_module):
            updating = any(isinstance(each, EnergyMonitor) for each in trainer.callbacks)
            if updating and not self.gone:
                self.gone = True
                with closing(sqlite3.connect(tmp_path / "greentrain.db")) as database:
                    database.execute("alter table settlements rename to gone")

    clock = Clock()
    options = {"max_epochs": 10, "accelerator": "cpu", "callbacks": [Tick(clock), GoAway()]}
    streaming = trainer(
        tmp_path, clock, trainer=options, policy=Always(mode=UpdateMode.FULL_RETRAIN)
    )
    first, second, *_ = stream()
    result = streaming.update(first)
    assert result.kept
    assert result.steps > 0
    assert result.left_j == 0.0
    assert streaming.model is not None
    assert "could not be settled" in caplog.text
    with pytest.raises(LedgerError):
        streaming.update(second)
    with closing(sqlite3.connect(tmp_path / "greentrain.db")) as database:
        database.execute("alter table gone rename to settlements")
    assert streaming.update(second).position == 1
    streaming.close()
    ledger = open_ledger(tmp_path)
    checked = verify(ledger)
    assert checked.ok
    assert any("never" in note for note in checked.notes)  # the reservation is still open
    ledger.close()
