"""The benchmarks run, their page is what their files say, and greentrain's truths hold."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from greentrain.energy import ReplayMeter

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "examples" / "benchmarks"
FOLDER = ROOT / "docs" / "benchmarks"
IDS = {
    *("counter_10s", "counter_100s", "sampled_60s", "masks", "ranks", "faults"),
    *("setup_ms", "epoch_hooks_ms", "memory_mb"),
}
needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler for the driver"
)
CORRECTNESS = {"counter_10s", "counter_100s", "sampled_60s", "masks", "ranks", "faults"}


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import _results

    return _results


def run(name: str, out: Path, *arguments: str) -> dict[str, list]:
    """Run a benchmark and return its rows by id."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("CUDA_", "NVML_"))}
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments, "--out", str(out)],
        capture_output=True,
        text=True,
        env={**kept, "OMP_NUM_THREADS": "1"},
        cwd=out.parent,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows: dict[str, list] = {}
    for row in json.loads(out.read_text())["rows"]:
        rows.setdefault(row["id"], []).append(row)
    return rows


@pytest.mark.slow
@needs_compiler
def test_measurement_is_right_where_the_truth_is_known(results, tmp_path: Path) -> None:
    rows = run("measurement.py", tmp_path / "rows.json", "--quick")
    assert set(rows) == IDS
    for id in IDS:
        ours = [row for row in rows[id] if row["what"].startswith("greentrain")]
        assert ours
        assert all(row["reach"] is None for row in rows[id] if row not in ours)
        for row in ours:
            assert row["value"] is not None, row
            if id in CORRECTNESS:  # times and memory are the machine's, and asserted nowhere
                assert results.Row(**row).reached is not False, row


@pytest.mark.slow
@needs_compiler
def test_the_gpu_benchmarks_arithmetic_holds_on_the_simulated_driver(tmp_path: Path) -> None:
    rows = run("gpu_measurement.py", tmp_path / "rows.json", "--simulated", "--seconds", "1")
    errors = {row["what"].rpartition(": ")[2]: row["value"] for row in rows["gpu_counter_error"]}
    assert errors == pytest.approx(dict.fromkeys(errors, 0.0), abs=1e-6)
    assert len(errors) == 4
    sampled = {row["what"].rpartition(": ")[2]: row["value"] for row in rows["gpu_sampled_error"]}
    # The counter's tick of 0.1 s is a tenth of 1 s: constant loads are right, others roughly.
    assert sampled["idle"] < 40.0
    assert max(sampled.values()) < 60.0
    assert rows["gpu_tick_ms"][0]["value"] == pytest.approx(100.0, abs=20.0)
    assert rows["gpu_suspect"][0]["value"] == 0.0
    seconds = [0.0]
    trace = ReplayMeter(tmp_path / "gpu_trace.csv", clock=lambda: seconds[0])
    trace.start()
    seconds[0] = 2.0
    # The idle card's 60 W, give or take a tick at either end.
    assert trace.read().energy_j["gpu:0"] == pytest.approx(120.0, abs=7.0)


def test_without_a_gpu_rows_say_so(results, monkeypatch: pytest.MonkeyPatch) -> None:
    import gpu_measurement

    rows = gpu_measurement.not_run("torch sees no NVIDIA GPU")
    assert len({(row.id, row.what) for row in rows}) == len(rows) == 12
    assert all(row.value is None and row.reached is None for row in rows)
    assert all("has not been run on a GPU: torch sees" in row.note for row in rows)


def test_the_gpus_loads_do_their_work_anywhere(results) -> None:
    import gpu_measurement

    idle, *busy = gpu_measurement.cuda_loads("cpu", size=64)
    assert idle.name == "idle"
    for load in busy:
        load.run(0.01)


def test_the_page_is_rendered_from_the_files(results) -> None:
    assert results.PAGE.read_text(encoding="utf-8") == results.render(FOLDER)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_files_hold_what_the_design_names(results, path: Path) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"machine", "versions", "commit", "command", "date", "rows"}
    fields = [field.name for field in dataclasses.fields(results.Row)]
    seen = set()
    for row in content["rows"]:
        assert list(row) == fields
        assert row["better"] in ("lower", "higher", "equal")
        assert row["note"] or row["value"] is not None
        assert row["value"] is None or math.isfinite(row["value"])
        seen.add((row["id"], row["what"]))
    assert len(seen) == len(content["rows"])


@pytest.mark.parametrize(
    ("value", "reach", "better", "reached"),
    [
        (1.0, 2.0, "lower", True),
        (3.0, 2.0, "lower", False),
        (3.0, 2.0, "higher", True),
        (1.0, 2.0, "higher", False),
        (0.0, 0.0, "equal", True),
        (1.0, 0.0, "equal", False),
        (None, 2.0, "lower", None),
        (1.0, None, "lower", None),
    ],
)
def test_a_reach_is_met_or_missed_or_not_known(results, value, reach, better, reached) -> None:
    row = results.Row(id="id", what="what", value=value, unit="%", reach=reach, better=better)
    assert row.reached is reached


def test_a_table_shows_what_was_missed_and_what_was_not_run(results) -> None:
    rows = [
        results.Row(id="a", what="ours", value=3.14159, unit="ms", reach=2.0, interval=(3.0, 4.0)),
        results.Row(id="a", what="theirs", value=None, unit="ms", note="a | b"),
        results.Row(id="b", what="count", value=12345.0, unit="", better="higher", reach=1e4),
    ]
    assert results.table(rows).splitlines()[2:] == [
        "| `a` | ours | 3.14 ms (3 to 4) | <= 2 **missed** | 1 |  |",
        "| `a` | theirs | not run |  | 1 | a \\| b |",
        "| `b` | count | 12,345 | >= 10,000 | 1 |  |",
    ]
