"""Anchors of parameters: the penalty, its gradient, and how anchors are put together."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods import Anchor, add_penalty_gradient, penalty
from greentrain.methods.anchors import accumulate, merge


def net(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def anchor(seed: int) -> Anchor:
    reference = {name: each.detach() for name, each in net(seed).named_parameters()}
    return Anchor(
        reference=reference, importance={name: each**2 for name, each in reference.items()}
    )


@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_the_gradient_is_that_of_the_penalty(scale):
    ours, theirs = net(0), net(0)
    given = torch.randn(5, 3)
    for each in (ours, theirs):
        (scale * each(given).square().sum()).backward()
    add_penalty_gradient(dict(ours.named_parameters()), anchor(1), 0.7, scale=scale)
    (scale * penalty(dict(theirs.named_parameters()), anchor(1), 0.7)).backward()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


def test_only_anchored_parameters_that_train_are_pulled():
    model = net(0)
    model[0].weight.requires_grad_(False)
    pulled = anchor(1)
    del pulled.reference["0.bias"], pulled.importance["0.bias"]
    pulled.reference["2.bias"] = pulled.importance["2.bias"] = torch.ones(7)  # of another head
    add_penalty_gradient(dict(model.named_parameters()), pulled, 1.0)
    with_gradient = [name for name, each in model.named_parameters() if each.grad is not None]
    assert with_gradient == ["2.weight"]


def test_a_sparse_gradient_is_pulled_too():
    model = nn.Embedding(4, 2, sparse=True)
    model(torch.tensor([1])).sum().backward()
    ones = torch.ones(4, 2)
    pulled = Anchor(
        reference={"weight": model.weight.detach() - 1}, importance={"weight": 2 * ones}
    )
    add_penalty_gradient(dict(model.named_parameters()), pulled, 0.5)
    expected = ones.clone()  # 0.5 * 2 * (theta - (theta - 1)) = 1
    expected[1] += 1
    torch.testing.assert_close(model.weight.grad, expected)


def test_merged_anchors_pull_as_both_do():
    first, second = anchor(1), anchor(2)
    together, apart = net(0), net(0)
    add_penalty_gradient(dict(together.named_parameters()), merge(first, second), 0.7)
    for each in (first, second):
        add_penalty_gradient(dict(apart.named_parameters()), each, 0.7)
    for mine, other in zip(together.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, other.grad)


@pytest.mark.parametrize("combine", [merge, accumulate])
def test_what_only_one_anchor_has_is_kept(combine):
    def only(name: str) -> Anchor:
        return Anchor(reference={name: torch.ones(1)}, importance={name: torch.ones(1)})

    assert set(combine(only("old"), only("new")).reference) == {"old", "new"}
    assert combine(None, only("new")).importance == {"new": torch.ones(1)}
    zero = Anchor(reference={"new": torch.ones(1)}, importance={"new": torch.zeros(1)})
    assert combine(zero, zero).reference["new"].item() == 1.0  # and no 0 / 0


def test_an_anchor_needs_an_importance_of_each_value():
    with pytest.raises(ConfigurationError, match="different names or shapes"):
        Anchor(reference={"w": torch.ones(2)}, importance={"w": torch.ones(1)})
