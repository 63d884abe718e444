"""Fill a ledger with many rows of the usual kinds, and measure ``verify`` and a report on it.

    python examples/benchmarks/filled_ledger.py --rows 1000000 --out /tmp/filled.db --measure

The rows are those of streams: runs, sources, reservations, decisions, windows, heartbeats,
settlements and outcomes. Their hashes are right, so ``verify`` passes. A million rows take a few
minutes and 1.3 GB. ``--measure`` prints seconds and resident memory, each of a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine

from greentrain.ledger import Ledger, canonical
from greentrain.ledger.budgets import total_columns
from greentrain.ledger.hashing import genesis, row_hash
from greentrain.ledger.schema import BUDGET_CHAIN, CONTENT, RUN_CHAIN, entries, run_chain
from greentrain.money import BudgetTotals
from greentrain.units import utc_text

ROOT = Path(__file__).parents[2]
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STREAMS = 10
EXPERIENCES_PER_RUN = 100
PHASES = ("probe", "train_epoch", "validation", "train_epoch", "update")
SOURCES = ("gpu:0", "cpu", "ram")
MODES = ("SKIP", "REPLAY", "WARM_START", "FULL_RETRAIN")
_BATCH = 5_000
_CARBON = {
    "intensity": {
        "source": "a table",
        "zone": "DE",
        "data_year": None,
        "signal": "average",
        "basis": "life-cycle",
    },
    "pue": 1.2,
    "pue_source": "given by the user",
}


def fill(url: str, rows: int, *, seed: int = 0) -> int:
    """Create a ledger with at least so many rows, and return their number.

    Args:
        url: A file or URL without a ledger.
        rows: Number of rows; the last run may add up to 900 more.
        seed: Seed of the figures. The ids of the rows follow from it too.
    """
    Ledger(url).close()  # creates the tables
    engine = create_engine(Ledger(url, create=False).url if "://" not in url else url)
    with engine.begin() as connection:
        filled = _Filling(connection, random.Random(seed))
        filled.fill(rows)
    engine.dispose()
    return filled.count


def verify_1e6(url: str) -> dict[str, float]:
    """Return ``seconds``, ``cpu_s`` and ``peak_mb`` of a process of ``greentrain verify``."""
    return _measured("verify", url, "")


def report_1e6(url: str, out: Path) -> dict[str, float]:
    """Return the same of ``greentrain report``, which writes report.json and report.html."""
    return _measured("report", url, str(out))


class _Filling:
    """Appends rows as the ledger does, but thousands at once."""

    def __init__(self, connection: Connection, rng: random.Random) -> None:
        self._connection = connection
        self._rng = rng
        self._heads: dict[str, tuple[int, str]] = {}
        self._changed: dict[str, None] = {}
        self._openings: dict[str, str] = {}
        self._spine: list[dict[str, Any]] = []
        self._content: dict[str, list[dict[str, Any]]] = {kind: [] for kind in CONTENT}
        self._now = BEGAN
        self.count = 0

    def fill(self, rows: int) -> None:
        """Add budgets, and runs of streams until there are enough rows."""
        budgets = [self._budget(number) for number in range(STREAMS)]
        totals = [BudgetTotals()] * STREAMS
        positions = [0] * STREAMS
        number = 0
        while self.count < rows:
            stream = number % STREAMS
            experiences = min(EXPERIENCES_PER_RUN, max(1, (rows - self.count) // 9))
            totals[stream] = self._run(
                stream, budgets[stream], totals[stream], positions[stream], experiences
            )
            positions[stream] += experiences
            number += 1
        self._flush()

    def _budget(self, number: int) -> str:
        budget_id = self._uuid()
        terms = {"budget_id": budget_id, "name": f"stream {number}", "parent_id": None}
        amount = {"energy_j": 1e15, "carbon_g": None, "num_experiences": 1_000_000}
        renewal = {"until_utc": None, "per": None, "carry_over": False, "given_as": "a lot"}
        self._append("budget", BUDGET_CHAIN, {**terms, **amount, **renewal})
        return budget_id

    def _run(
        self, stream: int, budget_id: str, totals: BudgetTotals, position: int, experiences: int
    ) -> BudgetTotals:
        run_id = self._uuid()
        chain = run_chain(run_id)
        environment = {"schema": 1, "python": "3.12", "carbon": _CARBON, "settings": {"lr": 0.1}}
        opening = {"run_id": run_id, "kind": "stream", "name": f"stream {stream}"}
        self._append(
            "run", RUN_CHAIN, {**opening, "environment": canonical(environment), "host": "0" * 12}
        )
        for name in SOURCES:
            described = {"method": "counter" if name == "gpu:0" else "estimated", "device": "one"}
            uncertain = {"relative_uncertainty": 0.05, "power_limit_w": None, "reference": None}
            self._append(
                "source",
                chain,
                {"run_id": run_id, "name": name, **described, **uncertain, "uuid": None},
            )
        for number in range(experiences):
            totals = self._experience(run_id, budget_id, totals, position + number)
        beat = self._window(run_id, None, "train_epoch", 0)
        self._append("heartbeat", chain, beat)
        self._append("closing", chain, {"run_id": run_id, "status": "completed"})
        return totals

    def _experience(
        self, run_id: str, budget_id: str, totals: BudgetTotals, position: int
    ) -> BudgetTotals:
        chain, reservation_id, mode = run_chain(run_id), self._uuid(), self._rng.choice(MODES)
        payment = {
            "reservation_id": reservation_id,
            "budget_id": budget_id,
            "period": "",
            "run_id": run_id,
        }
        about = {"run_id": run_id, "experience_id": f"experience-{position}", "position": position}
        amount_j = 900.0 + self._rng.random()
        totals = totals.reserve(amount_j)
        reserved = {"amount_j": amount_j, "amount_g": None, "purpose": f"{mode} of {position}"}
        self._append("reservation", chain, {**payment, **reserved, **total_columns(totals)})
        self._append("decision", chain, {**about, **self._decision(mode, budget_id, payment)})
        used_j = []
        for number, phase in enumerate(PHASES):
            epoch = number // 2 if phase in ("train_epoch", "validation") else None
            window = self._window(run_id, reservation_id, phase, epoch)
            used_j.append(window["energy_j"])
            self._append("window", chain, window)
        actual_j = sum(used_j)
        beyond_j = max(0.0, actual_j - amount_j)
        totals = totals.settle(amount_j, actual_j)
        settled = {"actual_j": actual_j, "actual_g": None, "overrun_j": beyond_j}
        released = {"overrun_g": None, "released": None}
        self._append(
            "settlement", chain, {**payment, **settled, **released, **total_columns(totals)}
        )
        metric = {"metric": "val_acc", "metric_before": 0.5, "metric_after": self._rng.random()}
        done = {"steps": 10, "planned_steps": 10, "energy_j": actual_j, "kept": True}
        self._append(
            "outcome", chain, {**about, "reservation_id": reservation_id, **metric, **done}
        )
        return totals

    def _decision(self, mode: str, budget_id: str, payment: Mapping[str, Any]) -> dict[str, Any]:
        options = [
            {
                "update_mode": other,
                "step_fraction": 0.0 if other == "SKIP" else 1.0,
                "predicted_j": 200.0 * number + self._rng.random(),
                "cost_sd_j": 20.0,
                "upper_bound_j": 250.0 * number,
                "predicted_gain": self._rng.random(),
                "gain_sd": 0.1,
                "why_lost": None if other == mode else "a smaller gain per joule",
            }
            for number, other in enumerate(MODES)
        ]
        state = {"metric_before": 0.5, "drift": self._rng.random(), "tables": []}
        return {
            "budget_id": budget_id,
            "reservation_id": payment["reservation_id"],
            "update_mode": mode,
            "step_fraction": 1.0,
            "reason": "BEST_GAIN",
            "sentence": f"{mode} brings the highest gain per joule",
            "predicted_j": 700.0,
            "upper_bound_j": 900.0,
            "min_gain_per_j": 1e-6,
            "state": canonical(state),
            "alternatives": canonical(options),
        }

    def _window(
        self, run_id: str, reservation_id: str | None, phase: str, epoch: int | None
    ) -> dict[str, Any]:
        by_source = {name: 50.0 + self._rng.random() for name in SOURCES}
        energy_j = sum(by_source.values())
        started, self._now = self._now, self._now + timedelta(seconds=10)
        return {
            "run_id": run_id,
            "reservation_id": reservation_id,
            "phase": phase,
            "epoch": epoch,
            "started_utc": utc_text(started),
            "duration_s": 10.0,
            "energy_j": energy_j,
            "by_source": canonical(by_source),
            "complete": True,
            "emissions_g": energy_j * 1e-4,
            "intensity_g_per_kwh": 360.0,
        }

    def _append(self, kind: str, chain: str, content: dict[str, Any]) -> None:
        opening = chain in (RUN_CHAIN, BUDGET_CHAIN)
        if opening:
            changed = {one: [*self._heads[one]] for one in self._changed if one != chain}
            content = {**content, "heads": canonical(changed)}
            self._changed.clear()
        first = genesis() if opening else self._openings[chain]
        count, head = self._heads.get(chain, (0, first))
        entry = {
            "kind": kind,
            "chain": chain,
            "seq": count,
            "recorded_utc": utc_text(self._now),
            "prev_hash": head,
        }
        entry["hash"] = row_hash(entry, content)
        self.count += 1
        self._heads[chain] = (count + 1, entry["hash"])
        self._changed[chain] = None
        if kind == "run":
            self._openings[run_chain(content["run_id"])] = entry["hash"]
        if kind == "closing":
            del self._openings[chain]
        self._spine.append({"id": self.count, **entry})
        self._content[kind].append({"entry_id": self.count, **content})
        if len(self._spine) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._spine:
            self._connection.execute(entries.insert(), self._spine)
        for kind, rows in self._content.items():
            if rows:
                self._connection.execute(CONTENT[kind].insert(), rows)
                rows.clear()
        self._spine.clear()

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))


def _measured(what: str, url: str, out: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, "--child", what, url, out],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{what} of {url} failed: {done.stderr[-2000:]}")
    measured: dict[str, float] = json.loads(done.stdout)
    return measured


def _child(what: str, url: str, out: str) -> None:
    """Run a command, and print the time and the memory of this process."""
    import contextlib
    import io
    import time

    began_s = time.perf_counter()
    from greentrain.cli.app import app

    options = ["--ledger", url, "--out", out] if what == "report" else [url]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = app([what, *options], standalone_mode=False)
    if code:
        raise RuntimeError(f"`greentrain {what}` ended with {code}: {said.getvalue()[:2000]}")
    measured = {
        "seconds": time.perf_counter() - began_s,
        "cpu_s": time.process_time(),
        "peak_mb": _peak_kib() * 1024 / 1e6,
    }
    sys.stdout.write(json.dumps(measured))


def _peak_kib() -> int:
    """Return the most resident memory of this process.

    On Linux, ``getrusage`` counts the parent's memory at the fork, too.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _lines(url: str) -> Iterator[str]:
    yield f"verify: {json.dumps(verify_1e6(url))}"
    with tempfile.TemporaryDirectory() as out:
        yield f"report: {json.dumps(report_1e6(url, Path(out)))}"
        for path in sorted(Path(out).iterdir()):
            yield f"{path.name}: {path.stat().st_size / 1e6:.1f} MB"


def main() -> None:
    """Fill a ledger, measure, or both."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000, help="number of rows (default: 10000)")
    parser.add_argument("--out", default="filled.db", help="file or URL (default: filled.db)")
    parser.add_argument("--measure", action="store_true", help="measure verify and the report")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        _child(*given.child)
        return
    if "://" in given.out or not Path(given.out).exists():
        sys.stdout.write(f"{fill(given.out, given.rows):,} rows in {given.out}\n")
    if given.measure:
        for line in _lines(given.out):
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
