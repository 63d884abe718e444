"""The demo as a newcomer runs it, and everything that it leaves behind."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from greentrain.cli.app import main
from greentrain.ledger import Ledger, verify
from greentrain.streams import digits_stream
from tests import prepared

ROOT = Path(__file__).parent.parent


def greentrain(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return prepared.python(*prepared.CLI, *arguments, cwd=cwd)


def new_interpreter(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command as a newcomer does, with nothing loaded."""
    return subprocess.run(
        [sys.executable, "-c", "from greentrain.cli.app import main; main()", *arguments],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    run = new_interpreter("demo", "--out", "out", cwd=folder)
    assert run.returncode == 0, run.stderr
    return run, folder / "out"


@pytest.fixture(scope="module")
def ledger(shown):
    opened = Ledger(str(shown[1] / "greentrain.db"), create=False)
    yield opened
    opened.close()


def test_it_says_what_was_decided_and_where_everything_is(shown):
    run, out = shown
    title, header, *lines = run.stdout.splitlines()
    assert re.fullmatch(r"greentrain demo   budget .* = 25 % of always retraining", title)
    assert header.split() == ["#", "experience", "action", "pred.", "used", "val_acc", "left"]
    # One line for each experience, and the reasons only on request.
    assert [line.split()[:2] for line in lines[:8]] == [
        [str(position), one.id] for position, one in enumerate(digits_stream())
    ]
    # A note on an overrun, or on an update that was not kept, may follow.
    assert all(len(re.split(r"  (?:not kept|\S+ \S+ over its)", one)[0]) <= 80 for one in lines[:8])
    assert len(lines) < 20
    assert re.search(
        r"^Used [\d.,]+ of [\d.,]+ (J|Wh); sizing the budget used another ", "\n".join(lines), re.M
    )
    assert re.search(
        r"^Modelled: \d+ % (less|more) energy than always retraining", "\n".join(lines), re.M
    )
    assert re.search(
        r"^Next: greentrain explain --ledger out/greentrain.db --experience \d-", run.stdout, re.M
    )
    assert "open out/report.html" in run.stdout
    assert f"sqlite:///{out / 'mlflow.db'}" in run.stdout
    assert "workflowType=machine_learning" in run.stdout
    assert run.stderr == ""


def test_the_controller_goes_on_from_the_first_model_where_the_world_changes(ledger):
    decisions = {row["experience_id"]: row for row in ledger.rows("decision")}
    assert len(decisions) == 8
    first, *rest = decisions.values()
    assert (first["update_mode"], first["reason"]) == ("FULL_RETRAIN", "NO_MODEL")
    assert {row["update_mode"] for row in rest} & {"WARM_START", "REPLAY"}
    assert decisions["3-new-classes"]["update_mode"] != "SKIP"
    # A machine that is slowed by others may leave too little for what was decided: the ledger
    # refuses the reservation then, and its sentence has the amounts.
    refused = [row for row in rest if row["reason"] == "BUDGET_EXHAUSTED"]
    assert all(re.search(r"needs .* J, and .* are left", row["sentence"]) for row in refused)
    decided = {row["reason"] for row in rest if row not in refused}
    assert decided <= {"BEST_NET_GAIN", "NO_GAIN", "TOO_EXPENSIVE"}


def test_it_learns_something(ledger):
    afters = [row["metric_after"] for row in ledger.rows("outcome")]
    assert afters[0] > 0.6  # chance is one in ten, or in six at first
    assert afters[-1] > 0.6


def test_nothing_was_overspent_and_everything_follows(ledger):
    found = verify(ledger)
    assert found.ok
    for budget in ledger.rows("budget"):
        balance = ledger.balance(budget["budget_id"])
        assert balance.within
        assert balance.reserved_j == 0
        named = sum("overrun" in note for note in found.notes)
        assert (balance.overrun_j > 0) <= (named > 0)
    default = next(row for row in ledger.rows("budget") if "calibration" not in row["name"])
    # A quarter of eight full retrainings, of which the last one would be the dearest.
    full_j = [
        each["predicted_j"]
        for row in ledger.rows("decision")
        for each in json.loads(row["alternatives"])
        if (each["update_mode"], each["step_fraction"]) == ("FULL_RETRAIN", 1.0)
    ]
    assert 0 < default["energy_j"] < 0.5 * 8 * max(full_j)


def test_the_reports_sums_are_the_ledgers(shown, ledger):
    report = json.loads((shown[1] / "report.json").read_text())
    windows = [row["energy_j"] for row in ledger.rows("window")]
    assert report["totals"]["energy_j"] == pytest.approx(sum(windows), rel=1e-12)
    assert len(report["experiences"]) == 8
    assert report["verification"]["ok"] is True


class Outside(HTMLParser):
    """Collect what a page would ask for, and check that its tags nest."""

    VOID = frozenset({"meta", "br", "hr", "img", "link", "input", "col", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in self.VOID:
            self.open.append(tag)
        self.asked += [
            value
            for name, value in attributes
            if name in ("src", "href", "xlink:href", "action", "data")
            and value
            and not value.startswith("#")
        ]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_parses_and_asks_for_nothing(shown):
    text = (shown[1] / "report.html").read_text()
    page = Outside()
    page.feed(text)
    assert page.open == []
    assert page.asked == []
    assert not re.search(r"@import|url\(|<script", text)


def test_mlflow_has_one_parent_and_a_child_for_each_update(shown, ledger):
    client = MlflowClient(tracking_uri=f"sqlite:///{shown[1] / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("greentrain demo")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    updates = [row for row in ledger.rows("decision") if row["update_mode"] != "SKIP"]
    assert len(parents) == 1
    assert len(runs) == 1 + len(updates)
    assert parents[0].info.status == "FINISHED"
    children = {
        run.info.run_name: run.data.tags["greentrain.update_mode"]
        for run in runs
        if run not in parents
    }
    assert children == {row["experience_id"]: row["update_mode"] for row in updates}
    artifacts = {file.path for file in client.list_artifacts(parents[0].info.run_id)}
    assert artifacts >= {"report.html", "report.json"}


def test_a_second_demo_in_the_same_folder_goes_into_the_same_ledger(shown):
    run = greentrain("demo", "--out", "out", "--budget", "0.000001Wh", cwd=shown[1].parent)
    assert run.returncode == 0, run.stderr
    assert "is too small for any update" in run.stdout
    assert run.stdout.count(" skip ") == 8
    assert "retrain " not in run.stdout
    with sqlite3.connect(shown[1] / "greentrain.db") as database:
        (reserved,) = database.execute(
            "select count(*) from reservations join runs using (run_id) where runs.name = 'demo-2'"
        ).fetchone()
    assert reserved == 0


def test_verify_and_report_work_on_what_the_demo_left(shown, tmp_path):
    run = greentrain("verify", str(shown[1] / "greentrain.db"), cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "everything follows" in run.stdout
    run = greentrain(
        "report", "--ledger", str(shown[1] / "greentrain.db"), "--out", "again", cwd=tmp_path
    )
    assert run.returncode == 0, run.stderr
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"report.html", "report.json"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("demo", "--budget", "3 parsecs"), "the unit 'parsecs' is not known"),
        (("demo", "--budget", "0 Wh"), "more than zero"),
        (("demo", "--budget", "-1 Wh"), "more than zero"),
        (("demo", "--budget", "1 Wh", "--num-experiences", "0"), "num_experiences is 0"),
        (("demo", "--num-experiences", "0"), "num_experiences is 0"),
        (("demo", "--budget", "5 gCO2e"), "give a zone such as zone='DE'"),
        (("demo", "--budget", "5 g"), "write '5 gCO2e'"),
        (("ledger", "budgets", "missing.db"), "the ledger 'missing.db' does not exist"),
        (("ledger", "release", "x", "--ledger", "missing.db"), "'missing.db' does not exist"),
        (("demo", "--zone", "Atlantis"), "no carbon intensity is known for the zone 'Atlantis'"),
        (("report", "--ledger", "missing.db"), "the ledger 'missing.db' does not exist"),
        (("verify", "missing.db"), "the ledger 'missing.db' does not exist"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(tmp_path, arguments, said, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["greentrain", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_report_in_an_unknown_format_writes_nothing(shown, tmp_path):
    run = greentrain(
        "report",
        "--ledger",
        str(shown[1] / "greentrain.db"),
        "--out",
        "x",
        "--format",
        "docx",
        cwd=tmp_path,
    )
    assert run.returncode == 2
    assert "docx" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_doctor_says_what_is_measured_and_how(tmp_path):
    run = greentrain("doctor", cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "cpu" in run.stdout
    assert "estimated" in run.stdout or "counter" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_version(tmp_path):
    from greentrain import __version__

    assert greentrain("--version", cwd=tmp_path).stdout.strip() == f"greentrain {__version__}"
