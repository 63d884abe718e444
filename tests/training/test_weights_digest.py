"""The hash of a model's weights, in every kind of file that holds them."""

from __future__ import annotations

import hashlib
import struct

import pytest
import torch
from pytorch_lightning import Trainer

from greentrain.errors import ConfigurationError
from greentrain.training.weights_digest import read_weights, weights_sha256
from tests.models import Classifier, experience
from tests.training.streaming import open_stream

OTHERS = {
    "a value": {"w": torch.tensor([1.0, 3.0])},
    "a name": {"v": torch.tensor([1.0, 2.0])},
    "a type": {"w": torch.tensor([1.0, 2.0], dtype=torch.float64)},
    "a shape": {"w": torch.tensor([[1.0, 2.0]])},
    "one more": {"w": torch.tensor([1.0, 2.0]), "x": torch.zeros(0)},
    "the sign of zero": {"w": torch.tensor([1.0, 2.0]), "x": -torch.zeros(1)},
    "zero": {"w": torch.tensor([1.0, 2.0]), "x": torch.zeros(1)},
    "split": {"w": torch.tensor([1.0]), "x": torch.tensor([2.0])},
    "nothing": {},
}


def test_the_hash_can_be_computed_by_hand():
    lines = b'greentrain weights 1\n["n", "int64", []]\n' + struct.pack("=q", 7)
    lines += b'["w", "float32", [2]]\n' + struct.pack("=2f", 1.0, 2.0)
    weights = {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(7)}
    assert weights_sha256(weights) == hashlib.sha256(lines).hexdigest()


def test_any_change_changes_the_hash():
    assert len({weights_sha256(each) for each in OTHERS.values()}) == len(OTHERS)


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, torch.float16, torch.bool, torch.uint8, torch.complex64]
)
def test_order_and_strides_do_not_matter(dtype):
    grid = torch.arange(6).reshape(2, 3).to(dtype)
    one = {"a": grid, "b": torch.zeros(0)}
    other = {"b": torch.nn.Parameter(torch.zeros(0)), "a": grid.t().contiguous().t()}
    assert not other["a"].is_contiguous()
    assert weights_sha256(one) == weights_sha256(other)


def test_a_conjugate_is_hashed_by_its_values():
    number = torch.tensor([1 + 2j])
    assert weights_sha256({"a": number.conj()}) == weights_sha256({"a": torch.tensor([1 - 2j])})


def test_all_files_of_the_same_weights_have_one_hash(tmp_path):
    with open_stream(tmp_path, state_dir=tmp_path / "state") as trainer:
        trainer.update(experience("0", (0, 1)))
        model = trainer.model
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    lightning = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    lightning.strategy.connect(model)
    lightning.save_checkpoint(tmp_path / "lightning.ckpt")

    files = ("state/state.pt", "bare.pt", "lightning.ckpt")
    found = {weights_sha256(read_weights(tmp_path / each)) for each in files}
    assert found == {weights_sha256(model.state_dict())}
    assert found != {weights_sha256(Classifier().state_dict())}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (3, "'x' is int"),
        (torch.eye(2).to_sparse(), "'x' is a tensor of torch.float32 and torch.sparse_coo"),
        (torch.zeros(2, device="meta"), "'x' is on the meta device"),
    ],
)
def test_what_has_no_fixed_bytes_is_refused(value, named):
    with pytest.raises(ConfigurationError, match=named):
        weights_sha256({"w": torch.zeros(1), "x": value})


@pytest.mark.parametrize(
    "content", [{}, {"state_dict": {}}, [torch.zeros(1)], {0: torch.zeros(1)}, {"format": 4}]
)
def test_a_file_without_weights_is_named(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ConfigurationError, match=r"no weights are in 'other\.pt'"):
        read_weights(tmp_path / "other.pt")


def test_files_that_cannot_be_read_are_named_and_run_nothing(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"state_dict": {"w": torch.zeros(1)}, "x": Harm()}, tmp_path / "harmful.ckpt")
    (tmp_path / "text.ckpt").write_text("no file of torch")
    (tmp_path / "empty.ckpt").touch()
    for name in ("harmful.ckpt", "text.ckpt", "empty.ckpt", "missing.ckpt", "."):
        with pytest.raises(ConfigurationError, match="cannot read the weights"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "harm").exists()
