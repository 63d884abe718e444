"""Measure the time and memory of a report on 100,000 windows, and compare repetitions.

``python large.py LEDGER OUT`` writes one in a separate process, and prints its time and memory.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _results import Row

ROOT = Path(__file__).parents[3]
RUNS, WINDOWS = 500, 200
QUICK_RUNS, QUICK_WINDOWS = 20, 50
TIMES = 5


def large(folder: Path, *, quick: bool) -> list[Row]:
    """Return the rows ``report_s``, ``report_mb`` and ``deterministic``."""
    from _results import Row

    from _reports.ledgers import fill
    from greentrain.ledger import Ledger

    runs, windows = (QUICK_RUNS, QUICK_WINDOWS) if quick else (RUNS, WINDOWS)
    ledger = Ledger(str(folder / "large.db"))
    fill(ledger, runs=runs, windows=windows)
    ledger.close()
    times = 2 if quick else TIMES
    # Each process has another hash seed, on which nothing in the report may depend.
    measured = [_written(folder, number) for number in range(times)]
    seconds = [one["seconds"] for one in measured]
    peaks_mb = [one["peak_mb"] for one in measured]
    cpu_s = statistics.median(one["cpu_s"] for one in measured)
    first = (folder / "out-0" / "report.json").read_bytes()
    other = sum(
        (folder / f"out-{number}" / "report.json").read_bytes() != first for number in range(times)
    )
    what = f"{runs * windows:,} windows in {runs} runs, of which every tenth overlaps another"
    over = "median, with the lowest and highest, of processes that read, verify, build, and render"
    return [
        Row(
            id="report_s",
            what=f"report.json and report.html of {what}",
            value=statistics.median(seconds),
            unit="s",
            reach=5.0,
            seeds=times,
            interval=(min(seconds), max(seconds)),
            note=f"{over}; processor time {cpu_s:.3g} s",
        ),
        Row(
            id="report_mb",
            what="the most memory that such a process held",
            value=statistics.median(peaks_mb),
            unit="MB",
            reach=400.0,
            seeds=times,
            interval=(min(peaks_mb), max(peaks_mb)),
            note="resident, of both processes, Python and all libraries included",
        ),
        Row(
            id="deterministic",
            what="of such processes, those whose report.json was another",
            value=float(other),
            unit="cases",
            reach=0.0,
            seeds=times,
            note=f"{len(first):,} bytes, each process with another PYTHONHASHSEED",
        ),
    ]


def _written(folder: Path, number: int) -> dict[str, float]:
    command = [sys.executable, __file__, str(folder / "large.db"), str(folder / f"out-{number}")]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _write(ledger: str, out: str) -> None:
    import resource

    began_s = time.perf_counter()
    from greentrain.ledger import close_ledgers, open_ledgers
    from greentrain.report import build, write

    opened = open_ledgers([ledger])
    write(build(opened), Path(out), ("json", "html"))
    close_ledgers(opened)
    own, child = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    measured = {
        "seconds": time.perf_counter() - began_s,
        "cpu_s": own.ru_utime + own.ru_stime + child.ru_utime + child.ru_stime,
        # That of the process which verifies the ledger meanwhile is added.
        "peak_mb": (own.ru_maxrss + child.ru_maxrss) * 1024 / 1e6,
    }
    sys.stdout.write(json.dumps(measured))


if __name__ == "__main__":
    _write(*sys.argv[1:])
