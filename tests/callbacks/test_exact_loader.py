"""The order and the samples of a loader are a function of seed, epoch and index."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    WeightedRandomSampler,
)

from greentrain.callbacks import resumable_loader
from greentrain.callbacks import resumable_loader as made
from greentrain.callbacks.random_states import collect_states, own_generator, restore_states
from greentrain.errors import ConfigurationError


class Noisy:
    """Samples with noise of all three global generators."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> list[float]:
        return [float(index), random.random(), float(np.random.rand()), torch.rand(()).item()]


class Many(Noisy):
    """The same, loaded a batch at a time."""

    def __getitems__(self, indices: list[int]) -> list[list[float]]:
        return [self[index] for index in indices]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(range(10))


class OwnGenerator(Noisy):
    def __init__(self) -> None:
        self.transforms = [{"noise": np.random.default_rng(0)}]


class Odd(Sampler):
    def __iter__(self):
        return iter(range(10))


def noisy_batch(samples: list[list[float]]) -> torch.Tensor:
    """Mask samples in the collator, as language models do."""
    return torch.tensor(samples) * (torch.rand(4) > 0.5)


def epoch_of(loader, epoch: int = 0) -> list[torch.Tensor]:
    loader.set_epoch(epoch)
    return [torch.stack(list(batch)) if isinstance(batch, list) else batch for batch in loader]


def same(first, second) -> bool:
    return len(first) == len(second) and all(map(torch.equal, first, second))


@pytest.mark.parametrize("data", [Noisy(), Many()])
@pytest.mark.parametrize("options", [{}, {"collate_fn": noisy_batch}])
def test_samples_are_the_same_at_any_time(data, options):
    first, second = made(data, 3, seed=1, **options), made(data, 3, seed=1, **options)
    expected = epoch_of(first, 2)
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    epoch_of(second, 1)
    assert same(epoch_of(second, 2), expected)
    assert same(epoch_of(second, 2), expected)
    assert not same(epoch_of(second, 3), expected)
    assert not same(epoch_of(made(data, 3, seed=2, **options), 2), expected)


def test_the_number_of_workers_changes_nothing():
    loaders = [
        made(Noisy(), 3, seed=1, collate_fn=noisy_batch, **options)
        for options in ({}, {"num_workers": 2, "persistent_workers": True})
    ]
    for epoch in (0, 1):
        assert same(*(epoch_of(loader, epoch) for loader in loaders))
    loaders[1]._iterator = None  # ends its workers


def test_loading_leaves_the_generators_unchanged():
    before = collect_states()
    epoch_of(made(Noisy(), 3, collate_fn=noisy_batch))
    after = collect_states()
    assert torch.equal(before["torch"], after["torch"])
    assert torch.equal(before["python"][1], after["python"][1])
    assert torch.equal(before["numpy"][1], after["numpy"][1])
    assert before["numpy"][2:] == after["numpy"][2:]


def test_states_are_restored():
    random.gauss(0, 1), np.random.randn()  # leaves a second number in each generator
    states = collect_states(torch.device("cpu"))
    expected = random.gauss(0, 1), np.random.randn(), torch.rand(()).item()
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    restore_states(states, torch.device("cpu"))
    assert (random.gauss(0, 1), np.random.randn(), torch.rand(()).item()) == expected


@pytest.mark.parametrize("position", [0, 1, 3, 4])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_epoch_continues(position, workers):
    expected = epoch_of(made(Noisy(), 3, seed=1), 5)
    first, second = (made(Noisy(), 3, seed=1, num_workers=workers) for _ in range(2))
    first.set_epoch(5)
    batches = iter(first)
    for _ in range(position):
        next(batches)
    second.load_state_dict(first.state_dict())
    assert second.state_dict() == first.state_dict()
    assert len(second) == 4
    second.set_epoch(5)  # as Lightning does
    assert same([torch.stack(list(batch)) for batch in second], expected[position:])
    assert same(epoch_of(second, 5), expected)


def test_a_new_epoch_begins_at_its_start():
    loader = made(Noisy(), 3, seed=1)
    loader.load_state_dict({**loader.state_dict(), "epoch": 0, "position": 2})
    unused = iter(loader)
    loader.set_epoch(1)
    assert same([torch.stack(list(batch)) for batch in unused], epoch_of(loader, 1))


def test_no_shuffle_keeps_the_order():
    assert torch.cat(list(made(range(10), 3, shuffle=False))).tolist() == list(range(10))
    assert [len(batch) for batch in made(range(10), 3, drop_last=True)] == [3, 3, 3]


def test_a_sampler_of_torch_can_be_repeated():
    weights = [1.0] * 5 + [0.0] * 5
    loaders = [made(range(10), 5, sampler=WeightedRandomSampler(weights, 10)) for _ in range(2)]
    order = [torch.cat(epoch_of(loader, 3)).tolist() for loader in loaders]
    assert order[0] == order[1]
    assert max(order[0]) < 5
    assert torch.cat(epoch_of(loaders[0], 4)).tolist() != order[0]


@pytest.mark.parametrize("count", [9, 10])
@pytest.mark.parametrize("drop_last", [False, True])
def test_processes_share_the_samples(monkeypatch, count, drop_last):
    monkeypatch.setattr("greentrain.callbacks.exact_loader.world", lambda: (2, rank))
    loader, seen = made(range(count), 2, seed=1, drop_last=drop_last), []
    for rank in (0, 1):  # noqa: B007  (read by the function above)
        own = torch.cat(list(loader)).tolist()
        assert len(loader) == len(list(loader))
        seen.append(own)
    assert len(seen[0]) == len(seen[1])
    assert {*seen[0], *seen[1]} == {*range(count)} or drop_last
    assert not {*seen[0]} & {*seen[1]} or count == 9


@pytest.mark.parametrize("seed", ["12", None])
def test_the_seed_is_that_of_lightning(monkeypatch, seed):
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    if seed is not None:
        monkeypatch.setenv("PL_GLOBAL_SEED", seed)
    assert made(range(10)).state_dict()["seed"] == int(seed or 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": Endless()}, "Endless is an IterableDataset, which has no index"),
        ({"dataset": {1, 2}}, "resumable_loader got set; give a dataset with __len__ and"),
        ({"dataset": []}, "resumable_loader got an empty dataset; give one with samples"),
        ({"batch_size": 0}, r"batch_size=0\) is not allowed; give 1 or more samples"),
        ({"batch_size": None}, r"batch_size=None\) is not allowed"),
        ({"seed": -1}, r"seed=-1\) is not allowed; give a whole number, 0 or more"),
        ({"seed": 1.5}, r"seed=1.5\) is not allowed"),
        ({"generator": torch.Generator()}, r"generator=...\) is not allowed, .*; give seed"),
        ({"batch_sampler": BatchSampler([], 1, False)}, "batch_sampler=.*; give sampler or sh"),
        ({"in_order": False}, "in an order that depends on the workers' speed; omit in_order"),
        ({"sampler": Odd()}, "the order of Odd cannot be repeated, because it has no attribute"),
        ({"dataset": OwnGenerator()}, "OwnGenerator holds a random generator in 'transforms.0.n"),
    ],
)
def test_bad_inputs_get_one_sentence(options, message):
    with pytest.raises(ConfigurationError, match=message):
        resumable_loader(**{"dataset": range(10), **options})


def test_a_generator_may_be_allowed():
    assert len(made(OwnGenerator(), check_generators=False)) == 10
    assert own_generator(RandomSampler(range(3), generator=torch.Generator())) == "generator"
    assert own_generator(DataLoader(range(3))) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "with batch_size=3, and this loader has batch_size=4. Continue with"),
        ({"seed": 2}, "seed=1, and this loader has seed=2"),
        ({"shuffle": False}, "shuffled=1, and this loader has shuffled=0"),
        ({"dataset": range(11)}, "samples=10, and this loader has samples=11"),
    ],
)
def test_another_loader_is_refused(options, message):
    saved = made(range(10), 3, seed=1).state_dict()
    loader = made(**{"dataset": range(10), "batch_size": 3, "seed": 1, **options})
    with pytest.raises(ConfigurationError, match=message):
        loader.load_state_dict(saved)
