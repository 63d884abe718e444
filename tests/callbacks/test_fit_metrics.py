"""The final metrics of a fit: 1 J a batch, so an epoch of 20 batches uses 20 J."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.callbacks.fit_metrics import LONGEST_NAME, MOST_METRICS, final_metrics
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.report import build
from greentrain.report.trials import trials
from tests.callbacks.forks import FORKS
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer


def after(metrics: object, *monitors: tuple[str | None, str]) -> SimpleNamespace:
    """A Trainer that has logged metrics, with a callback that monitors each metric."""
    callbacks = [SimpleNamespace(monitor=monitor, mode=mode) for monitor, mode in monitors]
    return SimpleNamespace(callback_metrics=metrics, callbacks=callbacks)


def test_finite_numbers_are_kept_those_that_are_monitored_first() -> None:
    logged = {
        "loss": torch.tensor(0.5),
        "acc": torch.tensor([0.75]),
        "nan": torch.tensor(float("nan")),
        "huge": 1e400,
        "two": torch.ones(2),
        "text": "high",
        "count": 3,
        "energy/total_wh": 1.0,
        "energy/gpu_0_epoch_wh": 1.0,
        "energy/mae": 2.0,
        "n" * (LONGEST_NAME + 1): 1.0,
        "line\nbreak": 1.0,
        "\ud800": 1.0,
    }
    trained = after(logged, (None, "min"), ("acc", "max"), ("acc", "min"), ("loss", "auto"))
    found = [(one["name"], one["value"], one["mode"]) for one in final_metrics(trained, {})]
    assert found == [
        ("acc", 0.75, "max"),
        ("loss", 0.5, None),
        ("count", 3.0, None),
        ("energy/mae", 2.0, None),
    ]
    (first, second, *_) = final_metrics(trained, {"loss": "min"})
    assert (first["name"], first["mode"], second["name"]) == ("loss", "min", "acc")


def test_of_many_metrics_the_one_that_matters_is_kept() -> None:
    trained = after({f"m{place}": place for place in range(1000)}, ("m999", "min"))
    found = final_metrics(trained, {})
    assert [one["name"] for one in found] == ["m999", *(f"m{n}" for n in range(MOST_METRICS - 1))]


@pytest.mark.parametrize("metrics", [None, 3, {1: object()}])
def test_metrics_of_any_kind_end_no_fit(metrics: object) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert final_metrics(after(metrics), {}) == []


def test_a_named_metric_that_was_not_logged_is_said() -> None:
    with pytest.warns(UserWarning, match=r"no finite 'val_ac' at its end.* It logged val_acc"):
        final_metrics(after({"val_acc": 0.5}), {"val_ac": "max"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "acc"}, r"EnergyMonitor\(metric='acc', mode=None\) .* give mode='max'"),
        ({"metric": "acc", "mode": "up"}, "give mode='max' or mode='min'"),
        ({"mode": "min"}, "names no metric; add the metric"),
        ({"metric": "", "mode": "min"}, "must be a text that is not empty"),
        ({"metric": "m" * 101, "mode": "min"}, "may have 100"),
    ],
)
def test_a_metric_needs_a_name_and_a_direction(arguments: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EnergyMonitor(**arguments)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_fits_of_a_search_and_a_resumed_one_are_trials(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'fits.db'}", Clock()
    folder = tmp_path / "kept"

    def fit(*callbacks, path: Path | None = None, **options) -> None:
        options = {"num_sanity_val_steps": 0, "default_root_dir": tmp_path, **options}
        run = trainer(*callbacks, Tick(clock), **options)
        run.fit(Classifier(), loader(), loader(8), ckpt_path=path)

    def monitor(**changes) -> EnergyMonitor:
        return EnergyMonitor(constant_meter(clock), ledger=url, summary=False, **changes)

    kept = ModelCheckpoint(folder, monitor="val_acc", mode="max", save_last=True)
    fit(monitor(), kept, enable_checkpointing=True, max_epochs=1)
    fit(monitor(metric="val_acc", mode="max"), max_epochs=2)
    again = ModelCheckpoint(folder, monitor="val_acc", mode="max")
    path = folder / "last.ckpt"
    fit(monitor(), again, path=path, enable_checkpointing=True, max_epochs=3)
    guard = BudgetGuard("1 Wh", ledger=url, meter=constant_meter(clock))
    fit(guard, EarlyStopping("val_loss", mode="min"), max_epochs=1)
    fit(monitor(), max_epochs=1)  # nothing says what is better
    ledger = Ledger(url, create=False)
    assert verify(ledger).ok
    closings = ledger.rows("closing")
    report = build(ledger)
    ledger.close()
    assert [one["resumed_j"] for one in closings] == [None, None, pytest.approx(20.0), None, None]
    assert [json.loads(one["metrics"])[0]["name"] for one in closings[:3]] == ["val_acc"] * 3
    assert [
        (one["name"], one["metric"], one["mode"], one["energy_j"]) for one in trials(report)
    ] == [
        ("Classifier (1)", "val_acc", "max", pytest.approx(20.0)),
        ("Classifier (2)", "val_acc", "max", pytest.approx(40.0)),
        ("Classifier (3)", "val_acc", "max", pytest.approx(60.0)),  # 20 J before, 40 J after
        ("Classifier (4)", "val_loss", "min", pytest.approx(20.0)),
    ]
    assert {one["name"] for one in report["runs"][-1]["metrics"]} == {"val_acc", "val_loss"}


@pytest.mark.filterwarnings("ignore:It is recommended to use")
def test_a_fit_resumed_without_its_earlier_energy_has_no_metric(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'fits.db'}", Clock()
    first = trainer(Tick(clock), default_root_dir=tmp_path, max_epochs=1)
    first.fit(Classifier(), loader(), loader(8))  # with no monitor
    first.save_checkpoint(tmp_path / "a.ckpt")
    late = EnergyMonitor(
        constant_meter(clock), ledger=url, summary=False, metric="val_acc", mode="max"
    )
    second = trainer(late, Tick(clock), default_root_dir=tmp_path, max_epochs=2)
    second.fit(Classifier(), loader(), loader(8), ckpt_path=tmp_path / "a.ckpt")
    ledger = Ledger(url, create=False)
    assert [one["metrics"] for one in ledger.rows("closing")] == [None]
    ledger.close()


@FORKS
@pytest.mark.filterwarnings("ignore:It is recommended to use", "ignore:.*fork.*:DeprecationWarning")
def test_the_metrics_of_a_fit_in_two_processes_are_kept_once(tmp_path: Path) -> None:
    url, clock = f"sqlite:///{tmp_path / 'fits.db'}", Clock()
    monitor = EnergyMonitor(
        constant_meter(clock), ledger=url, summary=False, metric="val_acc", mode="max"
    )
    run = trainer(monitor, Tick(clock), max_epochs=1, devices=2, strategy="ddp_fork")
    run.fit(Classifier(), loader(), loader(8))
    os.environ.pop("MASTER_PORT", None)
    ledger = Ledger(url, create=False)
    (closing,) = ledger.rows("closing")
    ledger.close()
    first = json.loads(closing["metrics"])[0]
    assert (first["name"], first["mode"]) == ("val_acc", "max")
    assert first["value"] == pytest.approx(float(run.callback_metrics["val_acc"]))
