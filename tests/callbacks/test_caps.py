"""A cap over several fits, and where a cap and its end are shown: 1 J a batch, 2 J a validation."""

from __future__ import annotations

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.loggers import CSVLogger

from greentrain.budget import Budget, format_amount
from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.callbacks.stop_reason import StopReason
from greentrain.carbon import CsvIntensity, StaticIntensity
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.report import build
from tests.callbacks.forks import FORKS, free_port, stopped_together
from tests.models import Classifier, Clock, Tick, constant_meter, loader, trainer

__all__ = ["free_port"]  # a fixture


def fit(clock: Clock, *callbacks: Callback, path: Path | None = None, **options) -> Trainer:
    """Fit for ten epochs of 20 J, each with a validation of 2 J."""
    tick = Tick(clock, 0.01, 0.02)
    options = {"max_epochs": 10, "num_sanity_val_steps": 0, **options}
    fitted = trainer(*callbacks, tick, **options)
    fitted.fit(Classifier(), loader(), loader(2), ckpt_path=path)
    return fitted


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'caps.db'}"


def checked(url: str) -> Ledger:
    """Return a ledger in which all follows; its rows can be read."""
    ledger = Ledger(url, create=False)
    assert verify(ledger).failures == ()
    ledger.close()
    return ledger


# --- a cap for several fits


def test_three_folds_keep_within_one_cap(url):
    clock = Clock()
    guard = BudgetGuard(
        "0.02 Wh", ledger=url, budget="kfold", num_fits=3, meter=constant_meter(clock)
    )
    used_j = []
    for _ in range(3):
        fit(clock, guard)
        used_j.append(guard.used_j)
        assert guard.stopped
    assert clock.seconds * 100.0 == pytest.approx(sum(used_j))
    assert sum(used_j) <= 72.0
    assert min(used_j) >= 18.0  # a third are 24 J
    assert "24 J, of the budget 'kfold'" not in guard.reason  # what the others left was added
    ledger = checked(url)
    (budget,) = ledger.rows("budget")
    assert (budget["name"], budget["energy_j"]) == ("kfold", 72.0)
    assert [row["actual_j"] for row in ledger.rows("settlement")] == pytest.approx(used_j)
    assert ledger.rows("reservation")[0]["amount_j"] == 24.0
    assert [row["status"] for row in ledger.rows("closing")] == ["stopped"] * 3


def test_a_trial_run_writes_no_ledger_and_pays_from_no_budget(url, tmp_path):
    clock = Clock()
    meter = constant_meter(clock)
    guard = BudgetGuard("0.02 Wh", ledger=url, budget="kfold", num_fits=3, meter=meter)
    fit(clock, guard, EnergyMonitor(meter, ledger=url), fast_dev_run=True)
    assert guard.used_j > 0
    assert not guard.stopped
    assert list(tmp_path.glob("caps.db*")) == []


def test_the_fit_after_a_used_up_cap_takes_no_step_and_no_sanity_check(url, caplog):
    clock = Clock()
    for expected in (True, False):
        guard = BudgetGuard("30 J", ledger=url, budget="refits", meter=constant_meter(clock))
        with caplog.at_level("INFO"):
            # The second guard is new, as in another process: it knows no step, and takes one.
            fit(clock, guard, num_sanity_val_steps=2)
        assert guard.stopped
        assert (guard.steps > 1) == expected
    ledger = Ledger(url)
    with ledger.open_run("fit", "other") as run:
        account = ledger.account(ledger.find_budget("refits")["budget_id"], run)
        if account.balance().left_j > 0.1:
            account.settle(account.reserve(account.balance().left_j, "the rest"), 30.0)
    ledger.close()
    before = clock.seconds
    trainer = fit(clock, guard, num_sanity_val_steps=2)
    assert (clock.seconds, trainer.global_step, guard.steps) == (before, 0, 0)
    assert guard.stopped and guard.stop_reason is StopReason.NO_ROOM
    assert "needs a part of the budget 'refits', and 0 Wh of 30 J are left" in guard.reason
    assert f"BudgetGuard stops the fit: {guard.reason}" in caplog.messages
    raising = BudgetGuard(
        "30 J", ledger=url, budget="refits", meter=constant_meter(clock), on_exceed="raise"
    )
    with pytest.raises(BudgetExceeded, match="0 Wh of 30 J are left"):
        fit(clock, raising)
    checked(url)


def test_fits_at_the_same_time_reserve_equal_parts(ledger):
    budget = ledger.open_budget("search", Budget.parse("90 J"))
    with ledger.open_run("fit", "a") as one, ledger.open_run("fit", "b") as other:
        parts = [ledger.account(budget, run).reserve_part(3, "a fit") for run in (one, other, one)]
        assert [part.amount for part in parts] == [30.0] * 3
        with pytest.raises(BudgetExceeded, match=r"0 Wh of 90 J are left .*held: 30 J by the run"):
            ledger.account(budget, other).reserve_part(3, "a fit")
        ledger.account(budget, one).settle(parts[0].reservation_id, 10.0)
        assert ledger.account(budget, other).reserve_part(3, "a fit").amount == 20.0
    assert verify(ledger).failures == ()


def test_a_fit_that_fails_pays_for_what_it_used(url):
    class Fails(Callback):
        def on_train_batch_end(self, trainer, *args, **kwargs):
            if trainer.global_step == 7:
                raise RuntimeError("lost")

    clock = Clock()
    guard = BudgetGuard("72 J", ledger=url, budget="kfold", meter=constant_meter(clock))
    with pytest.raises(RuntimeError, match="lost"):
        fit(clock, guard, Fails())
    ledger = checked(url)
    assert ledger.rows("settlement")[0]["actual_j"] == pytest.approx(7.0)
    assert ledger.rows("closing")[0]["status"] == "failed"


def test_a_resumed_fit_does_not_pay_twice(url, tmp_path):
    clock = Clock()
    guard = BudgetGuard("72 J", ledger=url, budget="kfold", meter=constant_meter(clock))
    fit(clock, guard, max_epochs=1).save_checkpoint(tmp_path / "first.ckpt")
    fit(clock, guard, max_epochs=2, path=tmp_path / "first.ckpt")
    assert (guard.steps, guard.stopped) == (40, False)
    assert guard.used_j == pytest.approx(22.0)
    assert checked(url).rows("settlement")[-1]["sum_spent"] == pytest.approx(44.0)


@pytest.mark.parametrize("first", [True, False])
def test_the_windows_of_a_monitor_are_paid_for_once(url, first):
    clock = Clock()
    meter = constant_meter(clock)
    monitor = EnergyMonitor(meter, ledger=url, summary=False, zone="DE")
    guard = BudgetGuard("60 J", ledger=url, budget="kfold", num_fits=2)
    for _ in range(2):
        fit(clock, *((monitor, guard) if first else (guard, monitor)))
    ledger = checked(url)
    assert [row["name"] for row in ledger.rows("run")] == ["Classifier"] * 2
    windows = ledger.rows("window")
    assert {row["reservation_id"] for row in windows} == {
        row["reservation_id"] for row in ledger.rows("settlement")
    }
    assert sum(row["energy_j"] for row in windows) == pytest.approx(clock.seconds * 100.0)
    assert ledger.rows("settlement")[-1]["sum_spent"] == pytest.approx(clock.seconds * 100.0)


def test_a_monitor_with_another_ledger_keeps_its_own_windows(url, tmp_path):
    clock = Clock()
    meter = constant_meter(clock)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    monitor = EnergyMonitor(meter, ledger=other, summary=False)
    fit(clock, monitor, BudgetGuard("60 J", ledger=url, budget="kfold"), max_epochs=1)
    for each in (url, other):
        rows = checked(each).rows("window")
        assert sum(row["energy_j"] for row in rows) == pytest.approx(22.0)
    assert checked(other).rows("budget") == []


def test_a_cap_of_carbon_for_several_fits_is_settled_in_grams(url):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=url, summary=False, zone="DE")
    guard = BudgetGuard("0.006 gCO2e", ledger=url, budget="kfold", num_fits=2)
    for _ in range(2):
        fit(clock, monitor, guard)
        assert guard.stopped
    ledger = checked(url)
    settled = [row["actual_g"] for row in ledger.rows("settlement")]
    assert ledger.rows("reservation")[0]["amount_g"] == pytest.approx(0.003)
    used_g = clock.seconds * 100.0 * StaticIntensity("DE").g_per_kwh / 3.6e6
    assert sum(settled) == pytest.approx(used_g)
    assert used_g <= 0.006


def test_a_cap_may_be_renewed_if_it_is_for_several_fits(url):
    clock = Clock()
    guard = BudgetGuard(
        "30 J per month", ledger=url, budget="ci", meter=constant_meter(clock), num_fits=2
    )
    fit(clock, guard)
    assert guard.used_j <= 15.0
    assert checked(url).rows("budget")[0]["per"] == "month"


@FORKS
def test_ranks_share_a_part(url, tmp_path):
    clock = Clock()
    guard = BudgetGuard(
        "120 J", ledger=url, budget="kfold", num_fits=2, meter=constant_meter(clock)
    )
    first = stopped_together(tmp_path, guard, Tick(clock, 0.01, 0.02))
    assert first["used_j"] <= 60.0
    (settled,) = checked(url).rows("settlement")
    assert settled["actual_j"] == pytest.approx(first["used_j"])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"budget": "kfold"}, "add ledger='sqlite:///greentrain.db'"),
        ({"num_fits": 3}, "budget='kfold'"),
        ({"keep_j": "3"}, "keep_j='3'"),
        ({"meter": "best"}, "meter=...) is 'best', and that is no meter"),
        ({"budget": "kfold", "ledger": "x.db", "num_fits": 0}, "1 or more"),
        ({"budget": "kfold", "ledger": "x.db", "num_fits": 2.5}, "1 or more"),
        ({"budget": "kfold", "ledger": "x.db", "on_exceed": "warn"}, "'stop' or 'raise'"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments, named):
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        BudgetGuard("1 Wh", **arguments)


def test_another_amount_under_the_same_name_is_refused_before_the_first_batch(url):
    clock = Clock()
    fit(clock, BudgetGuard("30 J", ledger=url, budget="kfold", meter=constant_meter(clock)))
    before = clock.seconds
    with pytest.raises(ConfigurationError, match="has a budget 'kfold' of 30 J"):
        fit(clock, BudgetGuard("40 J", ledger=url, budget="kfold", meter=constant_meter(clock)))
    assert clock.seconds == before


def test_a_guard_can_be_copied_and_pickled_before_and_after_a_fit(url):
    clock = Clock()
    guard = BudgetGuard("30 J", ledger=url, budget="search")
    assert pickle.loads(pickle.dumps(guard)).cap_j == 30.0
    fit(clock, guard, EnergyMonitor(constant_meter(clock), ledger=False, summary=False))
    assert guard.reason != ""
    assert copy.deepcopy(guard).cap_j == 30.0


# --- where a cap and its end are shown


def test_a_stop_is_shown_in_loggers_bar_table_and_report(url, tmp_path, capsys):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=url)
    guard = BudgetGuard("36 J")
    logger = CSVLogger(tmp_path, name="csv")
    trainer = fit(clock, guard, monitor, logger=logger)
    used_wh = guard.used_j / 3600.0
    assert trainer.callback_metrics["budget/used_wh"] == pytest.approx(used_wh)
    assert trainer.callback_metrics["budget/left_wh"] == pytest.approx(0.01 - used_wh)
    assert trainer.progress_bar_metrics["budget/left_wh"] == pytest.approx(0.01 - used_wh)
    assert "budget/left_wh" in Path(logger.log_dir, "metrics.csv").read_text().splitlines()[0]
    assert f"cap of 36 J      │ {guard.used_j:.0f} J used, stopped" in capsys.readouterr().out
    ledger = checked(url)
    report = build([ledger])
    (run,) = report["runs"]
    assert run["status"] == "stopped"
    (budget,) = report["budgets"]
    assert budget["total_j"] == 36.0
    assert budget["spent_j"] == pytest.approx(guard.used_j)
    assert budget["kept"]
    ledger.close()


def test_a_fit_that_ends_below_its_cap_is_completed(url):
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=url, summary=False)
    fit(clock, monitor, BudgetGuard("1 kWh"), max_epochs=1)
    assert [row["status"] for row in checked(url).rows("closing")] == ["completed"]


def test_used_and_left_of_a_carbon_cap_are_grams_and_log_turns_them_off():
    clock = Clock()
    guard = BudgetGuard("5 gCO2e", zone="DE", meter=constant_meter(clock))
    metrics = fit(clock, guard, max_epochs=1).callback_metrics
    assert metrics["budget/left_g"] == pytest.approx(5.0 - guard.used_g)
    assert "budget/left_wh" not in metrics
    quiet = BudgetGuard("1 kWh", meter=constant_meter(clock), log=False)
    assert "budget/left_wh" not in fit(clock, quiet, max_epochs=1).callback_metrics


def test_a_warning_comes_when_the_cap_is_crossed_and_the_reason_has_the_end():
    clock = Clock()
    crossed = []

    class Look(Callback):
        def on_train_batch_end(self, trainer, *args, **kwargs):
            if guard.reason and not crossed:
                crossed.append(trainer.global_step)

    guard = BudgetGuard("36 J", meter=constant_meter(clock), on_exceed="warn")
    with pytest.warns(UserWarning, match="more than its cap of 36 J; training continues") as warned:
        fit(clock, guard, Look(), max_epochs=3)
    assert len([each for each in warned if "BudgetGuard" in str(each.message)]) == 1
    assert crossed == [35]  # 35 J of steps and 2 J of validation
    assert not guard.stopped
    assert guard.stop_reason is StopReason.CAP_EXCEEDED
    assert guard.reason == "the fit used 66 J, 30 J more than its cap of 36 J"


def test_no_warning_without_a_crossing():
    clock = Clock()
    guard = BudgetGuard("66 J", meter=constant_meter(clock), on_exceed="warn")
    fit(clock, guard, max_epochs=3)  # exactly 66 J
    assert guard.reason == ""


# --- the zone of the monitor


def test_a_carbon_cap_takes_the_zone_and_pue_of_the_monitor():
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger=False, summary=False, zone="DE", pue=1.5)
    guard = BudgetGuard("5 gCO2e")
    fit(clock, guard, monitor, max_epochs=1)
    assert guard.used_g == pytest.approx(monitor.emissions_g)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"zone": "FR"}, "of zone 'FR', and EnergyMonitor of zone 'DE' at a PUE of 1.5"),
        ({"zone": "DE", "pue": 1.2}, "of zone 'DE' at a PUE of 1.2"),
        ({"intensity": StaticIntensity("PL")}, "of zone 'PL'"),
    ],
)
def test_two_different_zones_in_one_trainer_are_refused(arguments, named):
    clock = Clock()
    monitor = EnergyMonitor(ledger=False, summary=False, zone="DE", pue=1.5)
    with pytest.raises(MisconfigurationException, match=named):
        fit(clock, monitor, BudgetGuard("5 gCO2e", meter=constant_meter(clock), **arguments))
    assert clock.seconds == 0.0


def test_two_guards_of_different_zones_are_refused():
    clock = Clock()
    meter = constant_meter(clock)
    guards = (
        BudgetGuard("5 gCO2e", zone="DE", meter=meter),
        BudgetGuard("500 J", zone="FR", meter=meter),
    )
    with pytest.raises(MisconfigurationException, match="and BudgetGuard of zone 'FR'"):
        fit(clock, *guards)
    assert clock.seconds == 0.0


def test_one_zone_in_two_spellings_is_accepted():
    clock = Clock()
    guard = BudgetGuard("5 gCO2e", meter=constant_meter(clock), zone="DEU")
    fit(clock, EnergyMonitor(ledger=False, summary=False, zone="DE"), guard, max_epochs=1)
    assert guard.used_g > 0


def test_two_files_of_one_name_and_zone_are_different(tmp_path):
    files = []
    for folder, g_per_kwh in (("a", 300), ("b", 900)):
        file = tmp_path / folder / "de.csv"
        file.parent.mkdir()
        lines = f"2020-01-01T00:00Z,{g_per_kwh}\n2099-01-01T00:00Z,500\n"
        file.write_text(f"datetime_utc,carbon_intensity\n{lines}")
        files.append(CsvIntensity(file, zone="DE"))
    clock = Clock()
    monitor = EnergyMonitor(ledger=False, summary=False, intensity=files[0])
    guard = BudgetGuard("5 gCO2e", meter=constant_meter(clock), intensity=files[1])
    with pytest.raises(MisconfigurationException, match="give both the same intensity"):
        fit(clock, monitor, guard)


@pytest.mark.parametrize("written", ["kfold.db", "./kfold.db", "{folder}/kfold.db"])
def test_a_ledger_in_two_spellings_has_the_fit_once(tmp_path, monkeypatch, written):
    monkeypatch.chdir(tmp_path)
    clock = Clock()
    monitor = EnergyMonitor(constant_meter(clock), ledger="sqlite:///kfold.db", summary=False)
    guard = BudgetGuard("100 J", ledger=written.format(folder=tmp_path), budget="kfold")
    fit(clock, monitor, guard, max_epochs=1)
    ledger = checked("sqlite:///kfold.db")
    assert len(ledger.rows("run")) == 1
    (settled,) = ledger.rows("settlement")
    assert settled["actual_j"] == pytest.approx(monitor.total.total_j)


def caps_of(url: str) -> list[dict[str, Any]]:
    """Return the caps in the only closing row of a ledger, which the report has, too."""
    ledger = checked(url)
    (closing,) = ledger.rows("closing")
    assert closing["status"] == "stopped"
    (run,) = build(ledger)["runs"]
    ledger.close()
    assert run["caps"] == json.loads(closing["caps"] or "[]")
    return [dict(cap) for cap in run["caps"]]


@pytest.mark.parametrize("monitored", [True, False])
@pytest.mark.parametrize("own_ledger", [None, "the same"])
@pytest.mark.parametrize("own_first", [True, False])
def test_both_caps_of_a_fit_are_in_its_closing_row(url, monitored, own_ledger, own_first):
    clock = Clock()
    meter = constant_meter(clock)
    own = BudgetGuard("5 J", meter=meter, ledger=url if own_ledger else None)
    shared = BudgetGuard("100 J", meter=meter, ledger=url, budget="kfold", num_fits=2)
    guards = [own, shared] if own_first else [shared, own]
    monitors = [EnergyMonitor(meter, ledger=url, summary=False)] if monitored else []
    fit(clock, *monitors, *guards)
    assert (own.stopped, shared.stopped) == (True, False)
    used, left = format_amount(own.used_j, "J"), format_amount(5.0 - own.used_j, "J")
    caps = sorted(caps_of(url), key=lambda cap: len(cap["cap"]))
    assert caps == [
        {"cap": "5 J", "used": used, "left": left, "stopped": True, "budget": None},
        {
            "cap": "50 J",
            "used": used,
            "left": format_amount(50.0 - shared.used_j, "J"),
            "stopped": False,
            "budget": "kfold",
        },
    ]
    assert own.state_key != shared.state_key
    ledger = Ledger(url)
    assert len(ledger.rows("run")) == len(ledger.rows("settlement")) == 1
    assert [row["name"] for row in ledger.rows("budget")] == ["kfold"]
    ledger.close()


def test_a_cap_of_energy_and_one_of_carbon_are_both_in_the_report(url):
    clock = Clock()
    meter = constant_meter(clock)
    energy, carbon = BudgetGuard("5 J", meter=meter), BudgetGuard("1 kgCO2e", meter=meter)
    fit(clock, EnergyMonitor(meter, ledger=url, zone="DE", summary=False), energy, carbon)
    assert [(cap["cap"], cap["stopped"]) for cap in caps_of(url)] == [
        ("5 J", True),
        (format_amount(1000.0, "g"), False),
    ]


def test_two_budgets_of_one_ledger_are_refused(url):
    clock = Clock()
    meter = constant_meter(clock)
    guards = [BudgetGuard("100 J", meter=meter, ledger=url, budget=name) for name in ("a", "b")]
    with pytest.raises(MisconfigurationException, match="budgets 'a' and 'b' of one ledger"):
        fit(clock, *guards)
    assert clock.seconds == 0.0


def test_the_same_zone_twice_and_a_zone_of_the_guard_alone_are_accepted():
    clock = Clock()
    for zone in ("DE", None):
        monitor = EnergyMonitor(ledger=False, summary=False, zone=zone)
        guard = BudgetGuard("5 gCO2e", meter=constant_meter(clock), zone="DE")
        fit(clock, guard, monitor, max_epochs=1)
        assert guard.used_g > 0


def test_a_carbon_cap_without_any_zone_is_refused_in_setup():
    clock = Clock()
    with pytest.raises(ConfigurationError, match="here or to EnergyMonitor"):
        fit(clock, BudgetGuard("5 gCO2e", meter=constant_meter(clock)))
    assert clock.seconds == 0.0
