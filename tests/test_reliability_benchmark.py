"""The quick form of the attacks: nothing is lost at a kill or on a sick disk, forgeries show."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests import prepared

ROOT = Path(__file__).parents[1]
ATTACKS = ("kills", "forged", "sick")
GROWTH = ("verify_1e6", "report_1e6", "many_updates")
TESTED = {"meters", "names", "secrets"}  # their tests run anyway
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None or not sys.platform.startswith("linux"),
    reason="no C compiler for the failpoints, or no LD_PRELOAD",
)


@needs_compiler
@pytest.mark.slow
def test_attacks_change_nothing(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    script = ROOT / "examples" / "benchmarks" / "reliability.py"
    arguments = "--quick", "--only", *ATTACKS, *GROWTH, "--out", out
    done = prepared.python(script, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert {row["id"] for row in rows} == {*ATTACKS, *GROWTH}
    attacked = [row for row in rows if row["id"] in ATTACKS]
    assert [row for row in attacked if row["value"] != 0] == []
    assert all(row["seeds"] for row in attacked)
    assert all(row["value"] is not None for row in rows)


def test_rows_of_cases_name_tests_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "benchmarks"))
    from reliability import CASES, IDS

    assert set(CASES) == TESTED
    assert set(IDS) == TESTED | {*ATTACKS, *GROWTH}
    assert all((ROOT / file).is_file() for each in CASES.values() for file in each.files)
