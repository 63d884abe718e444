"""The benchmark of methods on a few images: its runs can be resumed, and its rows are complete."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"
PIECES = (("none", "class"), ("LwF", "task"), ("SI", "task"), ("DER", "class"), ("L2", "domain"))
FASHION_PIECES = (("AQM", "class"),)


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    """The modules of the benchmark, with 300 images that show their label."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _methods import entries, protocol, runs, tables

    labels = torch.arange(400) % 10
    images = torch.zeros(400, 1, 28, 28)
    for index, label in enumerate(labels.tolist()):
        images[index, 0, label] = 1.0
    pair = tuple(
        TensorDataset(images[part], labels[part]) for part in (slice(300), slice(300, 400))
    )
    monkeypatch.setattr(protocol, "mnist", lambda: pair)
    monkeypatch.setattr(protocol, "fashion_mnist", lambda: pair)
    monkeypatch.setattr(protocol, "BATCH_SIZE", 16)
    monkeypatch.setattr(runs, "ORDER", PIECES)
    monkeypatch.setattr(runs, "FASHION_ORDER", FASHION_PIECES)
    return {"entries": entries, "protocol": protocol, "runs": runs, "tables": tables}


def test_runs_are_resumed_and_chosen_on_held_out_data(parts, tmp_path, monkeypatch) -> None:
    runs, tables = parts["runs"], parts["tables"]
    size = runs.Size(seeds=1, steps=4, search_steps=2)
    path = tmp_path / "runs.jsonl"
    first = runs.Runs(path)
    runs.do_all(first, size, part=(0, 2))  # every other piece
    done = {(run.method, run.held_out) for run in first}
    assert done == {("none", False), ("SI", True), ("SI", False), ("L2", True), ("L2", False)}
    assert {run.data for run in first} == {"mnist"}
    assert sum(run.held_out for run in first) == 7  # four and three strengths

    worked = []

    def work(run):
        worked.append(run.method)
        return parts["protocol"].Learned(accuracy=50.0, cpu_s=1.0, bytes=2_000_000)

    monkeypatch.setattr(runs, "work", work)
    again = runs.Runs(path)
    runs.do_all(again, size)
    assert worked == ["LwF", "DER", "AQM"]
    assert len(path.read_text().splitlines()) == len(list(again)) == 13  # 7 searched, 6 measured

    searched = [run for run in again if run.method == "SI" and run.held_out]
    best = max(searched, key=lambda run: run.accuracy)
    chosen = next(run for run in again if run.method == "SI" and not run.held_out)
    assert chosen.strength == best.strength

    rows = tables.rows_of_runs(again, size)
    _check_the_sources_tables(rows)
    values = {row.what.rpartition("incremental, ")[2]: row for row in rows if row.value is not None}
    assert {"fine-tuning", "LwF", "SI", "DER", "L2"} <= set(values)
    for row in (row for row in rows if row.value is None):
        assert row.note.startswith("not run")
    table = tables.search_table(again, size)
    assert table.count("| SI |") == 4
    total = sum(tables.counted_j(run.cpu_s) for run in again if run.held_out)
    assert f"counted at {tables.WATTS_OF_A_CORE:g} W" in table
    assert total > 0


def _check_the_sources_tables(rows) -> None:
    """Check the rows after one run of AQM on Fashion-MNIST, with 50 % accuracy."""
    fashion = [row for row in rows if row.id == "fmnist_table"]
    assert len(fashion) == 30  # ten methods in three scenarios
    softest = next(row for row in fashion if row.what.endswith("task-incremental, fine-tuning"))
    assert softest.reach == 82.49  # 88.13 less 5.64
    assert "published 88.13 ± 5.64 %" in softest.note
    assert all("the paper does not print" in row.note for row in fashion)
    rehearsal = {row.what: row for row in rows if row.id == "rehearsal_table"}
    assert len(rehearsal) == 18
    done = rehearsal["Split Fashion-MNIST class-incremental, AQM"]
    assert (done.value, done.reach, done.reached) == (50.0, 67.4, False)
    assert "2.00 MB kept" in done.note
    assert rehearsal["Split MNIST class-incremental, BinPlay"].reach == 97.2
    assert len({(row.id, row.what) for row in rows}) == len(rows)


def test_the_bytes_that_a_method_keeps_are_counted(parts) -> None:
    entries, learn = parts["entries"], parts["protocol"].learn
    sample = 784 * 4 + 8
    kept = {}
    for method in ("none", "ER", "AQM", "LwF"):
        callbacks = entries.ENTRIES[method].make("class", 0.0, 0)
        kept[method] = learn("class", callbacks, steps=3, seed=0).bytes
    # The stored samples: all 300 are fewer than the 1,000 that may be; a few bytes are bookkeeping.
    assert kept["none"] == 0
    assert 300 * sample <= kept["ER"] < 300 * sample + 20_000
    assert kept["AQM"] < kept["ER"] / 4
    weights = 784 * 400 + 400 + 400 * 400 + 400 + 400 * 10 + 10
    assert kept["LwF"] == 4 * (weights + 10)  # the teacher, with its mask


def test_the_picture_has_all_runs_and_is_the_same_each_time(parts, tmp_path) -> None:
    from _methods import plot

    runs = parts["runs"]
    done = runs.Runs(tmp_path / "runs.jsonl")
    size = runs.Size(seeds=2, steps=4, search_steps=2)
    assert plot.plot_row(plot.points(done, size)).value is None
    for seed in range(2):
        run = runs.Run(
            method="LwF", scenario="task", strength=0.0, seed=seed, steps=4, held_out=False
        )
        found = parts["protocol"].Learned(accuracy=90.0 + 2 * seed, cpu_s=3.0, bytes=None)
        done.finish(run, lambda run, found=found: found)
    points = plot.points(done, size)
    assert [(each.method, each.accuracy, each.joules) for each in points] == [("LwF", 91.0, 30.0)]
    row = plot.plot_row(points)
    assert (row.value, row.seeds) == (1, 1)
    files = [tmp_path / "first.svg", tmp_path / "second.svg"]
    for file in files:
        plot.plot([*points, replace(points[0], method="ER", bytes=5e6)], file)
    assert files[0].read_bytes() == files[1].read_bytes()
    text = files[0].read_text(encoding="utf-8")
    assert ">LwF<" in text
    assert text.count(">ER<") == 2
    assert len(text) < 60_000


def test_a_search_that_is_not_finished_chooses_nothing(parts, tmp_path) -> None:
    runs = parts["runs"]
    size = runs.Size(seeds=1, steps=4, search_steps=2)
    empty = runs.Runs(tmp_path / "runs.jsonl")
    assert runs.measured(empty, "EWC", "task", 0, size) is None


def test_other_tasks_take_no_part_in_a_prediction(parts) -> None:
    model = parts["protocol"].MaskedPerceptron()
    model.activate((2, 3))
    images = torch.rand(5, 784)
    probabilities = model(images).softmax(1)
    assert bool((probabilities[:, [0, 1, 4, 5, 6, 7, 8, 9]] == 0).all())
    assert torch.equal(model(images)[:, 2:4], model.net(images)[:, 2:4])
    # A teacher leaves out what its model did.
    teacher = parts["protocol"].MaskedPerceptron()
    teacher.load_state_dict(model.state_dict())
    assert torch.equal(teacher(images), model(images))


def test_experiences_have_their_classes_and_held_out_data_is_not_trained_on(parts) -> None:
    protocol = parts["protocol"]
    for scenario, classes in (("class", {4, 5}), ("task", {4, 5}), ("domain", {0, 1})):
        third = protocol.contexts(scenario, 0)[2]
        assert set(third.train.tensors[1].tolist()) == classes
        assert set(third.active) == (set(range(6)) if scenario == "class" else classes)
    searched = protocol.contexts("class", 0, held_out=True)
    assert sum(len(each.test) for each in searched) == 30
    assert sum(len(each.train) for each in searched) == 270
    orders = {tuple(protocol.class_groups(seed)) for seed in range(3)}
    assert len(orders) == 3


def test_the_published_file_has_the_ids_and_says_what_was_not_run() -> None:
    content = json.loads((BENCHMARKS.parents[1] / "docs/benchmarks/methods.json").read_text())
    assert {row["id"] for row in content["rows"]} == {
        *("mnist_til", "mnist_dil", "mnist_cil"),
        *("fmnist_table", "rehearsal_table", "vs_avalanche", "pareto"),
    }
    for row in content["rows"]:
        assert row["value"] is not None or row["note"].startswith("not run")


def test_both_libraries_learn_the_same_model_with_the_same_sizes(parts) -> None:
    from _methods import avalanche_runs, pairs, structures

    protocol = parts["protocol"]
    own, other = protocol.MaskedPerceptron(), avalanche_runs.Masked()
    other.load_state_dict(own.state_dict())
    for model in (own, other):
        model.activate((2, 3))
    images = torch.rand(5, 784)
    assert torch.equal(own(images), other(images))
    assert avalanche_runs.LEFT_OUT == structures.LEFT_OUT
    assert avalanche_runs.STORED == pairs.STORED
    assert avalanche_runs.CAPACITY == protocol.CONTEXTS * pairs.STORED
    callbacks = {name: pair.callbacks(name, 1.0, 0)[0] for name, pair in pairs.PAIRS.items()}
    assert callbacks["ER-MIR"].candidates == avalanche_runs.CANDIDATES
    assert callbacks["ER-MIR"].batch_size == avalanche_runs.BATCH_SIZE
    assert callbacks["A-GEM"].batch_size == avalanche_runs.BATCH_SIZE
    assert callbacks["iCaRL"].buffer.max_size == avalanche_runs.EXEMPLARS
    assert callbacks["DER"].alpha == 0.5


def test_pairs_are_resumed_and_compared(parts, tmp_path, monkeypatch) -> None:
    from _methods import pairs

    runs = parts["runs"]
    size = runs.Size(seeds=2, steps=3, search_steps=2)
    monkeypatch.setattr(pairs, "PAIRS", {name: pairs.PAIRS[name] for name in ("DER", "SI")})
    learned = parts["protocol"].Learned
    worked = []

    def there(run, method, python):
        worked.append((method, run.seed, run.held_out))
        return learned(accuracy=50.0 + run.strength / 1000, cpu_s=2.0)

    monkeypatch.setattr(pairs, "_learn_there", there)
    monkeypatch.setattr(pairs, "_learn_here", lambda run: learned(accuracy=49.0, cpu_s=1.0))
    path = tmp_path / "pairs.jsonl"
    pairs.do_pairs(runs.Runs(path), size, "python")
    assert len(worked) == 4 + 4  # the strengths of SI, and two seeds of two methods
    pairs.do_pairs(runs.Runs(path), size, "python")
    assert len(worked) == 8

    rows = {row.what: row for row in pairs.pair_rows(runs.Runs(path), size)}
    assert len(rows) == 8
    start = "Split MNIST class-incremental, DER"
    assert rows[f"{start}, greentrain"].value == 49.0
    assert rows[f"{start}, Avalanche 0.6.0"].value == 50.0
    assert rows[f"{start}: points below Avalanche"].value == 1.0
    assert rows[f"{start}: points below Avalanche"].reached
    assert rows[f"{start}: joules of a step over those of Avalanche"].value == 0.5
    chosen = rows["Split MNIST task-incremental, SI, Avalanche 0.6.0"]
    assert chosen.value == 52.0  # the strongest of 2 to 2,000 was the best of the search
    assert "strength 2000, chosen on held-out data" in chosen.note
    # 2 s of 10 W over 5 experiences of 3 steps
    assert "1.33 J a step" in chosen.note
    empty = pairs.pair_rows(runs.Runs(tmp_path / "none.jsonl"), size)
    assert all(row.value is None and row.note.startswith("not run") for row in empty)


def test_a_pair_is_learned_here_from_a_plain_loader(parts) -> None:
    from _methods import pairs

    Run = parts["runs"].Run
    run = Run(method="DER", scenario="class", strength=0.0, seed=0, steps=2, held_out=False)
    learned = pairs._learn_here(run)
    assert 0 <= learned.accuracy <= 100
    assert learned.cpu_s > 0
