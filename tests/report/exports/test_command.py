"""The exports from the command line."""

from __future__ import annotations

from typer.testing import CliRunner

from greentrain.cli.app import app as cli
from tests.report.exports.documents import known
from tests.report.ledgers import stream


def report(tmp_path, *arguments):
    ledger = f"sqlite:///{tmp_path / 'ledger.db'}"
    out = str(tmp_path / "out")
    return CliRunner().invoke(cli, ["report", "--ledger", ledger, "--out", out, *arguments])


def test_the_command_writes_what_is_asked_for_and_says_what_it_lacks(ledger, tmp_path):
    stream(ledger)
    done = report(tmp_path, "--format", "csv, hf")
    assert done.exit_code == 0
    assert [line.rpartition("/")[2] for line in done.stdout.splitlines()] == [
        "report.runs.csv",
        "report.experiences.csv",
        "report.windows.csv",
        "report.hours.csv",
        "report.budgets.csv",
        "report.hf.yaml",
    ]
    assert done.stderr.splitlines() == [
        "hf lacks emissions: no zone was given, so no grams are claimed",
        "hf lacks geographical_location: neither recorded nor stated",
    ]


def test_the_command_puts_the_emissions_into_a_model_card(ledger, tmp_path):
    known(ledger)
    card = tmp_path / "README.md"
    card.write_text("---\nlicense: mit\n---\n# A model\n")
    done = report(tmp_path, "--format", "json", "--card", str(card))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[-2] == f"wrote co2_eq_emissions into {card}"
    assert done.stdout.splitlines()[-1].startswith("Next: greentrain verify ")
    assert card.read_text().startswith("---\nlicense: mit\nco2_eq_emissions:\n  emissions: 1.44\n")
