"""The continual benchmark has a row of every id, and its canaries hold in its short form too."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.streams import mnist
from tests import prepared

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "examples" / "benchmarks"
IDS = {
    *("finetune_cil", "joint_cil", "er_cil", "er_dil", "gdumb_500", "er_fmnist"),
    *("er_vs_avalanche", "warm_gap", "resume", "memory_flat"),
}
LEAST = {"joint_cil": 92.0, "er_cil": 86.0, "er_dil": 90.0, "gdumb_500": 83.0, "er_fmnist": 70.2}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _continual import models, peer, steps, warm

    return {"models": models, "peer": peer, "steps": steps, "warm": warm}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict]]:
    """The rows of the short form, by id."""
    try:
        mnist()
    except ConfigurationError as error:
        pytest.skip(str(error))
    out = tmp_path_factory.mktemp("continual") / "rows.json"
    script = BENCHMARKS / "continual.py"
    done = prepared.python(script, "--quick", "--out", out, cwd=out.parent)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, list[dict]] = {}
    for row in json.loads(out.read_text())["rows"]:
        found.setdefault(row["id"], []).append(row)
    return found


@pytest.mark.slow
def test_every_row_is_there_or_says_why_not(rows) -> None:
    assert set(rows) == IDS
    for row in (row for each in rows.values() for row in each):
        assert row["value"] is not None or row["note"].startswith(("not run: ", "not defined"))


@pytest.mark.slow
def test_the_canaries_live(rows) -> None:
    finetune, distance = (row["value"] for row in rows["finetune_cil"])
    assert finetune == pytest.approx(19.7, abs=0.4)  # one experience of five is known at the end
    assert distance == pytest.approx(abs(finetune - 19.9))
    for id, least in LEAST.items():
        assert all(row["value"] >= least for row in rows[id]), rows[id]


@pytest.mark.slow
def test_no_experience_is_lost_and_the_buffer_does_not_grow(rows) -> None:
    (resume,) = rows["resume"]
    assert (resume["value"], resume["seeds"] > 0) == (0.0, True)
    held = next(row for row in rows["memory_flat"] if "buffer" in row["what"])
    assert held["value"] == 0.0  # times and the process's memory are the machine's


def test_the_rate_ends_each_cosine_low_and_starts_the_next_high(parts) -> None:
    rate = parts["models"].rate
    assert [rate(epoch) for epoch in (0, 1, 2, 4, 8, 64)] == pytest.approx([0.005, *[0.05] * 5])
    # The middle of a cycle of 64 is half-way between 0.05 and 0.0005; its end is near the latter.
    assert rate(96) == pytest.approx(0.02525)
    assert 0.0005 < rate(127) < 0.00053


def test_crops_move_images_and_lose_only_what_leaves_them(parts) -> None:
    torch.manual_seed(0)
    images = torch.zeros(64, 1, 28, 28)
    images[:, :, 14, 14] = 1.0
    moved = parts["models"].cropped(images)
    assert moved.shape == images.shape
    assert torch.equal(moved.sum(dim=(1, 2, 3)), torch.ones(64))
    places = moved.flatten(1).argmax(dim=1)
    assert 10 <= int((places // 28).min()) < int((places // 28).max()) <= 18
    assert 10 <= int((places % 28).min()) < int((places % 28).max()) <= 18


def test_halves_of_a_replayed_batch_weigh_what_they_are_given(parts) -> None:
    model = parts["models"].Perceptron(classes=2, new_share=0.25, pixels=4)
    images, labels = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 1, 1])
    each = torch.nn.functional.cross_entropy(model(images), labels, reduction="none")
    expected = (0.25 * (each[0] + each[1]) + 0.75 * (each[2] + each[3])) / 2
    found = model.training_step((images, labels), 0).item()
    assert found == pytest.approx(expected.item())


def test_growth_is_reported_only_where_it_is_certain(parts) -> None:
    growth = parts["steps"].growth
    straight = growth("id", "what", [1.0, 2.0, 3.0], held_to=True, note="note")
    assert straight.value == pytest.approx(50.0)  # one a step, half of the mean of two
    nothing = growth("id", "what", [0.0, 0.0], held_to=True, note="note")
    assert (nothing.value, nothing.note[:9]) == (None, "not known")
    assert growth("id", "what", [3.0, 2.0, 1.0], held_to=True, note="note").value == 0.0
    noisy = growth("id", "what", [1.0, 2.0, 1.0, 2.0], held_to=False, note="note")
    assert (noisy.value, noisy.reach) == (0.0, None)
    assert noisy.interval[0] < 0 < noisy.interval[1]


def test_without_its_interpreter_the_peer_is_not_run(parts, tmp_path) -> None:
    peer = parts["peer"].Avalanche(tmp_path, None)
    assert peer.learn("class", steps=1, seed=0) is None
    assert peer.note == "not run: no --peers-python was given"


def test_a_peer_that_does_not_load_says_why(parts, tmp_path, monkeypatch) -> None:
    tiny = TensorDataset(torch.zeros(1, 1, 28, 28), torch.zeros(1, dtype=torch.long))
    monkeypatch.setattr(parts["peer"], "mnist", lambda: (tiny, tiny))
    peer = parts["peer"].Avalanche(tmp_path, sys.executable)
    assert peer.learn("class", steps=1, seed=0) is None
    assert "No module named 'avalanche'" in peer.note


def test_warm_starts_run_on_a_cpu_too(parts) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 2
    images = 0.1 * torch.randn(120, 3, 32, 32, generator=generator) + labels.view(-1, 1, 1, 1)
    found = parts["warm"].accuracies(
        TensorDataset(images, labels), seeds=[0], accelerator="cpu", most_epochs=2
    )
    assert set(found) == {"random", "warm", "shrunk"}
    assert all(len(values) == 1 and 0 <= values[0] <= 100 for values in found.values())


def test_the_share_of_the_gap_is_that_of_the_means(parts) -> None:
    rows_of = parts["warm"]._rows
    found = {"random": [70.0, 72.0], "warm": [66.0, 68.0], "shrunk": [69.0, 71.0]}
    share, *starts = rows_of(found, "note")
    assert share.value == pytest.approx(75.0)  # 3 of 4 points
    assert [row.value for row in starts] == [71.0, 67.0, 70.0]
    no_gap, *_ = rows_of({"random": [70.0], "warm": [71.0], "shrunk": [70.0]}, "note")
    assert no_gap.value is None
    assert no_gap.note.startswith("not defined, because warm starts lost nothing")


def test_cifar_is_decoded_from_jpeg(parts, tmp_path) -> None:
    np, image = pytest.importorskip("numpy"), pytest.importorskip("PIL.Image")
    import io

    files = []
    for value in (0, 255):
        file = io.BytesIO()
        image.fromarray(np.full((32, 32, 3), value, np.uint8)).save(file, "JPEG")
        files.append(np.frombuffer(file.getvalue(), np.uint8))
    offsets = np.cumsum([0, *(len(file) for file in files)])
    path = tmp_path / "cifar.npz"
    np.savez(path, jpeg_train=np.concatenate(files), offset_train=offsets, y_train=np.array([3, 7]))
    images, labels = parts["warm"].cifar(path).tensors
    assert images.shape == (2, 3, 32, 32)
    assert images.flatten(1).mean(dim=1).tolist() == pytest.approx([-1.0, 1.0], abs=0.01)
    assert labels.tolist() == [3, 7]
