"""Test the reports: time of a large one, forgeries, hostile names, and an outage of MLflow.

    python examples/benchmarks/reports.py

takes a few minutes and writes ``docs/benchmarks/reports.json``. ``--quick`` takes one or two, and
writes nothing into the tree. A row of cases runs the tests of these cases, and counts the failed
ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from _ledger.cases import Cases, cases
from _reports.ceiling import power_ceiling
from _reports.claims import forgery, restated, third_party
from _reports.large import large
from _reports.outage import outage
from _results import Row, arguments, document, report, rows_of

CASES = {
    "wrong": Cases(
        what="situations of wrong numbers, in several variants, whose figure is still wrong",
        files=(
            "tests/report/test_streams.py",
            "tests/report/test_hourly.py",
            "tests/report/test_month.py",
            "tests/report/test_budget_left.py",
            "tests/energy/test_power_ceiling.py",
            "tests/training/test_earlier_use.py",
            "tests/carbon/test_daylight_saving.py",
            "tests/report/exports/test_values.py",
            "tests/test_configuration.py::test_the_last_line_says_what_is_left_after_all_payments",
        ),
    ),
    "recomputed": Cases(
        what="tests that change a report.json, each digit of it among them, and did not find it",
        files=("tests/report/test_recheck.py",),
    ),
    "hostile": Cases(
        what="tests of hostile names, in every format and in a browser, that failed",
        files=(
            "tests/report/exports/test_hostile.py",
            "tests/report/test_rendering.py",
            "tests/report/test_page.py",
        ),
    ),
    "readable": Cases(
        what="tests of readable pages that failed: axe in light, in dark and at 390 px, clipping "
        "there, and a PDF of 28 updates with 8 tagged pages",
        files=(
            "tests/report/test_readable.py",
            "tests/report/test_page.py::test_axe_finds_nothing",
        ),
    ),
    "empty": Cases(
        what="tests of reports on very little, and on what went wrong, that failed",
        files=("tests/report/test_core.py", "tests/report/exports/test_empty.py"),
    ),
}


def main() -> None:
    """Run the benchmark."""
    given = arguments(str(__doc__)).parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = run(Path(folder), quick=given.quick, only=given.only)
    report("reports", rows, document(rows), given)


def run(folder: Path, *, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of the requested ones."""
    parts: dict[tuple[str, ...], Callable[[], Sequence[Row]]] = {
        ("report_s", "report_mb", "deterministic"): lambda: large(folder, quick=quick),
        **{
            (id,): lambda id=id: [cases(id, folder, quick=quick, of=CASES)]  # type: ignore[misc]
            for id in CASES
        },
        ("power_ceiling",): lambda: [power_ceiling(folder, quick=quick)],
        ("forgery",): lambda: [forgery(folder, quick=quick)],
        ("third_party",): lambda: [third_party(folder, quick=quick)],
        ("restate",): lambda: [restated(folder, quick=quick)],
        ("spool",): lambda: outage(folder, quick=quick),
    }
    return rows_of(parts, only)


if __name__ == "__main__":
    main()
