"""Attack greentrain: kills, strange meters, forgeries, sick disks, hostile names, many rows.

    python examples/benchmarks/reliability.py

takes about an hour and writes ``docs/benchmarks/reliability.json``. ``--quick`` takes a minute or
two, and writes nothing into the tree. ``--only ID`` with ``--update`` replaces some rows of that
file. Kills and sick disks need a C compiler and Linux. A row of tests runs the tests of these
cases, and counts the failed ones.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from _ledger.cases import Cases, cases
from _reliability.kills import kills
from _reliability.sick import quick as quick_attacks
from _reliability.sick import sick
from _results import FOLDER, Row, arguments, document, report, rows_of, write

IDS = (
    *("kills", "meters", "forged", "sick", "names", "secrets"),
    *("verify_1e6", "report_1e6", "many_updates"),
)
CASES = {
    "meters": Cases(
        what="strange meters in the monitor, the guard, a stream and `measure`, after which a "
        "training died, or a joule was negative or invented",
        files=("tests/test_strange_meters.py",),
    ),
    "names": Cases(
        what="tests of 60 hostile names, in every output and on both engines, that failed",
        files=(
            "tests/ledger/test_hostile_names.py",
            "tests/report/exports/test_hostile.py",
            "tests/test_texts.py",
        ),
    ),
    "secrets": Cases(
        what="places where a password could appear, and tests of what is shown, that failed",
        files=("tests/test_secrets.py",),
    ),
}


def main() -> None:
    """Run the benchmark."""
    parser = arguments(str(__doc__))
    parser.add_argument(
        "--update", action="store_true", help="replace the rows of --only in docs/benchmarks"
    )
    parser.add_argument(
        "--most", type=int, default=0, help="try at most so many kills, or cases of a sickness"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = run(Path(folder), quick=given.quick, only=given.only, most=given.most)
    content = document(rows)
    report("reliability", rows, content, given)
    if given.update and given.only and not given.quick:
        print(f"\nwritten: {write('reliability', _updated(content))}")


def run(folder: Path, *, quick: bool, only: Sequence[str] = (), most: int = 0) -> list[Row]:
    """Return the rows of all ids, or of the requested ones.

    Args:
        folder: An empty folder.
        quick: Whether to run the short form.
        only: The requested ids; all of them if empty.
        most: Kills of each configuration, and cases of each sickness; 0 for all.
    """
    attacks: dict[tuple[str, ...], Callable[[], Sequence[Row]]] = (
        {("kills", "sick"): lambda: quick_attacks(folder)}
        if quick
        else {
            ("kills",): lambda: kills(folder, most=most),
            ("sick",): lambda: sick(folder, most=most),
        }
    )
    parts = {
        **attacks,
        ("forged",): lambda: _part("forged", "forged", folder, quick=quick),
        **{
            (id,): lambda id=id: [cases(id, folder, quick=quick, of=CASES)]  # type: ignore[misc]
            for id in CASES
        },
        ("verify_1e6", "report_1e6"): lambda: _part("growth", "large", folder, quick=quick),
        ("many_updates",): lambda: _part("growth", "updates", folder, quick=quick),
    }
    return sorted(rows_of(parts, only), key=lambda row: IDS.index(row.id))


def _part(module: str, name: str, folder: Path, *, quick: bool) -> Sequence[Row]:
    """Call a function of a module that takes a while to import."""
    own = folder / name
    own.mkdir()
    found: Sequence[Row] = getattr(import_module(f"_reliability.{module}"), name)(own, quick=quick)
    return found


def _updated(content: dict[str, object]) -> dict[str, object]:
    """Return the file of all rows with some of them replaced; both commands and commits remain."""
    file = FOLDER / "reliability.json"
    if not file.exists():
        return content
    before, rows = json.loads(file.read_text(encoding="utf-8")), list(content["rows"])  # type: ignore[call-overload]
    ids = {row["id"] for row in rows}
    rows += [row for row in before["rows"] if row["id"] not in ids]
    both: dict[str, object] = {
        name: content[name]
        if content[name] == before[name]
        else f"{before[name]}; {', '.join(sorted(ids))}: {content[name]}"
        for name in ("commit", "date")
    }
    both["command"] = "\n".join(
        dict.fromkeys([*before["command"].splitlines(), content["command"]])
    )
    return {**content, **both, "rows": sorted(rows, key=lambda row: IDS.index(row["id"]))}


if __name__ == "__main__":
    main()
