"""The controller's benchmark has a row of every id, and computes by hand what can be."""

from __future__ import annotations

import json
import multiprocessing
import statistics
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from greentrain.simulation import always_full, best_schedule, train_once
from greentrain.streams import digits
from tests import prepared

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "examples" / "benchmarks"
IDS = {
    *("gap_a_10", "gap_a_5", "gap_b_15", "gap_c_15", "gap_c_5", "gap_d_10", "gap_d_5"),
    *("gap_e_10", "gap_f_10", "gap_new_5", "gap_new_15", "premium", "cells", "bounded"),
    *("plenty", "unspent", "units", "regret", "violations"),
    *("overhead", "decide_ms", "cost_error", "cost_cover"),
}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _controller import (
        accounts,
        clocks,
        collecting,
        gaps,
        jobs,
        kinds,
        memories,
        new_rows,
        new_streams,
        running,
        shares,
        speed,
        streams,
        tables,
    )

    return SimpleNamespace(
        **{"accounts": accounts, "collecting": collecting, "gaps": gaps, "jobs": jobs},
        **{"memories": memories, "running": running, "shares": shares, "speed": speed},
        **{"streams": streams, "tables": tables, "clocks": clocks, "kinds": kinds},
        **{"new_rows": new_rows, "new_streams": new_streams},
    )


def entry(**fields: object) -> dict:
    """Return the outcome of an experience with usual values."""
    usual = {"mode": "FULL_RETRAIN", "steps": 10, "planned": 10, "samples": 100}
    return {**usual, "update_j": 1.0, "predicted_j": 1.0, "beside_j": 0.0, "bytes": 0, **fields}


def full_run(seed: int = 0, stream: str = "a", lift: int = 0) -> dict:
    """A reference of three experiences with ten test samples each, that uses 1, 2 and 3 J.

    Trained at the first it is right about 6, 2 and 2; at the second 8, 8, 2; at the third 9, 9, 9.
    """
    rows = [[6, 2, 2], [8, 8, 2], [9, 9, 9 - lift]]
    return {
        "name": f"{stream}-{seed}-full",
        **{"stream": stream, "seed": seed, "policy": "full", "share": None, "budget_j": None},
        **{"update_j": 6.0, "spent_j": 6.0, "overrun_j": 0.0, "violations": 0, "phases_j": {}},
        "n_test": [10, 10, 10],
        "experiences": [
            entry(
                update_j=position + 1.0,
                samples=100 * (position + 1),
                steps=10 * (position + 1),
                planned=10 * (position + 1),
                trained=trained,
                right=trained[: position + 1],
            )
            for position, trained in enumerate(rows)
        ],
    }


def other_run(
    rights: list[list[int]], *, seed: int = 0, budget: int = 50, **fields: object
) -> dict:
    """A run of the default with half of the joules, and these right test samples."""
    return {
        "name": f"a-{seed}-{fields.get('policy', 'default')}-{budget}",
        **{"stream": "a", "seed": seed, "policy": "default", "share": budget},
        **{"budget_j": 6.0 * budget / 100, "update_j": 3.0, "spent_j": 3.0, "overrun_j": 0.0},
        **{"violations": 0, "phases_j": {"probe": 0.03}, "n_test": [10, 10, 10]},
        "experiences": [entry(right=right) for right in rights],
        **fields,
    }


# By hand: once is (6/10 + 8/20 + 10/30) / 3 = 4/9, full is (6/10 + 16/20 + 27/30) / 3 = 23/30.
ONCE, FULL = 4 / 9, 23 / 30


def test_the_ends_of_the_gap_are_what_they_are_by_hand(parts) -> None:
    assert parts.shares.once_and_always(full_run()) == pytest.approx((ONCE, FULL))


def test_schedules_of_full_and_skip_are_exact(parts) -> None:
    full = full_run()
    # Trained at the second only: nothing is right before, then 16/20, and 18/30.
    assert parts.shares.schedule_anytime(full, [1]) == pytest.approx((0 + 0.8 + 0.6) / 3)
    assert parts.shares.schedule_anytime(full, [0, 2]) == pytest.approx((0.6 + 0.4 + 0.9) / 3)


@pytest.mark.parametrize(
    ("budget_j", "chosen"),
    [(0.5, (0,)), (1.0, (0,)), (3.0, (0, 1)), (4.0, (0, 1)), (6.0, (0, 1, 2))],
)
def test_the_best_schedule_stays_within_the_joules(parts, budget_j, chosen) -> None:
    # With 3 J both (0, 1), at (0.6 + 0.8 + 0.6) / 3, and (2,), at 0.9 / 3, can be paid; with 4 J
    # (0, 2) as well, at (0.6 + 0.4 + 0.9) / 3.
    assert parts.shares.best_fixed(full_run(), budget_j)[1] == chosen


def test_the_table_of_a_reference_says_the_same_as_its_matrix(parts) -> None:
    table = parts.tables.table_of(full_run())
    assert train_once(table).anytime == pytest.approx(ONCE)
    assert always_full(table).anytime == pytest.approx(FULL)
    assert table.full_j == pytest.approx(6.0)
    assert best_schedule(table, 3.0).anytime == pytest.approx(2.0 / 3)
    probe = table.probes[2, "full-0"]
    # The model of the first experience, at the third: right about 10 of 30, 8 of 20, and 2 of 10.
    assert (probe.metric_before, probe.metric_past, probe.metric_new) == pytest.approx(
        (1 / 3, 0.4, 0.2)
    )
    assert (probe.n_stored, probe.n_pending, probe.n_new) == (64, 64, 128)  # 10 steps are an epoch


def test_every_policy_of_the_literature_runs_on_it(parts) -> None:
    found = parts.tables.simulated([full_run(), full_run(1)], 50)
    assert found.keys() == parts.tables.POLICIES.keys()
    for values in found.values():
        assert len(values) == 2
        assert all(ONCE - 1e-9 <= value <= FULL + 1e-9 for value in values)


def test_a_share_is_a_mean_over_seeds_with_an_interval(parts) -> None:
    # What is right after each experience is what always retraining has, then what once has.
    best, none = [[6], [8, 8], [9, 9, 9]], [[6], [6, 2], [6, 2, 2]]
    # The second reference ends with one less right, so that the gap has a standard error.
    runs = [full_run(0), full_run(1, lift=1), other_run(best, seed=0), other_run(none, seed=1)]
    rows = parts.gaps.gap_rows({run["name"]: run for run in runs})
    (row,) = [row for row in rows if row.id == "gap_a_50"]
    assert (row.value, row.seeds) == (pytest.approx(50.0), 2)
    half = 12.706 * 50.0  # t of one degree, and deviations of 50: a standard error of 50
    assert row.interval == pytest.approx((50 - half, 50 + half), rel=1e-4)
    assert "used 50.0 % of full's joules, trained on 50.0 % of its samples" in row.note


def test_a_gap_that_is_not_sure_gives_no_share(parts) -> None:
    once_better = full_run(1)
    for at in once_better["experiences"]:
        at["trained"] = [6, 2, 2]
    runs = [full_run(), once_better, other_run([[6], [8, 8], [9, 9, 9]])]
    rows = parts.gaps.gap_rows({run["name"]: run for run in runs})
    (row,) = [row for row in rows if row.id == "gap_a_50"]
    assert row.value is None
    assert row.note.startswith("not significant: the gap is 16.11 points")


def test_without_runs_each_row_says_so(parts) -> None:
    rows = [
        *parts.gaps.gap_rows({}),
        *parts.gaps.premium_rows({}),
        *parts.gaps.cell_rows({}),
        *parts.new_rows.mean_rows({}),
        *parts.new_rows.plenty_rows({}),
        *parts.new_rows.unspent_rows({}),
        *parts.new_rows.units_rows({}),
        *parts.memories.memory_rows({}),
        *parts.accounts.violation_rows({}),
        *parts.accounts.overhead_rows({}),
        *parts.accounts.cost_rows({}),
        *parts.speed.decide_rows({}),
    ]
    assert all(row.value is None and row.note.startswith("not run") for row in rows)
    assert len({(row.id, row.what) for row in rows}) == len(rows)


def test_a_cell_is_lost_where_another_is_certainly_better(parts) -> None:
    best, none = [[6], [8, 8], [9, 9, 9]], [[6], [6, 2], [6, 2, 2]]
    near = [[6], [8, 8], [9, 9, 8]]
    runs = [full_run(0), full_run(1, lift=1)]
    runs += [other_run(none, seed=0), other_run(none, seed=1)]
    runs += [
        other_run(rights, seed=seed, policy="greedy") for seed, rights in enumerate((best, near))
    ]
    rows = parts.gaps.cell_rows({run["name"]: run for run in runs})
    # Greedy is ahead by (0.4 + 17/30) / 3 and (0.4 + 16/30) / 3: far more than their difference.
    assert [row.value for row in rows] == [0.0, 0.0, 1.0]
    assert "a at 50 % to greedy by 31.67 points" in rows[2].note


def test_costs_are_held_to_something_after_three_updates(parts) -> None:
    run = other_run([[1]] * 6)
    for at, (predicted_j, steps) in enumerate([(9, 10), (9, 10), (9, 10), (1.1, 10), (1.3, 10)]):
        run["experiences"][at].update(predicted_j=predicted_j, steps=steps)
    run["experiences"][5].update(steps=4)
    error, cover = parts.accounts.cost_rows({run["name"]: run})
    assert error.value == pytest.approx(20.0)  # between 10 and 30 %
    assert cover.value == pytest.approx(200 / 3)


def test_overhead_is_a_share_of_the_budget(parts) -> None:
    run = other_run([[1]])
    (row,) = parts.accounts.overhead_rows({run["name"]: run})
    assert row.value == pytest.approx(1.0)  # 0.03 of 3 J


def test_a_stopped_clock_does_not_count(parts) -> None:
    seconds = [0.0]
    clock = parts.clocks.ProcessorClock(lambda: seconds[0])
    seconds[0] = 2.0
    with clock.stopped():
        seconds[0] = 7.0
        assert clock() == 2.0  # as other threads read it
    seconds[0] = 8.0
    assert clock() == 3.0


def test_jobs_come_once_and_after_their_reference(parts) -> None:
    listed = parts.jobs.jobs()
    names = [job.name for job in listed]
    assert len(set(names)) == len(names)
    for at, job in enumerate(listed):
        assert job.reference.name in names[: at + 1]
    assert {job.seed for job in listed if job.stream == "c" and job.policy == "full"} == {*range(6)}
    assert {job.seed for job in listed if job.budget == 50} == {0, 1}


def test_a_run_belongs_to_one_process_until_that_ends(parts, tmp_path: Path) -> None:
    runs = parts.jobs.Runs(tmp_path)
    with runs.claim("a-0-full") as mine:
        assert mine
        assert not _claimed_elsewhere(tmp_path)
    assert _claimed_elsewhere(tmp_path)
    runs.append({"name": "a-0-full"})
    assert not _claimed_elsewhere(tmp_path)


def test_runs_are_published_in_the_order_of_their_names(parts, tmp_path: Path) -> None:
    runs = parts.jobs.Runs(tmp_path)
    for name in ("b-0-full", "a-0-full"):
        runs.append({"name": name, "seed": 0})
    parts.jobs.write_runs(tmp_path / "published.jsonl", runs.read())
    again = parts.jobs.read_runs(tmp_path / "published.jsonl")
    assert list(again) == ["a-0-full", "b-0-full"]
    assert again == runs.read()


def _claimed_elsewhere(folder: Path) -> bool:
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply(_claim, (folder,))


def _claim(folder: Path) -> bool:
    from _controller.jobs import Runs

    with Runs(folder).claim("a-0-full") as mine:
        return mine


def test_a_mixture_trains_on_no_sample_twice(parts) -> None:
    (images, labels), test = digits()[0].tensors, digits()[1]
    # The first pixel, black in each of them, becomes the number of the sample.
    marked = images.clone()
    marked[:, 0, 0, 0] = torch.arange(len(labels)) / len(labels)
    data = (torch.utils.data.TensorDataset(marked, labels), test)
    stream = parts.streams.mixture(data, 0, size=100)
    seen = [
        float(sample[0][0, 0, 0])
        for position, experience in enumerate(stream)
        if position not in (7, 8)  # turned
        for part in (experience.train, experience.val)
        for sample in part
    ]
    assert len(seen) == len(set(seen)) == 800
    classes = [{int(label) for _, label in experience.train} for experience in stream]
    assert [len(each) for each in classes] == [6, 6, 6, 2, 8, 8, 2, 10, 10, 6]
    assert classes[9] == classes[0]
    assert not classes[3] & classes[0]


def test_recurring_corruptions_are_of_the_same_arrivals(parts) -> None:
    clean = parts.streams.stationary(digits(), 2, size=100)
    recurring = parts.streams.drifting(digits(), 2, size=100)
    for position in range(8):  # then the other one turns
        before, after = clean[position].train[0][0], recurring[position].train[0][0]
        same = torch.equal(before, after)
        assert same == (parts.streams._RECURRING[position] == "clean")


def test_a_run_counts_what_it_trains_on_and_stays_within_its_budget(parts) -> None:
    experiences = parts.streams.small_stream_of("b", 0)[:2]
    full, default = (
        parts.running.run(
            parts.jobs.Job(stream="b", seed=0, policy=policy, budget=budget),
            experiences,
            budget_j=budget_j,
            epochs=2,
            make=parts.collecting.SMALL.model("b"),
        )
        for policy, budget, budget_j in (("full", None, None), ("default", 50, 50.0))
    )
    sizes = [len(experience.train) for experience in experiences]
    first, second = full["experiences"]
    if first["steps"] == first["planned"]:  # unless the guard cut it
        assert first["samples"] == 2 * sizes[0]
    assert [len(each["trained"]) for each in (first, second)] == [2, 2]
    assert [len(each["right"]) for each in (first, second)] == [1, 2]
    assert default["violations"] == full["violations"] == 0
    assert default["spent_j"] <= 50.0
    drawn = sum(each["update_j"] + each["beside_j"] for each in default["experiences"])
    assert drawn == pytest.approx(default["spent_j"], abs=1e-3)
    assert sum(default["phases_j"].values()) == pytest.approx(default["spent_j"], abs=1e-3)


def test_decisions_are_timed_at_the_end(parts) -> None:
    ticks = iter(range(10_000))
    found = parts.speed.decide_run(experiences=2, clock=lambda: next(ticks) / 1000)
    assert len(found["ms"]) == 100
    assert statistics.fmean(found["ms"]) == pytest.approx(1.0)


@pytest.mark.slow
def test_the_short_form_has_every_row_and_exceeds_no_budget(tmp_path: Path) -> None:
    out = tmp_path / "rows.json"
    script = BENCHMARKS / "controller.py"
    done = prepared.python(script, "--quick", "--out", out, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = json.loads(out.read_text())["rows"]
    assert {row["id"] for row in rows} >= IDS
    assert all(row["value"] is not None or row["note"].startswith("not ") for row in rows)
    (violations,) = (row for row in rows if row["id"] == "violations")
    assert violations["value"] == 0.0
    assert violations["seeds"] > 20
