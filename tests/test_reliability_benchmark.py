"""The quick form of the attacks: nothing is lost at a kill or on a sick disk, forgeries show."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ATTACKS = ("kills", "forged", "sick")
TESTED = {"meters", "names", "secrets"}  # their tests run anyway
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None or not sys.platform.startswith("linux"),
    reason="no C compiler for the failpoints, or no LD_PRELOAD",
)


@needs_compiler
@pytest.mark.slow
def test_attacks_change_nothing(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    script = str(ROOT / "examples" / "benchmarks" / "reliability.py")
    done = subprocess.run(
        [sys.executable, script, "--quick", "--only", *ATTACKS, "--out", out],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert {row["id"] for row in rows} == set(ATTACKS)
    assert [row for row in rows if row["value"] != 0] == []
    assert all(row["seeds"] for row in rows)


def test_rows_of_cases_name_tests_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "benchmarks"))
    from reliability import CASES, IDS

    assert set(CASES) == TESTED
    assert set(IDS) > TESTED | set(ATTACKS)
    assert all((ROOT / file).is_file() for each in CASES.values() for file in each.files)
