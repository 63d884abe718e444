"""Start the processes of ``host.py``, and collect what their cases found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _results import Row

from _reliability import ROOT
from _reliability.failpoints import build

_AT_ONCE = 2
_SHOWN = 3


def tried(
    folder: Path,
    tries: Sequence[str],
    *,
    most: int = 0,
    together: bool = False,
    parts: int = 1,
    options: Sequence[str] = (),
) -> dict[str, list[dict[str, Any]]]:
    """Return the cases of some tries, such as ``"policy:kill"``.

    Args:
        folder: A folder for everything.
        tries: Setup and kind of each.
        most: Cases of each try; 0 for all.
        together: Whether one process has all tries, which imports everything only once.
        parts: Number of processes that share the cases of a try, and run at once.
        options: Further options of the processes.
    """
    folder.mkdir(parents=True)
    library = build(folder)
    jobs = [
        (each, part)
        for each in ([list(tries)] if together else [[one] for one in tries])
        for part in range(parts)
    ]
    with ThreadPoolExecutor(max(_AT_ONCE, parts)) as pool:
        results = pool.map(
            lambda job: _host(
                folder / f"{job[0][0].replace(':', '-')}-{job[1]}",
                [*job[0], *options, "--most", f"{most}", "--part", f"{job[1]}", f"{parts}"],
                library,
            ),
            jobs,
        )
        lines = [line for result in results for line in result]
    return {each: [line for line in lines if line["try"] == each] for each in tries}


def row_of(id: str, what: str, cases: Sequence[dict[str, Any]], *, unit: str, note: str) -> Row:
    """Return the row of some cases; ``None`` as a difference says that nothing happened."""
    ended = sum(case["differ"] is None for case in cases)
    failed = [case for case in cases if case["differ"]]
    # Each process counts for itself, and beats differ a little in number.
    totals: dict[str, int] = {}
    for case in cases:
        name = case["case"].rpartition(" ")[0]
        totals[name] = max(case["of"], totals.get(name, 0))
    total = sum(totals.values())
    some = "" if total <= len(cases) else f"{len(cases)} of {total}, evenly spread"
    notes = [each for each in (note, some) if each]
    if ended:
        notes.append(f"{ended} more ended before their call came")
    notes += [f"{case['case']}: {case['differ'][0]:.200}" for case in failed[:_SHOWN]]
    return Row(
        id=id,
        what=what,
        value=float(len(failed)),
        unit=unit,
        reach=0.0,
        better="equal",
        seeds=len(cases) - ended,
        note="; ".join(notes),
    )


def _host(folder: Path, arguments: Sequence[str], library: Path) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("host.py")
    environment = {
        **os.environ,
        "LD_PRELOAD": str(library),
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", script, folder, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} ended: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
