"""The callback in a real Hugging Face Trainer, with a tiny random model: 1 J a step at 100 W."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.integrations import TransformersCallback
from greentrain.integrations import transformers_callback as module
from greentrain.ledger import Ledger, verify
from greentrain.report import build
from greentrain.report.trials import trials
from tests.models import Clock, constant_meter

transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed; it is in the extra [transformers]"
)
pytest.importorskip("accelerate", reason="the Trainer of transformers needs accelerate")
pytestmark = pytest.mark.filterwarnings("default")  # of transformers itself


class Passing(transformers.TrainerCallback):
    """Let 10 ms pass in each step, and 20 ms in each batch of an evaluation."""

    def __init__(self, clock: Clock, first_s: float = 0.01) -> None:
        self.clock = clock
        self.first_s = first_s

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        self.clock.seconds += self.first_s if state.global_step == 0 else 0.01

    def on_prediction_step(self, args, state, control, **kwargs):
        self.clock.seconds += 0.02


def train(clock: Clock, callback: Any, folder: Path, *others: Any, **options: Any) -> Any:
    """Train for ten epochs of 20 steps."""
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=2,
    )
    resume = options.pop("resume_from_checkpoint", None)
    score = options.pop("compute_metrics", None)
    samples = [
        {"input_ids": [1 + n % 9, 2, 3], "attention_mask": [1, 1, 1], "labels": n % 2}
        for n in range(80)
    ]
    trainer = transformers.Trainer(
        model=transformers.BertForSequenceClassification(config),
        args=transformers.TrainingArguments(
            output_dir=str(folder),
            **{
                "num_train_epochs": 10,
                "per_device_train_batch_size": 4,
                "per_device_eval_batch_size": 40,
                "report_to": [],
                "save_strategy": "no",
                "use_cpu": True,
                "disable_tqdm": True,
                "logging_steps": 20,
                "dataloader_pin_memory": False,
                **options,
            },
        ),
        train_dataset=samples,
        eval_dataset=samples,
        compute_metrics=score,
        callbacks=[Passing(clock), callback, *others],
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'hf.db'}"


def checked(url: str) -> Ledger:
    """Return a ledger in which all follows; its rows can be read."""
    ledger = Ledger(url, create=False)
    assert verify(ledger).failures == ()
    ledger.close()
    return ledger


def test_epochs_and_evaluations_are_measured_and_recorded(url, tmp_path):
    clock = Clock()
    callback = TransformersCallback(meter=constant_meter(clock), ledger=url, zone="DE")
    trainer = train(clock, callback, tmp_path, num_train_epochs=2, eval_strategy="epoch")
    assert callback.total.total_j == pytest.approx(2 * 20 + 2 * 4)
    assert callback.emissions_g > 0
    assert [source.name for source in callback.sources] == ["constant"]
    assert str(callback).startswith("the training used 48 J and emitted")
    assert "<tr><td>constant</td><td>48 J</td>" in callback._repr_html_()
    rows = checked(url).rows("window")
    energy_j = {}
    for row in rows:
        energy_j[row["phase"]] = energy_j.get(row["phase"], 0.0) + row["energy_j"]
    assert energy_j == pytest.approx({"train_epoch": 40.0, "validation": 8.0, "fit": 0.0}, abs=1e-9)
    assert [row["status"] for row in checked(url).rows("closing")] == ["completed"]
    logged = [entry for entry in trainer.state.log_history if "energy/total_wh" in entry]
    assert logged[0]["energy/total_wh"] == pytest.approx(20 / 3600, abs=1e-6)
    before = clock.seconds
    trainer.evaluate()  # outside of a training: not measured
    assert clock.seconds > before
    assert callback.total.total_j == pytest.approx(48.0)


def test_the_metric_of_the_best_model_is_in_the_ledger_also_of_a_resumed_training(url, tmp_path):
    clock = Clock()

    def score(prediction: Any) -> dict[str, float]:
        scores.append(next(values))
        return {"score": scores[-1]}

    scores: list[float] = []
    values = iter([0.5, 0.9, 0.75])
    options = {
        "eval_strategy": "epoch",
        "save_strategy": "best",
        "metric_for_best_model": "score",
        "compute_metrics": score,
    }
    for epochs, best in [(2, False), (3, True)]:
        callback = TransformersCallback(meter=constant_meter(clock), ledger=url, name="bert")
        train(
            clock,
            callback,
            tmp_path,
            num_train_epochs=epochs,
            load_best_model_at_end=best,
            resume_from_checkpoint=best,
            **options,
        )
    closings = checked(url).rows("closing")
    wanted = [{"name": "eval_score", "value": 0.9, "mode": "max"}]
    assert [json.loads(row["metrics"]) for row in closings] == [wanted, wanted]
    # The second epoch's checkpoint: 2 epochs of 20 steps, and 2 evaluations of 4 J.
    assert [row["resumed_j"] for row in closings] == [None, pytest.approx(48.0)]
    found = trials(build([ledger := Ledger(url, create=False)]))
    ledger.close()
    assert [one["energy_j"] for one in found] == pytest.approx([48.0, 72.0])


def test_a_cap_ends_the_training_just_below_it(url, tmp_path, caplog):
    clock = Clock()
    callback = TransformersCallback("100 J", meter=constant_meter(clock), ledger=url)
    with caplog.at_level("WARNING"):
        trainer = train(clock, callback, tmp_path, eval_strategy="epoch")
    assert callback.stopped
    assert 85.0 <= clock.seconds * 100.0 <= 100.0
    assert trainer.state.global_step < 100
    assert f"TransformersCallback stops the training: {callback.reason}" in caplog.messages
    assert "of its cap of 100 J in" in callback.reason
    ledger = checked(url)
    report = build([ledger])
    assert report["runs"][0]["status"] == "stopped"
    assert report["budgets"][0]["spent_j"] == pytest.approx(clock.seconds * 100.0)
    ledger.close()


def test_evaluations_and_savings_between_steps_are_kept_within_the_cap(url, tmp_path):
    clock = Clock()
    callback = TransformersCallback("60 J", meter=constant_meter(clock), ledger=url)
    every = {"eval_strategy": "steps", "eval_steps": 7, "save_strategy": "steps", "save_steps": 7}
    train(clock, callback, tmp_path, **every)
    assert callback.stopped
    assert 48.0 <= clock.seconds * 100.0 <= 60.0
    assert checked(url).rows("settlement")[0]["actual_j"] == pytest.approx(clock.seconds * 100.0)


def test_a_cap_that_is_not_reached_changes_nothing(url, tmp_path):
    clock = Clock()
    callback = TransformersCallback("1 kWh", meter=constant_meter(clock), ledger=None)
    trainer = train(clock, callback, tmp_path, num_train_epochs=2)
    assert trainer.state.global_step == 40
    assert (callback.stopped, callback.reason) == (False, "")


def test_a_first_step_above_the_cap_is_reported(tmp_path, caplog):
    clock = Clock()
    callback = TransformersCallback("0.5 J", meter=constant_meter(clock), ledger=None)
    with caplog.at_level("WARNING"):
        trainer = train(clock, callback, tmp_path)
    assert trainer.state.global_step == 1
    assert callback.reason == "the training used 1 J, 0.5 J more than its cap of 0.5 J"
    assert any("0.5 J more" in message for message in caplog.messages)


def test_a_budget_of_several_trainings_is_shared(url, tmp_path):
    clock = Clock()
    for _ in range(2):
        callback = TransformersCallback(
            "80 J", meter=constant_meter(clock), ledger=url, budget="search", num_fits=2
        )
        train(clock, callback, tmp_path)
        assert callback.stopped
    assert clock.seconds * 100.0 <= 80.0
    ledger = Ledger(url)
    with ledger.open_run("fit", "other") as run:
        account = ledger.account(ledger.find_budget("search")["budget_id"], run)
        account.settle(account.reserve(account.balance().left_j, "the rest"), 80.0)
    ledger.close()
    with pytest.raises(BudgetExceeded, match="0 Wh of 80 J are left"):
        train(clock, callback, tmp_path)
    checked(url)


@pytest.mark.parametrize("budget", [None, "several"])
def test_a_resumed_training_continues_under_its_cap(budget, url, tmp_path):
    clock = Clock()

    def callback() -> TransformersCallback:
        return TransformersCallback("80 J", meter=constant_meter(clock), ledger=url, budget=budget)

    saves = {"save_strategy": "steps", "save_steps": 10}
    train(clock, callback(), tmp_path, max_steps=30, **saves)
    resumed = callback()
    trainer = train(clock, resumed, tmp_path, resume_from_checkpoint=True, **saves)
    assert resumed.stopped
    assert 75.0 <= clock.seconds * 100.0 <= 80.0
    assert 75 <= trainer.state.global_step <= 80
    afresh = callback()
    if budget is None:  # another training with the same cap
        train(clock, afresh, tmp_path / "other")
        assert 75.0 <= afresh.total.total_j <= 80.0
    checked(url)


def test_a_checkpoint_without_the_callback_is_resumed(tmp_path):
    clock = Clock()
    saves = {"save_strategy": "steps", "save_steps": 10}
    train(clock, transformers.TrainerCallback(), tmp_path, max_steps=10, **saves)
    callback = TransformersCallback("20 J", meter=constant_meter(clock), ledger=None)
    train(clock, callback, tmp_path, resume_from_checkpoint=True, **saves)
    assert callback.stopped
    assert 17.0 <= callback.total.total_j <= 20.0


def test_an_evaluation_or_a_prediction_after_the_training_changes_nothing(url, tmp_path):
    clock = Clock()
    callback = TransformersCallback("80 J", meter=constant_meter(clock), ledger=url)
    trainer = train(clock, callback, tmp_path, max_steps=10)
    used = callback.total.total_j
    trainer.evaluate()
    trainer.predict(trainer.eval_dataset)
    assert callback.total.total_j == used
    checked(url)


def test_a_cap_of_carbon_counts_grams(url, tmp_path):
    clock = Clock()
    callback = TransformersCallback(
        "0.006 gCO2e", meter=constant_meter(clock), ledger=url, zone="DE"
    )
    train(clock, callback, tmp_path)
    assert callback.stopped
    assert 0.005 <= callback.emissions_g <= 0.006
    assert checked(url).rows("settlement")[0]["actual_g"] == pytest.approx(callback.emissions_g)


def test_a_training_that_fails_is_closed_by_the_next_one_or_by_close(url, tmp_path):
    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 7:
                raise RuntimeError("lost")

    clock = Clock()
    callback = TransformersCallback("80 J", meter=constant_meter(clock), ledger=url)
    with pytest.raises(RuntimeError, match="lost"):
        train(clock, callback, tmp_path, Fails())
    callback.close()
    callback.close()
    assert callback.total.total_j == pytest.approx(7.0)
    assert checked(url).rows("closing")[0]["status"] == "failed"


def test_the_best_meter_is_found(tmp_path):
    callback = TransformersCallback(ledger=None)
    train(Clock(), callback, tmp_path, max_steps=3)
    assert {source.name for source in callback.sources} >= {"cpu", "ram"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"cap": 5.0}, "has no unit"),
        ({"cap": "5 gCO2e"}, "zone='DE'"),
        ({"budget": "search"}, "give the cap too"),
        ({"cap": "5 J", "budget": "search", "ledger": None}, "needs a ledger"),
        ({"cap": "5 J", "num_fits": 2}, "name of the budget"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments, named):
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        TransformersCallback(**arguments)


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setattr(module, "TrainerCallback", object)
    with pytest.raises(ConfigurationError, match=r"lightning-greentrain\[transformers\]"):
        TransformersCallback()


def test_the_module_is_importable_without_transformers():
    code = (
        "from importlib import util\n"
        "find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'transformers' else find(name)\n"
        "import greentrain.integrations"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
