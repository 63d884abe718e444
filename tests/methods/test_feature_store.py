"""Features by the content of their inputs, in memory and in a file, within a bound."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods import FeatureStore, content_keys, state_key
from greentrain.methods import feature_store as rooms


def test_a_key_depends_on_every_bit_the_shape_and_the_type():
    sample = torch.zeros(1, 3, 5)
    keys = set(content_keys(sample))
    for at in range(15):
        other = sample.clone()
        other.view(-1)[at] = 1e-45  # the lowest bit
        keys.update(content_keys(other))
    keys.update(content_keys(sample.reshape(1, 15)), content_keys(sample.int()))
    assert len(keys) == 1 + 15 + 2


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.bfloat16, torch.float64])
def test_samples_of_every_type_have_keys_in_any_batch_and_order(dtype):
    samples = torch.rand(7, 3, generator=torch.Generator().manual_seed(1)).mul(9).to(dtype)
    forward, backward = content_keys(samples), content_keys(samples.flip(0))
    assert forward == backward[::-1]
    assert forward == [content_keys(each[None])[0] for each in samples]
    assert content_keys(samples.t().contiguous().t()) == forward


def test_a_long_sample_is_hashed_in_parts(monkeypatch):
    samples = torch.rand(2, 100)
    whole = content_keys(samples)
    monkeypatch.setattr(rooms, "_CHUNK", 7)
    assert content_keys(samples) == whole


def test_a_store_keeps_to_its_bound():
    store = FeatureStore(3 * (8 + 16))  # three samples of two floats, with their keys
    features = torch.arange(10.0).reshape(5, 2)
    assert store.add([(at, 0) for at in range(5)], features) == 3
    assert (len(store), store.nbytes) == (3, 72)
    assert store.positions([(2, 0), (3, 0)]) == [2, None]
    assert store.rows([2, 0]).tolist() == [[4.0, 5.0], [0.0, 1.0]]
    assert not store.fits(4, features)


def test_a_key_that_comes_twice_is_kept_once():
    store = FeatureStore(1000)
    assert store.add([(1, 1), (1, 1)], torch.ones(2, 2)) == 1
    assert store.add([(1, 1)], torch.zeros(1, 2)) == 0
    assert store.rows([0]).tolist() == [[1.0, 1.0]]


def test_features_of_a_validation_can_be_trained_on():
    store, weight = FeatureStore(1000), nn.Parameter(torch.ones(2))
    with torch.inference_mode():
        store.add([(1, 1)], torch.ones(1, 2))
    (store.rows([0]) * weight).sum().backward()
    assert weight.grad.tolist() == [1.0, 1.0]


def test_a_file_is_read_again_and_grows(tmp_path):
    store = FeatureStore(200, folder=tmp_path, key="a")
    store.add([(1, -5), (2, 7)], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    store.close()
    again = FeatureStore(20_000, folder=tmp_path, key="a")
    assert again.rows([at for at in again.positions([(2, 7)]) if at is not None]).tolist() == [
        [3, 4]
    ]
    assert again.add([(at, at) for at in range(100)], torch.ones(100, 2)) == 100
    assert again.rows([0, 101]).tolist() == [[1, 2], [1, 1]]
    again.close()
    other = FeatureStore(200, folder=tmp_path, key="b")
    assert len(other) == 0
    assert not list(tmp_path.glob("*-a.*"))
    with pytest.raises(ConfigurationError, match="another process uses"):
        FeatureStore(200, folder=tmp_path, key="b")
    other.close()


def test_a_file_without_its_index_is_not_used(tmp_path):
    store = FeatureStore(200, folder=tmp_path, key="a")
    store.add([(1, 1)], torch.ones(1, 2))
    store.close()
    (tmp_path / "greentrain-features-a.json").write_text("{")
    again = FeatureStore(200, folder=tmp_path, key="a")
    assert len(again) == 0
    again.close()


def test_the_key_of_a_trunk_has_its_weights_and_buffers():
    torch.manual_seed(1)
    trunk = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    before = state_key([trunk])
    assert state_key([trunk]) == before
    trunk[1].running_var += 1e-6
    assert state_key([trunk]) != before


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_unusable_sizes_are_refused(size):
    with pytest.raises(ConfigurationError, match="max_bytes is"):
        FeatureStore(size)
