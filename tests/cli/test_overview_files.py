"""``greentrain report --by`` and ``--overview``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from greentrain.cli.app import app
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from tests.report.ledgers import stream


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    ledger = Ledger(str(tmp_path / "greentrain.db"))
    stream(ledger)
    ledger.close()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["report", *arguments], catch_exceptions=False)
    assert found.exit_code == 0
    return found.stdout


def test_rows_are_printed_and_written(folder: Path) -> None:
    printed = report("--by", "stream", "--out", "out")
    assert "1.5 Wh" in printed
    assert "val_acc 0.8" in printed
    assert (folder / "out" / "by_stream.csv").read_text().startswith("row,name,ledger")
    assert not (folder / "out" / "report.json").exists()


def test_the_overview_is_compared_with_the_file_that_it_replaces(folder: Path) -> None:
    report("--overview")
    report("--overview", "--earlier", "overview.json")
    change = json.loads((folder / "overview.json").read_text())["streams"][0]["change"]
    assert (change["experiences"], change["energy_j"]) == (0, 0.0)
    assert "Changes are against" in (folder / "overview.html").read_text()


def test_the_overview_prints_its_actions(folder: Path) -> None:
    printed = report("--overview")
    assert "greentrain explain --ledger greentrain.db --stream digits" in printed


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--by", "week"], "allowed are stream, run, team, project, month"),
        (["--by", "stream", "--overview"], "give one of them"),
        (["--earlier", "overview.json"], "add --overview"),
        (["--by", "stream", "--earlier", "overview.json"], "add --overview"),
        (["--overview", "--earlier", "none.json"], "No such file"),
        (["--overview", "--format", "pdf"], "--format cannot be used with --overview"),
        (["--by", "run", "--run", "x", "--card", "README.md"], "--card and --run cannot be used"),
        (["--overview", "--name", "none*"], "no run's name matches"),
    ],
)
def test_bad_options_are_refused(folder: Path, arguments: list[str], error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        report(*arguments)
    assert [one.name for one in folder.iterdir() if one.suffix in (".html", ".csv")] == []


@pytest.mark.parametrize("name", ["overview.html", "overview.json"])
def test_verify_says_that_an_overview_is_no_report(folder: Path, name: str) -> None:
    report("--overview")
    with pytest.raises(ConfigurationError, match="is an overview, which is not checked"):
        CliRunner().invoke(
            app, ["verify", name, "--ledger", "greentrain.db"], catch_exceptions=False
        )
