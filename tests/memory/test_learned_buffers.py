"""Buffers that learn to generate: codes by hand, what is remembered, and exact states."""

from __future__ import annotations

import io
import math

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory import (
    BinPlayBuffer,
    GenerativeBuffer,
    LogarithmicBuffer,
    MultibandBuffer,
    size,
)
from greentrain.memory.binplay import binary_codes
from greentrain.streams import digits

SMALL = {"steps": 3, "batch_size": 8, "hidden": 8, "latent": 5, "classes": 4}
KINDS = [BinPlayBuffer, GenerativeBuffer, LogarithmicBuffer, MultibandBuffer]


def images(*classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = digits()[0].tensors
    chosen = torch.isin(labels, torch.tensor(classes))
    return inputs[chosen].flatten(1), labels[chosen]


def noise(seed: int, count: int = 20) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.rand(count, 2, 3, generator=generator), torch.arange(count) % 4)


def parts(dataset) -> list[torch.Tensor]:
    items = [dataset[index] for index in range(size(dataset))]
    return [torch.stack(each) for each in zip(*items, strict=True)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_continues_exactly_and_a_seed_repeats(kind):
    first, again = kind(16, seed=3, **SMALL), kind(16, seed=3, **SMALL)
    for buffer in (first, again):
        for seed in range(3):
            buffer.add(noise(seed), origin=str(seed))
    first.learn_at_once = again.learn_at_once = False
    for buffer in (first, again):
        buffer.add(noise(3), origin="3")
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    loaded = kind(16, seed=9, **SMALL)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded.nbytes == first.nbytes
    for buffer in (first, again, loaded):
        assert buffer.learn() == 3
    results = [parts(each.select(lambda origin: origin != "1")) for each in (first, again, loaded)]
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))
    with pytest.raises(ConfigurationError, match="make it with the same arguments"):
        kind(16, **{**SMALL, "hidden": 9}).load_state_dict(first.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_what_cannot_be_generated_is_refused(kind):
    buffer = kind(16, **SMALL)
    with pytest.raises(ConfigurationError, match="not defined for a regression"):
        buffer.add(TensorDataset(torch.rand(4, 3), torch.rand(4)), origin="first")
    with pytest.raises(ConfigurationError, match="scale them"):
        buffer.add(TensorDataset(3 * torch.ones(4, 3), torch.arange(4)), origin="first")
    with pytest.raises(ConfigurationError, match="nothing was learned yet"):
        buffer.generate(3)
    assert (len(buffer), buffer.nbytes) == (0, 0)


def test_codes_are_distinct_and_those_of_the_formula():
    codes = binary_codes(torch.arange(2**10), 10)
    assert len(codes.unique(dim=0)) == 2**10
    found = ((codes + 1) / 2 * 2 ** torch.arange(10)).sum(1).long().tolist()
    assert found == [number * 13**9 % 2**10 for number in range(2**10)]
    wide = binary_codes(torch.tensor([123_456]), 62)
    bits = [123_456 * 13**9 % 2**62 >> place & 1 for place in range(62)]
    assert ((wide[0] + 1) / 2).long().tolist() == bits
    near = codes[1:] != codes[:-1]
    assert near.sum(1).float().mean() > 4  # of ten bits


def test_memorised_samples_come_back_closer_than_generated_ones_are():
    inputs, labels = images(0, 1)
    data = TensorDataset(inputs[:40], labels[:40])
    options = {"classes": 2, "steps": 150, "batch_size": 40, "hidden": 64, "rate": 3e-3}
    memory, generator = BinPlayBuffer(40, **options), GenerativeBuffer(40, latent=32, **options)
    for buffer in (memory, generator):
        buffer.add(data, origin="first")
    stored, classes = parts(memory.select(lambda origin: True))
    assert torch.equal(classes, labels[:40])
    exact = (stored - inputs[:40]).square().mean()
    generated = generator.generate(40)[0]
    nearest = torch.cdist(inputs[:40], generated).square().min(1).values.mean() / 64
    print(f"memorised {exact:.5f}, nearest generated {nearest:.5f}")
    assert exact < nearest / 4


def test_places_keep_their_samples_origins_and_bytes():
    longer = {"steps": 150, "batch_size": 30, "hidden": 32, "rate": 1e-2}
    buffer = BinPlayBuffer(30, **{**SMALL, **longer})
    sets = [noise(seed, 30) for seed in range(3)]
    for number, each in enumerate(sets):
        buffer.add(each, origin=str(number))
    kept = [parts(buffer.select(lambda origin, n=n: origin == str(n))) for n in range(3)]
    assert sum(len(labels) for _, labels in kept) == len(buffer) == 30
    for (inputs, labels), each in zip(kept, sets, strict=True):
        distances = torch.cdist(inputs.flatten(1), each.tensors[0].flatten(1))
        nearest = each.tensors[1][distances.argmin(1)]
        assert (nearest == labels).float().mean() > 0.8
    weights = (5 + 4) * 32 + 32 + 32 * 32 + 32 + 32 * 6 + 6
    assert buffer.nbytes == 4 * weights + 30 * 8
    for options in ({"latent": 4}, {"latent": 63}):
        with pytest.raises(ConfigurationError, match="choose latent from 5 to 62"):
            BinPlayBuffer(30, **options)


def test_each_sample_is_generated_again_a_logarithm_of_times():
    buffer = LogarithmicBuffer(16, **{**SMALL, "steps": 1})
    for number in range(1, 17):
        buffer.add(noise(number, 4), origin=str(number))
        assert buffer.generators == number.bit_count()  # the ones of the binary number
        assert max(buffer.regenerated) <= math.log2(number)
        assert buffer._counts.sum() == 4 * number
    assert buffer.regenerated == [4, 3, 3, 2, 3, 2, 2, 1, 3, 2, 2, 1, 2, 1, 1, 0]


def test_after_five_experiences_every_class_is_still_generated():
    inputs, labels = images(*range(10))
    buffer = MultibandBuffer(500, steps=80, batch_size=32, hidden=48, latent=8, rate=5e-3)
    for first in range(0, 10, 2):
        buffer.add(TensorDataset(*images(first, first + 1)), origin=str(first))
    generated, classes = buffer.generate(500)
    distances = torch.cdist(generated, inputs)  # a nearest-neighbour classifier
    found = labels[distances.topk(5, largest=False).indices].mode(1).values
    assert set(found.tolist()) == set(range(10))
    right = (found == classes).float().mean()
    print(f"{100 * right:.1f} % of generated digits have their class")
    assert right > 0.6
    assert buffer.refreshed == 0  # no class comes twice


def test_new_samples_of_a_known_class_refresh_old_ones():
    buffers = [MultibandBuffer(9, similarity=each, **SMALL) for each in (0.01, 1.0)]
    for buffer in buffers:
        for seed in range(2):
            buffer.add(noise(seed), origin=str(seed))
    assert buffers[0].refreshed > buffers[1].refreshed == 0
    for similarity in (0.0, 1.1):
        with pytest.raises(ConfigurationError, match=f"similarity is {similarity}"):
            MultibandBuffer(9, similarity=similarity)
