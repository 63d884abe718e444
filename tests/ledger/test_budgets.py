"""Budgets of carbon, budgets that are renewed or end, and budgets out of budgets."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from greentrain.budget import Budget
from greentrain.carbon import CarbonAccount, CsvIntensity, Emissions, StaticIntensity
from greentrain.errors import BudgetExceeded, ConfigurationError, LedgerError
from greentrain.ledger import Ledger, LedgerAccount, RunLog, verify
from tests.ledger.events import window

KWH_J = 3.6e6


class Calendar:
    """A clock that stands until it is moved."""

    def __init__(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, **by: float) -> None:
        self.now += timedelta(**by)


class Grid:
    """An intensity that is what it is set to."""

    def __init__(self, g_per_kwh: float | None) -> None:
        self.g_per_kwh = g_per_kwh

    def upper_g_per_j(self, moment: datetime) -> float | None:
        return None if self.g_per_kwh is None else self.g_per_kwh / KWH_J


@pytest.fixture
def calendar() -> Calendar:
    return Calendar("2026-11-30T12:00")


@pytest.fixture
def ledger(url: str, calendar: Calendar) -> Iterator[Ledger]:
    opened = Ledger(url, clock=calendar)
    yield opened
    opened.close()


@pytest.fixture
def run(ledger: Ledger) -> Iterator[RunLog]:
    opened = ledger.open_run("stream", "digits")
    yield opened
    opened.close()


def account(ledger: Ledger, run: RunLog, name: str, budget: Budget, **more: Any) -> LedgerAccount:
    return ledger.account(ledger.open_budget(name, budget), run, **more)


def taken(account: LedgerAccount) -> tuple[float, float, float, float]:
    balance = account.balance()
    return balance.total_j, balance.spent_j, balance.reserved_j, balance.left_j


def follows(ledger: Ledger) -> None:
    assert verify(ledger).failures == ()


def test_a_renewed_budget_begins_anew_with_each_period(
    ledger: Ledger, run: RunLog, calendar: Calendar
) -> None:
    monthly = account(ledger, run, "digits", Budget.parse("100 J per month"))
    november = monthly.reserve(70.0, "an update")
    with pytest.raises(BudgetExceeded):
        monthly.reserve(31.0, "another")
    calendar.move(hours=12)  # the first of December
    assert taken(monthly) == (100.0, 0.0, 0.0, 100.0)
    december = monthly.reserve(100.0, "an update")
    assert monthly.settle(november, 80.0) == 10.0  # November's, and so is its overrun
    assert taken(monthly) == (100.0, 0.0, 100.0, 0.0)
    monthly.settle(december, 60.0)
    assert taken(monthly) == (100.0, 60.0, 0.0, 40.0)
    follows(ledger)


def test_carry_over_adds_what_earlier_periods_left(
    ledger: Ledger, run: RunLog, calendar: Calendar
) -> None:
    daily = account(ledger, run, "digits", Budget.parse("100 J per day with carry-over"))
    first = daily.reserve(90.0, "an update")
    calendar.move(days=2)
    assert taken(daily) == (300.0, 0.0, 90.0, 210.0)
    daily.settle(first, 50.0)
    assert taken(daily) == (300.0, 50.0, 0.0, 250.0)
    daily.reserve(250.0, "a large one")
    with pytest.raises(BudgetExceeded):
        daily.reserve(0.001, "one more")
    calendar.move(days=1)
    assert daily.balance().left_j == 100.0
    follows(ledger)


def test_nothing_is_left_at_the_end(ledger: Ledger, run: RunLog, calendar: Calendar) -> None:
    end = calendar.now + timedelta(hours=1)
    budget = Budget(energy_j=100.0, until=end)
    paying = account(ledger, run, "digits", budget)
    reservation = paying.reserve(60.0, "an update")
    calendar.now = end
    assert paying.balance().left_j == 0.0
    with pytest.raises(BudgetExceeded, match="it ended at 2026-11-30T13:00"):
        paying.reserve(1.0, "too late")
    paying.settle(reservation, 50.0)  # what was begun before is paid for
    assert paying.balance().spent_j == 50.0
    assert ledger.open_budget("digits", budget) == paying.budget_id
    follows(ledger)


@pytest.mark.parametrize(
    "changes",
    [
        {"energy_j": 2.0},
        {"num_experiences": 2},
        {"per": "day"},
        {"until": datetime(2030, 1, 1, tzinfo=UTC)},
    ],
)
def test_one_name_has_one_budget(ledger: Ledger, changes: dict[str, Any]) -> None:
    ledger.open_budget("digits", Budget(energy_j=1.0))
    with pytest.raises(ConfigurationError, match="give the stream another name"):
        ledger.open_budget("digits", Budget(**{"energy_j": 1.0, **changes}))


def test_a_budget_stays_with_its_parent(ledger: Ledger) -> None:
    ledger.open_budget("project", Budget(energy_j=3600.0))
    ledger.open_budget("digits", Budget(energy_j=360.0, parent="project"))
    with pytest.raises(ConfigurationError, match=r"360 J out of 'project', and 360 J was"):
        ledger.open_budget("digits", Budget(energy_j=360.0))


def test_a_child_is_promised_out_of_its_parent(ledger: Ledger, run: RunLog) -> None:
    project = account(ledger, run, "project", Budget(energy_j=1000.0))
    project.reserve(300.0, "a survey")
    team = account(ledger, run, "team", Budget(energy_j=600.0, parent="project"))
    assert project.balance().promised_j == 600.0
    assert project.balance().left_j == 100.0
    with pytest.raises(BudgetExceeded) as caught:
        ledger.open_budget("other", Budget(energy_j=101.0, parent="project"))
    assert caught.value.held_by == (
        "300 J by the run 'digits' for a survey",
        "600 J promised to the budget 'team'",
    )
    with pytest.raises(BudgetExceeded, match=r"600 J promised"):
        project.reserve(101.0, "an update")
    model = account(ledger, run, "model", Budget(energy_j=600.0, parent="team"))
    assert team.balance().left_j == 0.0
    model.settle(model.reserve(600.0, "an update"), 500.0)
    assert (team.balance().promised_j, project.balance().left_j) == (600.0, 100.0)
    assert ledger.open_budget("model", Budget(energy_j=600.0, parent="team")) == model.budget_id
    assert ledger.terms(model.budget_id).budget.parent == "team"
    follows(ledger)


def test_what_a_child_overran_its_parent_has_no_more(ledger: Ledger, run: RunLog) -> None:
    project = account(ledger, run, "project", Budget(energy_j=1000.0))
    team = account(ledger, run, "team", Budget(energy_j=600.0, parent="project"))
    team.settle(team.reserve(600.0, "an update"), 650.0)
    balance = project.balance()
    assert (balance.spent_j, balance.overrun_j, balance.promised_j) == (50.0, 50.0, 600.0)
    assert (balance.left_j, balance.within) == (350.0, True)
    follows(ledger)


@pytest.mark.parametrize("parent", ["nowhere", "team"])
def test_a_parent_has_to_be_there(ledger: Ledger, parent: str) -> None:
    with pytest.raises(ConfigurationError, match="open the parent first"):
        ledger.open_budget("team", Budget(energy_j=1.0, parent=parent))


def test_a_child_s_terms_go_with_its_parent_s(ledger: Ledger) -> None:
    ledger.open_budget("project", Budget.parse("100 J per month"))
    with pytest.raises(ConfigurationError, match="per='month' too"):
        ledger.open_budget("team", Budget(energy_j=1.0, parent="project"))
    with pytest.raises(ConfigurationError, match="both in carbon"):
        ledger.open_budget("team", Budget(carbon_g=1.0, parent="project"))


def test_each_period_bears_what_is_promised_anew(
    ledger: Ledger, run: RunLog, calendar: Calendar
) -> None:
    carried = Budget(energy_j=100.0, per="day", carry_over=True)
    project = account(ledger, run, "project", carried)
    calendar.move(days=2)
    assert project.balance().left_j == 300.0
    child = Budget(energy_j=60.0, per="day", parent="project")
    team = account(ledger, run, "team", child)
    # 240 J are left today, and no more than 40 J of each day to come.
    with pytest.raises(BudgetExceeded, match=r"40 J of 100 J are left"):
        ledger.open_budget("other", Budget(energy_j=41.0, per="day", parent="project"))
    ledger.open_budget("other", Budget(energy_j=40.0, per="day", parent="project"))
    project.reserve(200.0, "an update")
    calendar.move(days=3)
    assert project.balance().promised_j == 400.0
    assert (project.balance().left_j, project.balance().within) == (0.0, True)
    team.reserve(60.0, "an update")
    follows(ledger)


def test_a_carbon_budget_pays_in_grams(ledger: Ledger, run: RunLog) -> None:
    grid = Grid(500.0)
    paying = account(ledger, run, "digits", Budget.parse("100 gCO2e"), carbon=grid)
    # 500 g/kWh: 100 g are 0.2 kWh, 720 kJ.
    assert paying.balance().left_j == pytest.approx(0.2 * KWH_J)
    reservation = paying.reserve(0.1 * KWH_J, "an update")
    assert ledger.status(paying.budget_id).taken.reserved == pytest.approx(50.0)
    emissions = Emissions(grams=30.0, intensity_g_per_kwh=300.0)
    run.record(window(by_source={"cpu": 0.1 * KWH_J}, reservation_id=reservation), emissions)
    assert paying.settle(reservation, 0.1 * KWH_J) == 0.0
    status = ledger.status(paying.budget_id)
    assert (status.unit, status.spent, status.left) == ("g", 30.0, 70.0)
    grid.g_per_kwh = 1000.0  # the grid got dirtier: the grams left are fewer joules
    assert paying.balance().left_j == pytest.approx(0.07 * KWH_J)
    paying.reserve(paying.balance().left_j, "all of it")
    with pytest.raises(BudgetExceeded) as caught:
        paying.reserve(1.0, "one more")
    assert "g CO2e of 100 g CO2e are left" in str(caught.value)
    assert ledger.status(paying.budget_id).within
    with pytest.raises(ConfigurationError, match=r"call Ledger\.status"):
        ledger.balance(paying.budget_id)
    follows(ledger)


def test_what_a_window_does_not_say_in_grams_is_charged_at_the_upper_bound(
    ledger: Ledger, run: RunLog
) -> None:
    paying = account(ledger, run, "digits", Budget.parse("100 gCO2e"), carbon=Grid(500.0))
    reservation = paying.reserve(0.1 * KWH_J, "an update")
    run.record(window(by_source={"cpu": 0.08 * KWH_J}, reservation_id=reservation))
    paying.settle(reservation, 0.08 * KWH_J)
    assert ledger.status(paying.budget_id).spent == pytest.approx(40.0)
    follows(ledger)


def test_an_overrun_of_carbon_is_in_grams(ledger: Ledger, run: RunLog) -> None:
    paying = account(ledger, run, "digits", Budget.parse("100 gCO2e"), carbon=Grid(500.0))
    reservation = paying.reserve(0.1 * KWH_J, "an update")
    emissions = Emissions(grams=60.0, intensity_g_per_kwh=600.0)
    run.record(window(by_source={"cpu": 0.1 * KWH_J}, reservation_id=reservation), emissions)
    assert paying.settle(reservation, 0.1 * KWH_J) == 0.0  # not one joule too many
    status = ledger.status(paying.budget_id)
    assert (status.spent, status.taken.overrun) == (60.0, pytest.approx(10.0))
    assert [note for note in verify(ledger).notes if "10 g CO2e more" in note]
    follows(ledger)


def test_nothing_is_reserved_while_no_intensity_is_known(ledger: Ledger, run: RunLog) -> None:
    grid = Grid(500.0)
    paying = account(ledger, run, "digits", Budget.parse("100 gCO2e"), carbon=grid)
    grid.g_per_kwh = None
    assert paying.balance().left_j == 0.0
    with pytest.raises(BudgetExceeded, match="no carbon intensity is known now"):
        paying.reserve(1.0, "an update")


@pytest.mark.parametrize("carbon", [None, Grid(None), CarbonAccount()])
def test_a_carbon_budget_without_an_intensity_is_refused(
    ledger: Ledger, run: RunLog, carbon: Any
) -> None:
    with pytest.raises(ConfigurationError, match="give a zone such as 'DE'"):
        account(ledger, run, "digits", Budget.parse("100 gCO2e"), carbon=carbon)


def test_an_energy_so_clean_that_it_costs_nothing_is_not_endless(
    ledger: Ledger, run: RunLog
) -> None:
    paying = account(ledger, run, "digits", Budget.parse("1 gCO2e"), carbon=Grid(0.0))
    paying.reserve(1e6, "an update")
    assert paying.balance().left_j < 1e13


def test_the_upper_bound_is_the_highest_of_the_hour_to_come(tmp_path: Any) -> None:
    path = tmp_path / "grid.csv"
    path.write_text(
        "datetime_utc,carbon_intensity\n"
        "2026-11-30T12:00,100\n2026-11-30T12:30,300\n2026-11-30T13:30,900\n2026-11-30T14:30,100\n"
    )
    carbon = CarbonAccount(intensity=CsvIntensity(path, zone="DE"), pue=1.5)
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert carbon.upper_g_per_j(noon) == pytest.approx(450.0 / KWH_J)
    assert carbon.upper_g_per_j(noon + timedelta(hours=1)) == pytest.approx(1350.0 / KWH_J)
    assert carbon.upper_g_per_j(noon - timedelta(minutes=1)) is None
    assert carbon.upper_g_per_j(noon + timedelta(hours=5)) is None
    germany = StaticIntensity("DE").g_per_kwh
    assert CarbonAccount(zone="DE").upper_g_per_j(noon) == pytest.approx(germany / KWH_J)


def test_an_unknown_budget_has_no_account(ledger: Ledger, run: RunLog) -> None:
    with pytest.raises(LedgerError, match="has no budget 'nothing'"):
        ledger.account("nothing", run)
