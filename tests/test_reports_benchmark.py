"""The reports' benchmark has a row of every id, and what it counts is right in its short form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import prepared

ROOT = Path(__file__).parents[1]
TIMED = {"report_s", "report_mb"}
TESTED = {"wrong", "recomputed", "hostile", "readable", "empty"}  # their tests run anyway


@pytest.mark.slow
def test_the_large_report_is_the_same_in_every_process(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    script = ROOT / "examples" / "benchmarks" / "reports.py"
    arguments = "--quick", "--only", *sorted(TIMED), "--out", out
    done = prepared.python(script, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["id"]: row for row in json.loads(out.read_text())["rows"]}
    assert set(rows) == {*TIMED, "deterministic"}
    assert rows["deterministic"]["value"] == 0
    # Times and memory are the machine's, and are asserted nowhere.
    assert all(rows[id]["value"] > 0 for id in TIMED)


@pytest.mark.slow
def test_claims_are_judged_rightly(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    script = ROOT / "examples" / "benchmarks" / "reports.py"
    ids = "forgery", "third_party", "restate", "power_ceiling"
    arguments = "--quick", "--only", *ids, "--out", out
    done = prepared.python(script, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = {row["id"]: row for row in json.loads(out.read_text())["rows"]}
    assert rows["forgery"]["value"] == 0
    assert rows["third_party"]["value"] > 0
    assert rows["restate"]["value"] <= 1e-9
    assert rows["power_ceiling"]["value"] == 0


def test_rows_of_cases_name_tests_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "benchmarks"))
    from reports import CASES

    assert set(CASES) == TESTED
    files = [file.partition("::")[0] for each in CASES.values() for file in each.files]
    assert all((ROOT / file).is_file() for file in files)
