"""Rows of cases: run the ledger's tests of each kind, and count the failed ones."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from _results import Row

from _ledger import ROOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Cases:
    """The tests of one row.

    Args:
        what: Description of the cases.
        files: Their files, or some of the tests in them, as pytest names them.
        size: Environment variable with the number of cases, if there is one.
        full: Its value in the issue.
    """

    what: str
    files: tuple[str, ...]
    size: str = ""
    full: str = ""


CASES = {
    "invariant": Cases(
        what="tests of `spent + reserved <= budget` that failed: a state machine, and 16 processes",
        files=("tests/ledger/test_invariant.py", "tests/ledger/test_contention.py"),
        size="GREENTRAIN_CONTENTION_S",
        full="20",
    ),
    "crash": Cases(
        what="tests of a run and of a stream that are killed at random moments that failed",
        files=(
            "tests/ledger/test_heartbeats.py",
            "tests/callbacks/test_killed.py",
            "tests/training/test_killed_streams.py",
        ),
        size="GREENTRAIN_KILLS",
        full="100",
    ),
    "forgery": Cases(
        what="forgeries that were not found, or found in an untouched ledger",
        files=("tests/ledger/test_verify.py", "tests/ledger/test_forgery.py"),
    ),
    "sick_disk": Cases(
        what="sick disks that stopped training, or lost or doubled a window",
        files=("tests/ledger/test_sick_disk.py",),
    ),
}


def cases(id: str, folder: Path, *, quick: bool, of: Mapping[str, Cases] = CASES) -> Row:
    """Run the tests of one row in a separate process."""
    wanted = of[id]
    row = Row(id=id, what=wanted.what, value=None, unit="cases", reach=0.0)
    missing = [each for each in wanted.files if not (ROOT / each.split("::")[0]).is_file()]
    if missing:
        return _noted(row, f"not run: there is no {', '.join(missing)} yet")
    results_file = folder / f"{id}.xml"
    size = {wanted.size: wanted.full} if wanted.size and not quick else {}
    chosen = [*wanted.files, *(("-m", "not slow") if quick else ())]
    command = [sys.executable, "-m", "pytest", *chosen, "-p", "no:cacheprovider", "-q"]
    done = subprocess.run(
        [*command, f"--junitxml={results_file}"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **size},
        capture_output=True,
        text=True,
        check=False,
    )
    if not results_file.is_file():
        return _noted(row, f"not run: pytest ended with {done.returncode}")
    suite = next(ElementTree.parse(results_file).getroot().iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed, run = counts["failures"] + counts["errors"], counts["tests"] - counts["skipped"]
    note = " ".join([*(f"{key}={value}" for key, value in size.items()), "pytest", *chosen])
    if counts["skipped"]:
        note += f"; {counts['skipped']} skipped"
    if not run:
        return _noted(row, f"not run: {note}")
    return Row(
        id=id,
        what=wanted.what,
        value=float(failed),
        unit="cases",
        reach=0.0,
        seeds=run,
        note=note,
    )


def _noted(row: Row, note: str) -> Row:
    return Row(id=row.id, what=row.what, value=None, unit=row.unit, reach=row.reach, note=note)
