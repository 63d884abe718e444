"""A reservoir keeps every sample alike, and its parts together."""

from __future__ import annotations

import pytest
import torch

from greentrain.errors import ConfigurationError
from greentrain.methods import TensorReservoir


def test_every_sample_is_kept_with_the_same_probability():
    counts = torch.zeros(40)
    for seed in range(400):
        reservoir = TensorReservoir(10, seed=seed)
        for start in range(0, 40, 8):
            numbers = torch.arange(start, start + 8)
            reservoir.add(numbers.float().unsqueeze(1), numbers)
        values, numbers = reservoir.stored
        assert torch.equal(values.squeeze(1), numbers.float())
        counts[numbers] += 1
    # Each is binomial with 400 draws of 1/4: 100, with a standard deviation of 8.7.
    assert (counts - 100).abs().max() < 5 * 8.7


def test_a_restored_reservoir_goes_on_alike():
    first, second = TensorReservoir(5, seed=3), TensorReservoir(5, seed=8)
    first.add(torch.arange(3.0))
    second.load_state_dict(first.state_dict())
    for reservoir in (first, second):
        reservoir.add(torch.arange(3.0, 50.0))
    assert torch.equal(first.stored[0], second.stored[0])
    assert torch.equal(first.sample(4)[0], second.sample(4)[0])
    assert len(set(first.sample(9)[0].tolist())) == 5  # all, once


def test_other_shapes_and_sizes_are_refused():
    reservoir = TensorReservoir(5)
    reservoir.add(torch.ones(2, 3), torch.ones(2))
    for parts in ((torch.ones(2, 4), torch.ones(2)), (torch.ones(2, 3), torch.ones(1))):
        with pytest.raises(ConfigurationError, match="give samples of one shape"):
            reservoir.add(*parts)
    with pytest.raises(ConfigurationError, match="whole number from 1 on"):
        TensorReservoir(0)
