"""Try the guard and the ledger: caps kept, money kept, forgeries found, and how long it takes.

    python examples/benchmarks/ledger.py

takes about fifteen minutes and writes ``docs/benchmarks/ledger.json``. ``--quick`` takes one or
two, and writes nothing into the tree. What is a row of cases runs the tests that try them, and
counts those that fail. The simulated cards need a C compiler; PostgreSQL is tried where its server
is installed.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from _ledger import cases, guard, speed
from _results import Row, document, table, write

_QUIET = ("pytorch_lightning", "lightning.pytorch")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="a short form")
    parser.add_argument("--only", nargs="+", default=[], metavar="ID", help="these rows only")
    parser.add_argument("--out", type=Path, help="write the JSON there, and not into docs/")
    given = parser.parse_args()
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        rows = run(Path(folder), quick=given.quick, only=given.only)
    content = document(rows)
    print(f"\n{table(rows)}")
    if given.out is not None:
        given.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    elif not given.quick and not given.only:
        print(f"\nwritten: {write('ledger', content)}")


def run(folder: Path, *, quick: bool, only: Sequence[str] = ()) -> list[Row]:
    """Return the rows of all ids, or of those that are wanted."""
    guard.load_driver(folder)
    parts: dict[tuple[str, ...], Callable[[], list[Row]]] = {
        ("overshoot",): lambda: guard.overshot(folder, quick=quick),
        **{(id,): lambda id=id: [cases.cases(id, folder, quick=quick)] for id in cases.CASES},
        ("append_ms", "verify_s", "balance_ms"): lambda: speed.speed(folder, quick=quick),
        ("guard_us",): lambda: guard.batch(folder, quick=quick),
    }
    rows: list[Row] = []
    for ids, part in parts.items():
        if only and not set(ids) & set(only):
            continue
        began_s = time.monotonic()
        rows += part()
        print(f"{', '.join(ids)}: {time.monotonic() - began_s:.0f} s", flush=True)
    return rows


if __name__ == "__main__":
    main()
