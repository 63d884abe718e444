"""Buffers that compress or generate: codes and bytes by hand, and a generator that remembers."""

from __future__ import annotations

import numpy as np
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
    codes = buffer._books[0].codes.clone()
    buffer.add(TensorDataset(odd, torch.zeros(5, dtype=torch.long)), origin="odd")
    inputs, _ = parts(buffer.select(lambda origin: origin == "odd"))
    assert torch.equal(inputs, odd)
    assert torch.equal(buffer._books[0].codes, codes)  # of three codes, all are in use
    assert (len(buffer), buffer.compressed) == (65, 60)
    assert buffer.nbytes == 3 * 16 + 60 * 2 + 65 * 8 + 5 * 32


def test_each_sample_takes_the_level_that_compresses_it_most():
    generator = torch.Generator().manual_seed(0)
    same = torch.eye(8)[torch.randint(4, (200,), generator=generator)].view(200, 1, 8)
    mixed = blocks(60).tensors[0]
    odd = torch.rand(5, 1, 8, generator=generator)
    buffer = quantised(max_size=300, block=[4, 8])
    for name, each in (("same", same), ("mixed", mixed), ("odd", odd)):
        buffer.add(TensorDataset(each, torch.arange(len(each)) % 3), origin=name)
        stored, _ = parts(buffer.select(lambda origin, name=name: origin == name))
        torch.testing.assert_close(stored, each)
    # 4 codes of 32 bytes save a byte of 200 samples; 2 more would not pay for the mixed ones
    assert buffer.by_level == [200, 60, 5]
    books = 4 * 32 + (4 + 2) * 16
    assert buffer.nbytes == books + 200 + 60 * 2 + 5 * 32 + 265 * (8 + 1)
    restored = quantised(max_size=300, block=(8, 4))
    restored.load_state_dict(buffer.state_dict())
    for mine, other in zip(restored.sample(265), buffer.sample(265), strict=True):
        assert torch.equal(mine[0], other[0])
    for block in ([], [0], "x"):
        with pytest.raises(ConfigurationError, match="block is"):
            quantised(block=block)


def test_later_codes_change_nothing_that_was_stored():
    buffer = quantised(codes=16)
    buffer.add(blocks(60, kinds=2), origin="first")
    before, _ = parts(buffer.select(lambda origin: origin == "first"))
    few = len(buffer._books[0])
    buffer.add(blocks(40, seed=1), origin="second")
    now, _ = parts(buffer.select(lambda origin: origin == "first"))
    assert len(buffer._books[0]) > few
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
    with pytest.raises(ConfigurationError, match="buffer with max_size, blocks, codes"):
        quantised().load_state_dict(buffer.state_dict())


def test_an_addition_of_which_no_sample_is_kept_changes_nothing():
    buffer = quantised(max_size=10)
    buffer.add(blocks(1000), origin="first")
    before, _ = parts(buffer.select(lambda origin: True))
    for seed in range(3):  # each is kept with a probability of 1 %
        buffer.add(blocks(1, seed), origin="later")
    assert size(buffer.select(lambda origin: origin == "later")) == 0
    assert torch.equal(parts(buffer.select(lambda origin: True))[0], before)
    assert buffer.state_dict()["seen"] == 1003


def test_a_sample_that_is_not_finite_spoils_no_code():
    buffer, data = quantised(), blocks(60)
    odd = data.tensors[0][:2].clone()
    odd[0, 0, 3], odd[1, 0, 0] = torch.nan, torch.inf
    buffer.add(TensorDataset(odd, torch.zeros(2, dtype=torch.long)), origin="odd")
    torch.testing.assert_close(parts(buffer.select(bool))[0], odd, equal_nan=True)  # no code yet
    inputs = torch.cat([odd, data.tensors[0]])
    buffer.add(TensorDataset(inputs, torch.arange(62) % 3), origin="first")
    assert buffer.compressed == 60
    assert buffer._books[0].codes.isfinite().all()
    stored, _ = parts(buffer.select(lambda origin: origin == "first"))
    torch.testing.assert_close(stored, inputs, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_inputs_keep_their_dtype(dtype):
    generator = torch.Generator().manual_seed(0)
    coded = blocks(60)
    odd = torch.rand(5, 1, 8, dtype=torch.float64, generator=generator).to(dtype)
    buffer = quantised(threshold=0)
    inputs = torch.cat([coded.tensors[0].to(dtype), odd])
    buffer.add(TensorDataset(inputs[:60], coded.tensors[1]), origin="coded")
    buffer.add(TensorDataset(inputs[60:], torch.arange(5)), origin="odd")
    assert 60 <= buffer.compressed < 65
    restored = quantised(threshold=0)
    restored.load_state_dict(buffer.state_dict())
    for each in (buffer, restored):
        stored, _ = parts(each.select(lambda origin: origin == "odd"))
        assert torch.equal(stored, odd)
        assert {x.dtype for x, _ in each.sample(65)} == {dtype}
    with pytest.raises(ConfigurationError, match=r"\[8\] of torch.float32 where those before"):
        buffer.add(TensorDataset(torch.rand(2, 8), torch.arange(2)), origin="other")

    data = TensorDataset(torch.rand(40, 4, dtype=torch.float64).to(dtype), torch.arange(40) % 2)
    learned = generative(steps=2)
    learned.add(data, origin="first")
    everything = learned.after(data, origin="second")
    assert {everything[index][0].dtype for index in range(size(everything))} == {dtype}
    assert {each.dtype for each in learned._models[0].parameters()} == {torch.float32}


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
    assert buffer.nbytes == 4 * sum(each.numel() for each in buffer._models[0].parameters())
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
    good, ragged = torch.rand(2, 8), [(torch.rand(8), 0), (torch.rand(7), 1)]
    for dataset, sentence in (
        (SampleList([(good[0], "cat")]), "a label is 'cat'"),
        (SampleList([(good[0], None)]), "a label is None"),
        (TensorDataset(good, torch.ones(2, 1).long()), r"labels are torch.int64 of shape \[1\]"),
        (TensorDataset(good, torch.ones(2, 3).long()), r"labels are torch.int64 of shape \[3\]"),
        (SampleList(ragged), r"inputs of one dataset are \[8\] and \[7\]"),
        (TensorDataset(torch.rand(2), torch.arange(2)), r"inputs have the shape \[\]"),
        (TensorDataset(torch.rand(2, 0), torch.arange(2)), r"inputs have the shape \[0\]"),
    ):
        with pytest.raises(ConfigurationError, match=sentence):
            buffer.after(dataset, origin="first")
    buffer.add(SampleList([(good[0], np.int64(1)), (good[1], np.array(1))]), origin="first")
    with pytest.raises(ConfigurationError, match="same shape"):
        buffer.after(TensorDataset(torch.rand(2, 7), torch.arange(2)), origin="second")
    assert len(buffer) == 2


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


@pytest.mark.parametrize("learn_at_once", [False, True])
def test_what_a_generator_cannot_learn_is_refused_before_an_update(learn_at_once):
    buffer = generative(learn_at_once=learn_at_once, steps=1)
    buffer.add(TensorDataset(torch.rand(4, 8), torch.arange(4) % 2), origin="first")
    for inputs, labels, sentence in (
        (torch.full((4, 8), 2.0), torch.arange(4) % 2, "scale them"),
        (torch.full((4, 8), torch.nan), torch.arange(4) % 2, "scale them"),
        (torch.rand(4, 8), torch.arange(4), "labels are between 0 and 3"),
        (torch.rand(4, 2, 4), torch.arange(4) % 2, r"\[2, 4\] where those before are \[8\]"),
    ):
        for call in (buffer.after, buffer.add):
            with pytest.raises(ConfigurationError, match=sentence):
                call(TensorDataset(inputs, labels), origin="second")
    assert len(buffer) == 4


def test_a_part_that_was_learned_is_not_learned_again_after_an_error(monkeypatch):
    buffer, train = generative(learn_at_once=False, steps=1), GenerativeBuffer._train
    for label, name in enumerate(("dark", "light")):
        buffer.add(dark_and_light(label, 20), origin=name)
    learned = []

    def once(self, inputs, labels, origin):
        if learned and not failed:
            failed.append(labels)
            raise MemoryError
        train(self, inputs, labels, origin)
        learned.append(int(labels[0]))

    failed = []
    monkeypatch.setattr(GenerativeBuffer, "_train", once)
    with pytest.raises(MemoryError):
        buffer.learn()
    assert (buffer.experiences, len(buffer), learned) == (1, 40, [0])
    assert buffer.learn() == 1
    assert (buffer.experiences, buffer.nbytes, learned) == (2, 4 * 1268, [0, 1])
    assert buffer._counts.tolist() == [[20, 20]]


def test_a_generator_is_loaded_by_one_of_its_size():
    buffer = generative(steps=1)
    buffer.add(dark_and_light(0, 20), origin="dark")
    for options in ({"hidden": 8}, {"latent": 3}):
        with pytest.raises(ConfigurationError, match="classes 2, hidden 16 and latent 2, and"):
            generative(**options).load_state_dict(buffer.state_dict())
    for count in (0, -1, 1.5):
        with pytest.raises(ConfigurationError, match="whole number from 1 on"):
            buffer.generate(count)


def test_nothing_is_generated_before_an_experience():
    with pytest.raises(ConfigurationError, match="nothing was learned yet"):
        generative().generate(1)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: quantised(max_size=0), "max_size is 0"),
        (lambda: quantised(codes=257), "codes is 257"),
        (lambda: quantised(threshold=-1.0), "threshold is -1.0"),
        (lambda: quantised(threshold=float("inf")), "threshold is inf"),
        (lambda: quantised(threshold="x"), "threshold is 'x'"),
        (lambda: generative(rate="x"), "rate is 'x'"),
        (lambda: generative(steps=0), "steps is 0"),
        (lambda: generative(rate=0.0), "rate is 0.0"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()
