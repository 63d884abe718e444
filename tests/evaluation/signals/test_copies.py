"""Copies of samples that were trained on are found by hashes, in a bounded memory."""

from __future__ import annotations

import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from greentrain.evaluation.signals.copies import SeenSamples, input_hashes


def images(count: int, *, seed: int = 0, size: int = 5) -> TensorDataset:
    random = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, size, generator=random), torch.zeros(count))


class Read(Dataset):
    """Samples that no tensor holds, of a kind that ``wrap`` makes."""

    def __init__(self, source: TensorDataset, wrap) -> None:
        self.source, self.wrap = source, wrap

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int):
        return self.wrap(self.source[index][0])


KINDS = {
    "tuple": lambda x: (x, 1),
    "dictionary": lambda x: {"pixels": x, "label": 1},
    "array": lambda x: (x.numpy(), 1),
    "text": lambda x: (str(x.tolist()), 1),
}


def test_nothing_is_known_before_a_training():
    assert SeenSamples().share(images(30)) is None


@pytest.mark.parametrize("size", [1, 2, 5, 8, 784])
@given(copied=st.integers(0, 40))
def test_the_share_is_exact_while_all_hashes_are_kept(size, copied):
    old, new = images(40, size=size), images(40, seed=1, size=size)
    seen = SeenSamples()
    seen.add(old)
    mixed = ConcatDataset([Subset(old, range(copied)), Subset(new, range(40 - copied))])
    assert seen.share(mixed) == copied / 40


@pytest.mark.parametrize("wrap", KINDS.values(), ids=KINDS)
def test_samples_that_are_read_are_found_again(wrap):
    old, new = (Read(images(300, seed=seed), wrap) for seed in (0, 1))
    seen = SeenSamples()
    seen.add(old)
    assert (seen.share(old), seen.share(new)) == (1.0, 0.0)


def test_labels_do_not_count():
    pixels = images(20).tensors[0]
    seen = SeenSamples()
    seen.add(TensorDataset(pixels, torch.zeros(20)))
    assert seen.share(TensorDataset(pixels, torch.ones(20))) == 1.0


def test_a_bounded_memory_keeps_the_share_right():
    old, new = images(5000), images(2000, seed=1)
    seen = SeenSamples(limit=1000)
    seen.add(old)
    assert len(seen.state_dict()["hashes"]) == 1000
    half = ConcatDataset([Subset(old, range(0, 4000, 2)), new])
    assert seen.share(half) == pytest.approx(0.5, abs=0.06)  # about 800 are comparable
    assert seen.share(Subset(old, range(20))) is None  # about 4 are


def test_what_cannot_be_hashed_is_unknown():
    seen = SeenSamples()
    seen.add(images(20))
    assert input_hashes(Subset(images(20), [])) is None
    assert seen.share(Read(images(20), lambda x: (object(), 1))) is None
    seen.add(Read(images(20), lambda x: (object(), 1)))
    assert seen.share(images(20)) == 1.0


def test_it_goes_on_after_a_restart():
    seen, again = SeenSamples(), SeenSamples()
    seen.add(images(20))
    file = io.BytesIO()
    torch.save(seen.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert again.share(images(20)) == 1.0
    again.add(images(20, seed=1))
    assert again.share(images(20, seed=1)) == 1.0
