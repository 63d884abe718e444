"""The ledgers that ``greentrain report`` reads if none is given."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from greentrain.budget import Budget
from greentrain.cli.app import app
from greentrain.errors import ConfigurationError, LedgerError
from greentrain.ledger import Ledger
from tests.ledger.events import window


def make(path: Path, name: str) -> None:
    path.parent.mkdir(exist_ok=True)
    ledger = Ledger(str(path))
    with ledger.open_run("fit", name) as run:
        run.record(window(by_source={"cpu": 3600.0}))
    ledger.close()


def report(*arguments: str) -> Result:
    found = CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return found


def names(folder: Path) -> list[str]:
    document = json.loads((folder / "report.json").read_text())
    return sorted(run["name"] for run in document["runs"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_ledgers_of_monitors_are_found(folder: Path) -> None:
    for name in ("first", "second"):
        make(folder / "greentrain_logs" / f"{name}.db", name)
    found = report()
    assert names(folder) == ["first", "second"]
    assert "reading greentrain_logs/*.db" in found.stderr
    assert "greentrain verify report.json --ledger 'greentrain_logs/*.db'" in found.stdout


def test_a_ledger_of_the_folder_comes_first(folder: Path) -> None:
    make(folder / "greentrain_logs" / "log.db", "log")
    make(folder / "greentrain.db", "own")
    assert "reading greentrain.db" in report().stderr
    assert names(folder) == ["own"]


def test_without_a_ledger_the_error_says_where_to_find_one(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="the path that EnergyMonitor prints"):
        report()
    assert list(folder.iterdir()) == []


def test_verify_and_explain_find_what_report_finds(folder: Path) -> None:
    for name in ("first", "second"):
        make(folder / "greentrain_logs" / f"{name}.db", name)
    done = CliRunner().invoke(app, ["verify"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "reading greentrain_logs/*.db" in done.stderr
    assert done.stdout.count("everything follows") == 2
    with pytest.raises(ConfigurationError) as caught:
        CliRunner().invoke(app, ["explain"], catch_exceptions=False)
    assert "no decision of a controller; it holds the energy of second" in str(caught.value)


def test_the_command_is_a_module_too(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "greentrain", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("greentrain ")


def test_a_forged_infinite_amount_is_one_error_and_writes_nothing(folder: Path) -> None:
    ledger = Ledger("forged.db")
    with ledger.open_run("stream", "forged") as run:
        account = ledger.account(ledger.open_budget("day", Budget(energy_j=100.0)), run)
        account.settle(account.reserve(10.0, "an update"), 5.0)
    ledger.close()
    with closing(sqlite3.connect("forged.db")) as database, database:
        database.execute("UPDATE settlements SET actual_j = 9e999")
    with pytest.raises(LedgerError, match=r"infinite or NaN.*greentrain verify"):
        report("--ledger", "forged.db", "--out", "out")
    assert not list((folder / "out").glob("*"))
