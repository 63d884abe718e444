"""Meters that break every rule: nothing dies of them, and no joule is negative or invented."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.demos.boring_classes import BoringModel

from greentrain import StreamTrainer, measure, open_controller, update
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.energy import ConstantMeter, Reading, Source
from greentrain.errors import ConfigurationError, MeterError
from greentrain.integrations import TransformersCallback
from greentrain.ledger import Ledger, verify
from tests.models import Classifier, experience

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # a guard of unknown energy says so
POWER_W = 10.0
FAULTY_READING = 4


class Strange:
    """A meter of 10 W, each of whose readings comes a second after the last one.

    Args:
        name: What is strange about it.
        joules: Returns the joules for a reading's number and its true joules.
        reading: Returns what ``read`` returns, for a reading's number.
        sources: Returns the sources.
        start: Called by ``start``.
        close: Called by ``close``.
    """

    def __init__(
        self,
        name: str,
        *,
        joules: Callable[[int, float], Any] = lambda number, true: true,
        reading: Callable[[int, Reading], Any] = lambda number, true: true,
        sources: Callable[[], Any] | None = None,
        start: Callable[[], object] = lambda: None,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self._joules, self._reading = joules, reading
        self._sources, self._start, self._close = sources, start, close
        self.count = 0

    def start(self) -> None:
        self._start()

    @property
    def sources(self) -> tuple[Source, ...]:
        if self._sources is not None:
            return self._sources()
        return (Source(name="cpu", method="estimated", relative_uncertainty=0.2),)

    def read(self) -> Reading:
        self.count += 1
        true = Reading(
            duration_s=float(self.count),
            energy_j={"cpu": self._joules(self.count, POWER_W * self.count)},
        )
        return self._reading(self.count, true)

    def close(self) -> None:
        self._close()


def fail(error: BaseException) -> Any:
    raise error


def once(value: Callable[[float], Any]) -> Callable[[int, float], Any]:
    return lambda number, true: value(true) if number == FAULTY_READING else true


def from_then_on(value: Callable[[float], Any]) -> Callable[[int, float], Any]:
    return lambda number, true: value(true) if number >= FAULTY_READING else true


METERS: dict[str, dict[str, Any]] = {
    "NaN once": {"joules": once(lambda true: math.nan)},
    "NaN for ever": {"joules": from_then_on(lambda true: math.nan)},
    "infinite": {"joules": once(lambda true: math.inf)},
    "minus infinity": {"joules": from_then_on(lambda true: -math.inf)},
    "falls once": {"joules": once(lambda true: true - 35.0)},
    "reset to 0": {"joules": from_then_on(lambda true: true - POWER_W * FAULTY_READING)},
    "negative": {"joules": from_then_on(lambda true: -true)},
    "unknown once": {"joules": once(lambda true: None)},
    "unknown for ever": {"joules": from_then_on(lambda true: None)},
    "np.float32": {"joules": lambda number, true: np.float32(true)},
    "np.float64": {"joules": lambda number, true: np.float64(true)},
    "array": {"joules": lambda number, true: np.array([true, true])},
    "tensor": {"joules": lambda number, true: torch.tensor(true)},
    "whole number": {"joules": lambda number, true: int(true)},
    "Decimal": {"joules": lambda number, true: Decimal(true)},
    "Fraction": {"joules": lambda number, true: Fraction(true)},
    "text": {"joules": lambda number, true: f"{true}"},
    "complex": {"joules": lambda number, true: complex(true)},
    "reading is None": {"reading": lambda number, true: None},
    "reading is a dict": {"reading": lambda number, true: {"cpu": 1.0}},
    "duration is NaN": {
        "reading": lambda number, true: Reading(duration_s=math.nan, energy_j=true.energy_j)
    },
    "time goes back": {
        "reading": lambda number, true: Reading(duration_s=-true.duration_s, energy_j=true.energy_j)
    },
    "read raises once": {
        "reading": lambda number, true: fail(OSError("x")) if number == FAULTY_READING else true
    },
    "read raises": {"reading": lambda number, true: fail(RuntimeError("x"))},
    "sources raise": {"sources": lambda: fail(RuntimeError("x"))},
    "sources are None": {"sources": lambda: None},
    "no sources": {"sources": lambda: ()},
    "start raises": {"start": lambda: fail(MeterError("x"))},
    "start raises another error": {"start": lambda: fail(OSError("x"))},
    "close raises": {"close": lambda: fail(RuntimeError("x"))},
}
MEASURED = {
    "np.float32",
    "np.float64",
    "tensor",
    "whole number",
    "Decimal",
    "Fraction",
    "sources raise",
    "sources are None",
    "no sources",
    "close raises",
}
"""Meters whose joules are right."""
QUIET = {
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "limit_train_batches": 3,
    "limit_val_batches": 1,
}


def rows(path: Path) -> list[dict[str, Any]]:
    with closing(Ledger(str(path), create=False)) as ledger:
        assert verify(ledger).failures == ()
        return list(ledger.windows())


def sound(windows: list[dict[str, Any]], meter: Strange) -> float:
    """Assert that no joule is negative or invented, and return those that are known."""
    known = [row["energy_j"] for row in windows if row["energy_j"] is not None]
    assert all(math.isfinite(joules) and joules >= 0 for joules in known)
    assert math.fsum(known) <= POWER_W * meter.count + 1e-6
    assert all(math.isfinite(row["duration_s"]) and row["duration_s"] >= 0 for row in windows)
    return math.fsum(known)


@pytest.fixture(params=METERS)
def meter(request: pytest.FixtureRequest) -> Strange:
    return Strange(request.param, **METERS[request.param])


def warned(caplog: pytest.LogCaptureFixture) -> int:
    return sum(
        record.name.startswith("greentrain") and record.levelno >= logging.WARNING
        for record in caplog.records
    )


def test_energy_monitor(meter: Strange, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = BoringModel()
    before = model.layer.weight.clone()
    monitor = EnergyMonitor(meter=meter, ledger=str(tmp_path / "ledger.db"))
    Trainer(max_epochs=2, callbacks=[monitor], **QUIET).fit(model)
    assert not torch.equal(before, model.layer.weight)
    known = sound(rows(tmp_path / "ledger.db"), meter)
    assert known > 0 or meter.name not in MEASURED
    assert warned(caplog) <= 3


def test_budget_guard(meter: Strange) -> None:
    guard = BudgetGuard("1 kWh", meter=meter)
    model = BoringModel()
    trainer = Trainer(max_epochs=2, callbacks=[guard], **QUIET)
    trainer.fit(model)
    assert trainer.current_epoch == 2
    assert not guard.stopped


def test_stream_trainer(meter: Strange, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with StreamTrainer(
        Classifier,
        budget="1 kWh",
        num_experiences=2,
        monitor="val_acc",
        meter=meter,
        ledger=str(tmp_path / "ledger.db"),
        trainer={"max_epochs": 2, "accelerator": "cpu"},
    ) as stream:
        results = stream.run([experience("a", (0, 1), seed=0), experience("b", (2, 3), seed=1)])
    assert [one.experience_id for one in results] == ["a", "b"]
    assert results[0].steps > 0
    sound(rows(tmp_path / "ledger.db"), meter)
    assert warned(caplog) <= 4


def test_measure(meter: Strange, tmp_path: Path) -> None:
    with measure("work", meter=meter, ledger=str(tmp_path / "ledger.db")) as measured:
        worked = sum(range(10))
    assert worked == 45
    energy_j = measured.reading.total_j
    assert energy_j is None or 0 <= energy_j <= POWER_W * meter.count
    sound(rows(tmp_path / "ledger.db"), meter)


def test_transformers_callback(
    meter: Strange, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("transformers", reason="it is in the extra [transformers]")
    callback = TransformersCallback("1 kWh", meter=meter, ledger=str(tmp_path / "ledger.db"))
    args = None
    state = SimpleNamespace(
        is_world_process_zero=True,
        epoch=0.0,
        global_step=0,
        max_steps=6,
        log_history=[],
        stateful_callbacks={},
    )
    control = SimpleNamespace(should_training_stop=False, should_evaluate=False, should_save=False)
    callback.on_train_begin(args, state, control)
    for epoch in range(2):
        state.epoch = float(epoch)
        callback.on_epoch_begin(args, state, control)
        for _ in range(3):
            callback.on_step_begin(args, state, control)
            state.global_step += 1
            callback.on_step_end(args, state, control)
        callback.on_epoch_end(args, state, control)
    callback.on_train_end(args, state, control)
    assert not callback.stopped and not control.should_training_stop
    known = sound(rows(tmp_path / "ledger.db"), meter)
    assert known > 0 or meter.name not in MEASURED
    assert warned(caplog) <= 3


def streaming(given: Any) -> None:
    StreamTrainer(
        Classifier, budget="1 kWh", num_experiences=2, monitor="val_acc", meter=given, ledger="s.db"
    )


def measuring(given: Any) -> None:
    with measure("work", meter=given, ledger="m.db"):
        pass


def controlling(given: Any) -> None:
    with open_controller("c", budget="1 Wh", num_experiences=1, meter=given, ledger="c.db"):
        pass


def updating(given: Any) -> None:
    data = experience("a", (0, 1), seed=0)
    update(Classifier(), data.train, val=data.val, monitor="val_acc", meter=given)


TAKERS: dict[str, Callable[[Any], Any]] = {
    "EnergyMonitor": EnergyMonitor,
    "BudgetGuard": lambda given: BudgetGuard("1 Wh", meter=given),
    "TransformersCallback": lambda given: TransformersCallback(meter=given),
    "StreamTrainer": streaming,
    "update": updating,
    "measure": measuring,
    "open_controller": controlling,
}


@pytest.mark.parametrize("taker", TAKERS)
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("DE", "Write zone='DE'"),
        (ConstantMeter, "write ConstantMeter"),
        (100.0, "is 100.0, and that is no meter"),
    ],
)
def test_anything_but_a_meter_is_refused_before_anything_starts(
    taker: str, given: Any, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if taker == "TransformersCallback":
        pytest.importorskip("transformers", reason="it is in the extra [transformers]")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=said):
        TAKERS[taker](given)
    assert list(tmp_path.iterdir()) == []
