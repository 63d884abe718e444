"""A million rows, and two thousand updates: the measurements of two other scripts, as rows."""

from __future__ import annotations

from pathlib import Path

import filled_ledger
import many_updates
from _results import Row

ROWS, QUICK_ROWS = 1_000_000, 5_000
UPDATES, QUICK_UPDATES = 2_000, 60
VERIFY_S, VERIFY_MB = 30.0, 300.0
REPORT_S, REPORT_MB = 60.0, 600.0


def large(folder: Path, *, quick: bool) -> list[Row]:
    """Return seconds and memory of ``verify`` and of a report on a large ledger."""
    url = f"sqlite:///{folder / 'filled.db'}"
    rows = filled_ledger.fill(url, QUICK_ROWS if quick else ROWS)
    measured = {
        "verify_1e6": (filled_ledger.verify_1e6(url), VERIFY_S, VERIFY_MB),
        "report_1e6": (filled_ledger.report_1e6(url, folder / "out"), REPORT_S, REPORT_MB),
    }
    found: list[Row] = []
    for id, (one, most_s, most_mb) in measured.items():
        what = "`greentrain verify`" if id == "verify_1e6" else "report.json and report.html"
        found += [
            Row(
                id=id,
                what=f"{what} of {rows:,} rows",
                value=one["seconds"],
                unit="s",
                reach=None if quick else most_s,
                note=f"a separate process; {one['cpu_s']:.3g} s of a processor",
            ),
            Row(
                id=id,
                what="the most memory that it held",
                value=one["peak_mb"],
                unit="MB",
                reach=None if quick else most_mb,
                note="resident, Python and all libraries included",
            ),
        ]
    return found


def updates(folder: Path, *, quick: bool) -> list[Row]:
    """Return the growth of the processor time of an update."""
    found = many_updates.measure(folder, experiences=QUICK_UPDATES if quick else UPDATES)
    low, high = found.interval_us
    return [
        Row(
            id="many_updates",
            what="growth of the processor time from one experience to the next",
            value=found.slope_us,
            unit="us",
            interval=(low, high),
            seeds=found.experiences,
            note=f"interval of 95 %; {found.early_ms:.3g} ms after the 200th experience, "
            f"{found.late_ms:.3g} ms at the end; {found.files} files of {found.state_kib:,.0f} KiB",
        ),
        Row(
            id="many_updates",
            what="the lower end of that interval: 0 or less if no growth shows",
            value=low,
            unit="us",
            reach=None if quick else 0.0,
        ),
    ]
