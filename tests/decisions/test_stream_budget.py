"""What a stream's budget may be: of carbon, renewed, with an end, out of another budget."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from greentrain import Budget
from greentrain.carbon import CarbonAccount
from greentrain.errors import BudgetExceeded, ConfigurationError
from greentrain.ledger import Ledger, verify
from greentrain.report import build, render_html
from greentrain.training import CarbonConfig
from tests.models import Clock
from tests.training.test_stream_trainer import open_ledger, run, stream, trainer


def test_a_carbon_budget_is_kept_in_grams(tmp_path):
    streaming, results, clock = run(
        tmp_path, budget="0.15 gCO2e", carbon=CarbonConfig(zone="DE", pue=1.2)
    )
    assert any(result.steps for result in results)
    g_per_j = CarbonAccount(zone="DE", pue=1.2).upper_g_per_j(datetime.now(UTC))
    ledger = open_ledger(tmp_path)
    status = ledger.status(ledger.find_budget("stream")["budget_id"])
    assert (status.unit, status.total, status.within) == ("g", 0.15, True)
    # 100 W, of which every second was paid for.
    assert status.spent == pytest.approx(clock.seconds * 100.0 * g_per_j)
    assert status.spent <= 0.15 + status.taken.overrun
    assert results[-1].left_j == pytest.approx(status.left / g_per_j)
    assert verify(ledger).ok
    report = build(ledger)
    ledger.close()
    (budget,) = report["budgets"]
    assert (budget["unit"], budget["spent_j"]) == ("g", None)
    assert budget["spent_g"] == pytest.approx(status.spent)
    page = render_html(report)
    assert "g CO2e spent of 0.15 g CO2e" in page
    assert report["experiences"][-1]["budget_left_after_j"] is None
    assert str(streaming.budget) == "0.15 g CO2e for 6 experiences"


def test_a_carbon_budget_without_a_zone_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigurationError, match="give a zone such as zone='DE'"):
        trainer(tmp_path, Clock(), budget="500 gCO2e")
    assert list(tmp_path.iterdir()) == []


def test_a_calibration_is_paid_in_energy(tmp_path):
    with pytest.raises(ConfigurationError, match="calibration_budget is '5 gCO2e'"):
        trainer(tmp_path, Clock(), budget="40 % of full", calibration_budget="5 gCO2e")


def test_a_renewed_budget_and_one_with_an_end_count_what_is_still_expected(tmp_path):
    end = datetime.now(UTC) + timedelta(days=3650)
    budget = Budget.parse("2000 J per quarter with carry-over", num_experiences=6, until=end)
    _, results, _ = run(tmp_path, budget=budget, num_experiences=None)
    assert any(result.steps for result in results)
    ledger = open_ledger(tmp_path)
    found = build(ledger)["experiences"]
    assert [one["state"]["num_experiences"] for one in found] == [6] * 6
    ledger.close()


def test_a_budget_with_an_end_expects_experiences_at_an_even_pace(tmp_path):
    end = datetime.now(UTC) + timedelta(days=3650)
    budget = Budget(energy_j=2000.0, num_experiences=6, until=end)
    run(tmp_path, budget=budget, num_experiences=None)
    ledger = open_ledger(tmp_path)
    found = build(ledger)["experiences"]
    # Six are expected in ten years, and all of that time is left after each.
    assert [one["state"]["num_experiences"] for one in found] == [6, 7, 8, 9, 10, 11]
    ledger.close()


def test_a_budget_that_has_ended_starts_nothing(tmp_path):
    budget = Budget(energy_j=2000.0, until=datetime.now(UTC) - timedelta(seconds=1))
    _, results, clock = run(tmp_path, budget=budget, num_experiences=None)
    assert all(result.budget_exhausted for result in results)
    assert clock.seconds == 0.0


def test_a_stream_pays_out_of_its_parent(tmp_path):
    ledger = Ledger(f"sqlite:///{tmp_path / 'greentrain.db'}")
    project = ledger.open_budget("project", Budget.parse("3000 J"))
    run(
        tmp_path,
        budget=Budget.parse("2000 J", num_experiences=6, parent="project"),
        num_experiences=None,
    )
    assert ledger.balance(project).promised_j == 2000.0
    with pytest.raises(BudgetExceeded, match="promised to the budget 'stream'"):
        trainer(
            tmp_path,
            Clock(),
            name="another",
            budget=Budget.parse("1001 J", parent="project"),
            num_experiences=None,
        )
    share = Budget.parse("5 % of full", num_experiences=6, parent="project")
    clock = Clock()
    with trainer(
        tmp_path,
        clock,
        name="third",
        budget=share,
        num_experiences=None,
        calibration_budget="300 J",
    ) as streaming:
        for each in stream(2):
            streaming.update(each)
    assert streaming.budget.parent == "project"
    balance = ledger.balance(project)
    assert balance.promised_j == 2000.0 + 300.0 + streaming.budget.energy_j
    assert verify(ledger).ok
    ledger.close()


def test_idling_between_updates_is_not_paid_from_the_budget(tmp_path):
    clock, idle_j = Clock(), 0.0
    with trainer(tmp_path, clock) as streaming:
        for each in stream(3):
            streaming.update(each)
            before_s = clock.seconds
            with streaming._runner.run.recorder.phase("idle"):
                clock.seconds += 5.0  # 100 W
            clock.seconds += 7.0  # what no window covers is not measured
            idle_j += 100.0 * (clock.seconds - before_s - 7.0)
    ledger = open_ledger(tmp_path)
    report = build(ledger)
    (budget,) = report["budgets"]
    windows = ledger.rows("window")
    ledger.close()
    assert report["totals"]["without_budget_j"] == pytest.approx(idle_j) == pytest.approx(1500.0)
    assert {row["phase"] for row in windows if row["reservation_id"] is None} == {"idle"}
    assert budget["spent_j"] == pytest.approx(100.0 * clock.seconds - 1500.0 - 2100.0)
    assert budget["spent_j"] + 1500.0 == pytest.approx(report["totals"]["energy_j"])
