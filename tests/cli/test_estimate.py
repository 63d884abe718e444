"""The `greentrain estimate` command, and the estimate of a stream behind it."""

from __future__ import annotations

import json
import math
import random
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner, Result

from greentrain.cli.app import app
from greentrain.energy import ConstantMeter, StepForecast, UnknownMeter, WindowRecorder
from greentrain.errors import ConfigurationError, GreentrainError
from greentrain.ledger import Ledger, verify
from greentrain.memory import ReservoirBuffer
from greentrain.training.stream_estimate import StreamEstimate, StreamEstimator
from tests.models import Classifier, Clock, Tick, experience

STREAM = """
from tests.models import experience


def arriving(n: int = 2):
    for number in range(n):
        yield experience(f"e{number}", range(4), seed=number)


def never_ending():
    number = 0
    while True:
        yield experience(f"e{number}", range(4), seed=number)
        number += 1


def pairs():
    yield 1, 2
"""
CONFIG = {
    "model": {"class_path": "tests.models.Classifier"},
    "stream": {"class_path": "arrivals.arriving"},
    "name": "churn",
    "num_experiences": 3,
    "monitor": "val_acc",
    "trainer": {"max_epochs": 3, "accelerator": "cpu"},
    "loader": {"batch_size": 16},
    "meter": {"class_path": "greentrain.energy.ConstantMeter", "init_args": {"power_w": 20}},
    "team": "night shift",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "arrivals.py").write_text(STREAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "arrivals", raising=False)
    write(tmp_path)
    return tmp_path


def write(folder: Path, **changes: Any) -> None:
    (folder / "stream.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))


def estimate(*arguments: str) -> Result:
    given = ("stream.yaml", "--seconds", "0.05", *arguments)
    return CliRunner().invoke(app, ["estimate", *given], catch_exceptions=True)


def measured(*, power_w: float = 10.0, step_s: float = 0.01, **options: Any) -> StreamEstimate:
    """An estimate of three experiences of 160 samples: 10 batches each, for 3 epochs."""
    clock = Clock()
    meter = ConstantMeter(power_w, clock=clock)
    meter.start()
    experiences = [experience(f"e{number}", range(4), seed=number) for number in range(3)]
    trainer = {"max_epochs": 3, "accelerator": "cpu", "callbacks": [Tick(clock, step_s)]}
    arguments = {"monitor": "val_acc", "trainer": trainer, "loader": {"batch_size": 16}}
    estimator = StreamEstimator(Classifier, experiences, seconds=0.5, **{**arguments, **options})
    return estimator.measure(WindowRecorder(meter))


def test_joules_are_those_worked_out_by_hand() -> None:
    found = measured()
    assert (found.steps, found.seconds) == (50, pytest.approx(0.5))
    assert found.full_steps == (30, 60, 90)  # all data so far: 10, 20 and 30 batches, 3 epochs
    assert found.step.mean_j == pytest.approx(0.1)  # 10 W for 0.01 s
    assert found.one.mean_j == pytest.approx(3.0)
    assert found.always.mean_j == pytest.approx(18.0)
    assert found.share(0.25).mean_j == pytest.approx(4.5)
    for forecast in (found.step, found.one, found.always):
        assert 0 < forecast.low_j < forecast.mean_j < forecast.high_j
    assert found.share(0.25).high_j == pytest.approx(found.always.high_j / 4)
    assert found.complete


def test_experiences_that_have_not_arrived_are_as_large_as_the_mean() -> None:
    found = measured(num_experiences=5)
    assert (found.full_steps, found.arrived) == ((30, 60, 90, 120, 150), 3)
    assert measured(num_experiences=1).full_steps == (30,)


def test_a_full_retraining_trains_on_what_the_buffer_keeps() -> None:
    assert measured(buffer=None).full_steps == (30, 30, 30)
    assert measured(buffer=ReservoirBuffer(240)).full_steps == (30, 45, 45)


def test_a_first_part_that_warms_up_is_a_cost_of_each_fit() -> None:
    energy = StepForecast(parts_j=(9.0, 5.0, 5.0, 5.0), part_steps=10)
    assert energy.predict(100).mean_j == pytest.approx(50.0)
    wide = StepForecast(parts_j=(9.0, 1.0, 5.0, 9.0), part_steps=10).predict(100)
    assert wide.mean_j == pytest.approx(50.0)
    assert wide.high_j > energy.predict(100).high_j


@pytest.mark.parametrize("drift", [0.85, 1.15])
def test_the_interval_covers_a_drift_of_the_load(drift: float) -> None:
    """Steps that were as even as can be say nothing about the load of the next hour."""
    even = StepForecast(parts_j=(5.0,) * 6, part_steps=10).predict(10_000)
    assert even.low_j < drift * even.mean_j < even.high_j
    assert (even.high_j - even.mean_j) / even.mean_j == pytest.approx(0.195, abs=0.005)
    assert even.mean_j - even.low_j == pytest.approx(even.high_j - even.mean_j)


def test_a_wide_interval_ends_at_nothing() -> None:
    found = StepForecast(parts_j=(1.0, 0.0, 40.0, 0.0), part_steps=1).predict(10)
    assert found.low_j == 0.0


def test_the_random_state_and_the_model_are_left_alone() -> None:
    made: list[Classifier] = []

    def make() -> Classifier:
        made.append(Classifier())
        return made[-1]

    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    clock = Clock()
    meter = ConstantMeter(10.0, clock=clock)
    meter.start()
    estimator = StreamEstimator(
        make,
        [experience("e0", range(4))],
        monitor="val_acc",
        trainer={"accelerator": "cpu", "callbacks": [Tick(clock)]},
        seconds=0.3,
    )
    estimator.measure(WindowRecorder(meter))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]
    assert len(made) > 1  # no model of it is used twice


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seconds": 0}, "seconds is 0"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"seconds": True}, "seconds is True"),
        ({"seconds": 1e9}, "at most 3600"),
        ({"trainer": {"devices": 2, "accelerator": "cpu"}}, "trainer uses 2 processes"),
        ({"trainer": {"max_epochs": 0}}, "max_epochs=0"),
        ({"monitor": "val_los"}, "val_los"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    meter = ConstantMeter(10.0)
    meter.start()
    given = {"monitor": "val_acc", "trainer": {"accelerator": "cpu"}, "seconds": 0.01, **options}
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        StreamEstimator(Classifier, [experience("e0", range(4))], **given).measure(
            WindowRecorder(meter)
        )


def test_a_stream_without_an_experience_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="no experience yet"):
        StreamEstimator(Classifier, [], monitor="val_acc")


def test_a_meter_without_joules_gives_no_estimate() -> None:
    estimator = StreamEstimator(
        Classifier,
        [experience("e0", range(4))],
        monitor="val_acc",
        trainer={"accelerator": "cpu"},
        seconds=0.01,
    )
    with pytest.raises(ConfigurationError, match="no meter of this machine gives joules"):
        estimator.measure(WindowRecorder(UnknownMeter("cpu")))
    with pytest.raises(ConfigurationError, match="measured no energy"):
        measured(power_w=0.0)


@pytest.mark.parametrize("parts_j", [(-1.0, 2.0), (math.nan,), (math.inf,)])
def test_steps_with_impossible_joules_are_refused(parts_j: tuple[float, ...]) -> None:
    with pytest.raises(ConfigurationError, match="finite, 0 or more"):
        StepForecast(parts_j=parts_j, part_steps=1)


def test_the_command_needs_no_budget_and_records_its_own_energy(folder: Path) -> None:
    result = estimate("--json", "--carbon.zone", "DE", "--carbon.pue", "1.5")
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    assert (found["num_experiences"], found["arrived"]) == (3, 2)
    assert found["full_steps"] == [30, 60, 90]
    always = found["always_retraining"]
    assert found["shares"]["0.25"]["mean_j"] == pytest.approx(always["mean_j"] / 4)
    assert set(found["shares"]) == {"0.25", "0.1", "0.05"}
    ledger = Ledger("sqlite:///greentrain.db", create=False)
    (run,) = ledger.rows("run")
    (window,) = ledger.rows("window")
    assert ledger.rows("budget") == []
    assert verify(ledger).ok
    ledger.close()
    assert (run["kind"], run["name"], run["team"]) == (
        "measure",
        "estimate of churn",
        "night shift",
    )
    assert window["energy_j"] == pytest.approx(found["used_j"])
    grams = window["emissions_g"] / window["energy_j"]  # PUE included
    assert always["emissions_g"] == pytest.approx(grams * always["mean_j"])
    assert not {"greentrain-state", "report.html"} & {path.name for path in folder.iterdir()}


def test_the_page_says_what_was_measured_and_what_comes_next(folder: Path) -> None:
    result = estimate()
    assert result.exit_code == 0, result.output
    for text in (
        "one full retraining, 30 steps",
        "always retraining, 3 experiences",
        "25 % of full",
        "Not yet arrived: 1 experience, expected",
        "The estimate itself used",
        "It is recorded in sqlite:///greentrain.db.",
        "Next: greentrain run stream.yaml --budget '",
    ):
        assert text in result.output
    assert "emissions" not in result.output


def test_a_stream_that_never_ends_is_estimated_for_one_experience(folder: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "num_experiences"}
    config["stream"] = {"class_path": "arrivals.never_ending"}
    (folder / "stream.yaml").write_text(yaml.safe_dump(config))
    result = estimate()
    assert result.exit_code == 0, result.output
    assert "Set num_experiences to estimate a whole stream." in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seconds", "0"), "seconds is 0.0"),
        (("--stream", "arrivals.pairs"), "takes an Experience"),
        (("--trainer.max_epoch", "3"), "max_epoch"),
        (("--ledger", "postgres://nowhere"), "postgres"),
    ],
)
def test_a_bad_option_is_one_line_and_leaves_no_run(
    folder: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = estimate(*arguments)
    assert isinstance(result.exception, GreentrainError)
    assert message in str(result.exception)
    assert not (folder / "greentrain.db").exists()
