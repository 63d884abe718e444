"""Buffers that compress or generate: codes and bytes by hand, and a generator that remembers."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from greentrain.errors import ConfigurationError
from greentrain.memory import GenerativeBuffer, QuantisedBuffer, SampleList, size


def blocks(count: int, seed: int = 0, *, kinds: int = 4) -> TensorDataset:
    """Inputs of two blocks of four values, each one of a few rows, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.eye(4)[torch.randint(kinds, (count, 2), generator=generator)]
    return TensorDataset(rows.view(count, 1, 8), torch.arange(count) % 3)


def parts(dataset):
    items = [dataset[index] for index in range(size(dataset))]
    return torch.stack([x for x, _ in items]), torch.stack([y for _, y in items])


def quantised(**options) -> QuantisedBuffer:
    return QuantisedBuffer(
        options.pop("max_size", 100), **{"threshold": 0.01, "block": 4, "codes": 8, **options}
    )


def test_what_is_compressible_comes_back_and_takes_a_byte_a_block():
    buffer, data = quantised(), blocks(60)
    after = buffer.after(data, origin="first")
    buffer.add(data, origin="first")
    inputs, labels = parts(buffer.select(lambda origin: True))
    torch.testing.assert_close(inputs, data.tensors[0])
    assert torch.equal(labels, data.tensors[1])
    torch.testing.assert_close(parts(after)[0], inputs)
    assert buffer.compressed == len(buffer) == 60
    assert buffer.nbytes == 4 * 16 + 60 * (2 + 8)  # four codes of four values, codes and labels


def test_a_sample_above_the_threshold_is_stored_as_it_is():
    buffer, odd = quantised(codes=3), torch.rand(5, 1, 8)
    buffer.add(blocks(60, kinds=3), origin="first")
    codes = buffer._codebook.clone()
    buffer.add(TensorDataset(odd, torch.zeros(5, dtype=torch.long)), origin="odd")
    inputs, _ = parts(buffer.select(lambda origin: origin == "odd"))
    assert torch.equal(inputs, odd)
    assert torch.equal(buffer._codebook, codes)  # of three codes, all are in use
    assert (len(buffer), buffer.compressed) == (65, 60)
    assert buffer.nbytes == 3 * 16 + 60 * 2 + 65 * 8 + 5 * 32


def test_later_codes_change_nothing_that_was_stored():
    buffer = quantised(codes=16)
    buffer.add(blocks(60, kinds=2), origin="first")
    before, _ = parts(buffer.select(lambda origin: origin == "first"))
    few = len(buffer._codebook)
    buffer.add(blocks(40, seed=1), origin="second")
    now, _ = parts(buffer.select(lambda origin: origin == "first"))
    assert len(buffer._codebook) > few
    assert torch.equal(before, now[: len(before)])


def test_a_quantised_buffer_keeps_its_size_a_uniform_choice_and_its_state():
    buffer = quantised(max_size=30)
    for name in ("first", "second", "third"):
        buffer.add(blocks(100), origin=name)
    kept = [size(buffer.select(lambda origin, n=n: origin == n)) for n in ("first", "third")]
    assert len(buffer) == 30
    assert all(2 <= each <= 20 for each in kept)  # ten of each are expected
    restored = quantised(max_size=30)
    restored.load_state_dict(buffer.state_dict())
    for mine, other in zip(restored.sample(9), buffer.sample(9), strict=True):
        assert torch.equal(mine[0], other[0])
    for each in (restored, buffer):
        each.add(blocks(50, seed=2), origin="fourth")
    every = [parts(each.select(lambda origin: True))[0] for each in (restored, buffer)]
    assert torch.equal(*every)
    with pytest.raises(ConfigurationError, match="buffer with max_size, block, codes"):
        quantised().load_state_dict(buffer.state_dict())


def dark_and_light(label: int, count: int = 200) -> TensorDataset:
    inputs = torch.full((count, 1, 4, 4), 0.1 + 0.8 * label)
    return TensorDataset(inputs, torch.full((count,), label))


def generative(**options) -> GenerativeBuffer:
    small = {"classes": 2, "steps": 60, "batch_size": 32, "hidden": 16, "latent": 2, "rate": 0.01}
    return GenerativeBuffer(100, **{**small, **options})


def test_a_generator_remembers_what_it_saw_before():
    buffer = generative()
    for label, name in enumerate(("dark", "light")):
        buffer.add(dark_and_light(label), origin=name)
    inputs, labels = parts(buffer.select(lambda origin: True))
    assert len(buffer) == len(labels) == 100
    means = [float(inputs[labels == label].mean()) for label in range(2)]
    assert means[0] < 0.3
    assert means[1] > 0.7
    assert 30 < int(labels.sum()) < 70
    assert size(buffer.select(lambda origin: origin == "light")) == 50
    assert buffer.nbytes == 4 * sum(each.numel() for each in buffer._model.parameters())
    restored = generative()
    restored.load_state_dict(buffer.state_dict())
    assert torch.equal(restored.generate(5)[0], buffer.generate(5)[0])
    buffer.label_with = lambda batch: torch.stack(
        [torch.ones(len(batch)), 0 * batch[:, 0, 0, 0]], 1
    )
    assert set(buffer.generate(20)[1].tolist()) == {0}  # labels of a classifier


def test_data_may_wait_until_they_are_learned():
    buffer = generative(learn_at_once=False, steps=3)
    assert size(buffer.after(dark_and_light(0), origin="first")) == 200
    buffer.add(dark_and_light(0), origin="first")
    assert (buffer.experiences, len(buffer)) == (0, 200)
    assert buffer.nbytes == 200 * (16 * 4 + 8)
    assert size(buffer.select(lambda origin: origin == "first")) == 200
    restored = generative(learn_at_once=False, steps=3)
    restored.load_state_dict(buffer.state_dict())
    assert restored.learn() == 3
    assert (restored.experiences, len(restored)) == (1, 100)
    assert restored.learn() == 0


@pytest.mark.parametrize("make", [quantised, generative])
def test_samples_that_cannot_be_compressed_are_refused(make):
    buffer = make()
    assert len(buffer) == 0
    with pytest.raises(ConfigurationError, match="not defined for a regression"):
        buffer.add(TensorDataset(torch.rand(4, 8), torch.rand(4)), origin="first")
    with pytest.raises(ConfigurationError, match="not \\(input, label\\)"):
        buffer.add(TensorDataset(torch.arange(4)), origin="first")
    with pytest.raises(ConfigurationError, match="-1 samples"):
        buffer.sample(-1)


@pytest.mark.parametrize("make", [quantised, generative])
def test_labels_are_of_the_kind_that_new_samples_have(make):
    buffer = make()
    assert buffer.sample(3) == []
    buffer.add(SampleList([(torch.rand(8), label % 2) for label in range(6)]), origin="first")
    stored = buffer.select(lambda origin: True)
    assert {type(stored[index][1]) for index in range(6)} == {int}
    restored = make()
    restored.load_state_dict(buffer.state_dict())
    assert type(restored.sample(1)[0][1]) is int


def test_inputs_out_of_range_are_refused_by_a_generator():
    with pytest.raises(ConfigurationError, match="scale them"):
        generative().add(TensorDataset(torch.full((4, 8), 2.0), torch.arange(4) % 2), origin="a")
    with pytest.raises(ConfigurationError, match="labels are between 0 and 3"):
        generative().add(TensorDataset(torch.rand(4, 8), torch.arange(4)), origin="a")
    with pytest.raises(ConfigurationError, match="nothing was learned yet"):
        generative().generate(1)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: quantised(max_size=0), "max_size is 0"),
        (lambda: quantised(codes=257), "codes is 257"),
        (lambda: quantised(threshold=-1.0), "threshold -1.0"),
        (lambda: generative(steps=0), "steps is 0"),
        (lambda: generative(rate=0.0), "rate is 0.0"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()
