from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from greentrain.budget import Budget
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger
from tests.ledger.events import window

EVIL = "[red]model[/red]\x1b[2J"


class Half:
    """A grid of half a gram a joule."""

    def upper_g_per_j(self, moment: object) -> float:
        return 0.5


@pytest.fixture
def told(tmp_path: Path) -> dict[str, str]:
    """A ledger with an open reservation of energy and one of carbon, and their ids."""
    ledger = Ledger(str(tmp_path / "one.db"))
    ledger.open_budget("project", Budget.parse("3 Wh"))
    budget = ledger.open_budget("digits", Budget.parse("2 Wh", parent="project"))
    carbon = ledger.open_budget("green", Budget.parse("1 kgCO2e per month"))
    with ledger.open_run("stream", EVIL) as run:
        account = ledger.account(budget, run)
        reservation = account.reserve(3600.0, "a look")
        run.record(window(by_source={"cpu": 1800.0}, reservation_id=reservation))
        account.settle(reservation, 1800.0)
        still_open = account.reserve(1800.0, "[bold]an update[/bold]")
        grams = ledger.account(carbon, run, carbon=Half()).reserve(400.0, "an update")
    ledger.close()
    Ledger(str(tmp_path / "two.db")).close()
    return {"folder": str(tmp_path), "joules": still_open, "grams": grams}


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["ledger", *arguments], catch_exceptions=False)


def answer(*arguments: str) -> Any:
    result = ask(*arguments, "--json")
    assert result.exit_code == 0
    return json.loads(result.output)


def test_budgets_are_shown_of_several_ledgers(told: dict[str, str]) -> None:
    found = answer("budgets", f"{told['folder']}/*.db")
    assert [one["name"] for one in found] == ["project", "digits", "green"]
    project, digits, green = found
    assert (project["promised_j"], project["left_j"], project["unit"]) == (7200.0, 3600.0, "J")
    assert (digits["spent_j"], digits["reserved_j"], digits["left_j"]) == (1800.0, 1800.0, 3600.0)
    assert (digits["parent"], digits["open_reservations"], digits["left_g"]) == ("project", 1, None)
    assert (green["total_g"], green["reserved_g"], green["per"]) == (1000.0, 200.0, "month")
    assert (green["total_j"], green["within"], green["over"]) == (None, True, False)
    page = ask("budgets", f"{told['folder']}/one.db").output
    for text in ("digits", "out of project", "800 g CO2e", "1 kg CO2e per"):
        assert text in page


def test_runs_are_shown_as_text(told: dict[str, str]) -> None:
    (run,) = answer("runs", f"{told['folder']}/*.db")
    assert (run["name"], run["status"], run["energy_j"]) == (EVIL, "completed", 1800.0)
    assert (run["windows"], run["emissions_g"], run["phases"]) == (1, None, {"train_epoch": 1})
    page = ask("runs", f"{told['folder']}/one.db").output
    assert "\x1b" not in page
    assert run["run_id"] in page
    assert "[red]" in page


def test_a_ledger_is_shown_with_its_open_reservations(told: dict[str, str]) -> None:
    one, two = answer("show", f"{told['folder']}/*.db")
    assert one["rows"]["budget"] == 3
    assert [held["reservation_id"] for held in one["open_reservations"]] == [
        told["joules"],
        told["grams"],
    ]
    assert (two["rows"]["budget"], two["first_utc"], two["open_reservations"]) == (0, None, [])
    page = ask("show", f"{told['folder']}/one.db", f"{told['folder']}/two.db").output
    assert told["joules"] in page
    assert "[bold]" in page


def test_an_open_reservation_is_released(told: dict[str, str]) -> None:
    ledger = ("--ledger", f"{told['folder']}/one.db")
    page = ask("release", told["joules"], "--actual", "0.25 Wh", *ledger).output
    assert "is settled at 900 J of 1,800 J reserved (given)" in page
    found = answer("release", told["grams"], "--actual", "0.1 kgCO2e", *ledger)
    assert (found["actual_g"], found["amount_g"], found["actual_j"]) == (100.0, 200.0, None)
    _, digits, green = answer("budgets", ledger[1])
    assert (digits["spent_j"], digits["reserved_j"]) == (2700.0, 0.0)
    assert (green["spent_g"], green["reserved_g"]) == (100.0, 0.0)
    assert CliRunner().invoke(app, ["ledger", "verify", ledger[1]]).exit_code == 0


def test_what_cannot_be_released_says_why(told: dict[str, str]) -> None:
    ledger = ("--ledger", f"{told['folder']}/one.db")
    for actual, complaint in (("20 gCO2e", "of energy"), ("much", "a number"), ("-1 J", "0 or")):
        with pytest.raises(ConfigurationError, match=complaint):
            ask("release", told["joules"], "--actual", actual, *ledger)
    with pytest.raises(ConfigurationError, match="of carbon"):
        ask("release", told["grams"], "--actual", "20 Wh", *ledger)
    with pytest.raises(LedgerError, match="give the amount, such as --actual"):
        ask("release", told["joules"], *ledger)
    with pytest.raises(LedgerError, match="no reservation 'nothing'"):
        ask("release", "nothing", *ledger)
    with pytest.raises(ConfigurationError, match="does not exist"):
        ask("release", told["joules"], "--ledger", f"{told['folder']}/three.db")
