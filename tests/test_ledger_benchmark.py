"""The ledger's benchmark has a row of every id, and its truths hold in its short form too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import prepared

ROOT = Path(__file__).parents[1]
TIMED = {"append_ms", "verify_s", "balance_ms", "guard_us"}
TESTED = {"invariant", "crash", "forgery", "sick_disk"}  # their tests run anyway


@pytest.mark.slow
def test_every_row_is_there_and_no_cap_is_overshot(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    script = ROOT / "examples" / "benchmarks" / "ledger.py"
    arguments = "--quick", "--only", "overshoot", *sorted(TIMED), "--out", out
    done = prepared.python(script, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert {row["id"] for row in rows} == {"overshoot", *TIMED}
    assert [row for row in rows if row["reach"] == 0 and row["value"]] == []
    # Times are the machine's, and are asserted nowhere.
    assert all(row["value"] is not None or "no PostgreSQL" in row["note"] for row in rows)


def test_rows_of_cases_name_tests_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "benchmarks"))
    from _ledger.cases import CASES

    assert set(CASES) == TESTED
    assert all((ROOT / file).is_file() for each in CASES.values() for file in each.files)
