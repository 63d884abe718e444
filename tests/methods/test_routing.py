"""Gates and experts: what runs, what is trained, and the losses worked out by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods import MixtureOfExperts, SkipBlocks, auxiliary_loss, count_operations


class Adds(nn.Module):
    """Returns ones, and keeps how many rows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(inputs))
        return torch.ones_like(inputs)


def opened_by_sign(channels: int, blocks: int = 1, **given) -> SkipBlocks:
    """Gates that are open where the first channel's mean is above 0."""
    layer = SkipBlocks([Adds() for _ in range(blocks)], channels, **given)
    with torch.no_grad():
        for gate in layer.gates:
            gate.weight.zero_()
            gate.bias.zero_()
            gate.weight[0, 0] = 100.0
    return layer


@pytest.mark.parametrize("shape", [(3, 2), (3, 2, 4, 4)])
def test_a_block_runs_on_the_samples_with_an_open_gate(shape):
    layer = opened_by_sign(2).eval()
    samples = torch.ones(shape) * torch.tensor([1.0, -1.0, 1.0]).view(-1, *[1] * (len(shape) - 1))
    found = layer(samples)
    assert layer.blocks[0].rows == [2]
    assert layer.used == (2 / 3,)
    assert found.flatten(1)[:, 0].tolist() == [2.0, -1.0, 2.0]
    layer(-samples[::2])
    assert layer.blocks[0].rows == [2]  # it did not run at all
    assert layer.take_loss() is None  # there is none in evaluation


def test_the_loss_is_the_distance_from_the_target_share_of_operations():
    layer = opened_by_sign(1, blocks=2, target=0.5, costs=[3.0, 1.0])
    # Both gates are open for one sample of four: a share of 0.25, whatever the costs.
    layer(torch.tensor([[5.0], [-5.0], [-5.0], [-5.0]]))
    assert auxiliary_loss(nn.Sequential(layer)).item() == pytest.approx(0.25**2)
    assert auxiliary_loss(layer).item() == 0.0  # it is returned once
    with torch.no_grad():
        layer.gates[1].bias.fill_(-1e4)  # the block that costs a quarter is closed
    layer(torch.tensor([[5.0]]))
    assert layer.take_loss().item() == pytest.approx((0.75 - 0.5) ** 2)


def test_gates_learn_their_target():
    torch.manual_seed(0)
    layer = SkipBlocks([nn.Linear(4, 4) for _ in range(3)], 4, target=0.4)
    optimizer = torch.optim.Adam(layer.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        layer(torch.randn(64, 4))
        auxiliary_loss(layer).backward()
        optimizer.step()
    assert sum(layer.used) / 3 == pytest.approx(0.4, abs=0.12)


def test_a_layer_with_a_loss_can_be_copied_after_a_step():
    layers = nn.Sequential(SkipBlocks([nn.Linear(4, 4)], 4), MixtureOfExperts(4, 4))
    layers(torch.randn(3, 4))
    copied = copy.deepcopy(layers)
    assert copied[0].take_loss() is None
    assert layers[0].take_loss() is not None


def routed(top_k: int) -> MixtureOfExperts:
    """Expert i multiplies by i + 1; the router's logits are the inputs."""
    layer = MixtureOfExperts(2, 1, experts=2, top_k=top_k)
    with torch.no_grad():
        layer.router.weight.copy_(torch.eye(2))
        layer.experts = nn.ModuleList([Scale(1.0), Scale(2.0)])
    return layer


class Scale(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))
        self.rows: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(inputs))
        return self.factor * inputs


# Softmax of (ln 3, 0) is (0.75, 0.25).
LN3 = float(torch.tensor(3.0).log())
TOKENS = torch.tensor([[[LN3, 0.0], [LN3, 0.0]], [[LN3, 0.0], [0.0, LN3]]])


def test_each_vector_runs_through_its_expert_with_the_routers_weight():
    layer = routed(1).eval()
    found = layer(TOKENS)
    assert found.shape == TOKENS.shape
    assert [each.rows for each in layer.experts] == [[3], [1]]
    assert torch.allclose(found[0, 0], 0.75 * TOKENS[0, 0])
    assert torch.allclose(found[1, 1], 0.75 * 2 * TOKENS[1, 1])
    assert layer.load == (0.75, 0.25)
    both = routed(2).eval()(TOKENS)  # 0.75 * 1 + 0.25 * 2
    assert torch.allclose(both[0, 0], 1.25 * TOKENS[0, 0])


def test_the_loss_is_that_of_the_switch_transformer():
    layer = routed(1)
    layer(TOKENS)
    # Shares (3/4, 1/4), mean probabilities (0.625, 0.375): 2 * (0.46875 + 0.09375).
    assert layer.take_loss().item() == pytest.approx(1.125)
    balanced = torch.stack([TOKENS[0, 0], TOKENS[1, 1]])
    layer(balanced)
    assert layer.take_loss().item() == pytest.approx(1.0)


def test_an_expert_without_samples_has_a_gradient_of_0_in_training():
    layer = routed(1)
    layer(TOKENS[:1]).sum().backward()
    assert layer.experts[1].factor.grad.item() == 0.0
    layer.eval()(TOKENS[:1])
    assert layer.experts[1].rows == [0]  # of training; it did not run again


def test_one_of_four_experts_costs_a_quarter():
    layer, tokens = MixtureOfExperts(8, 16, experts=4), torch.randn(5, 8)
    router, expert = 2 * 8 * 4, 2 * 2 * 8 * 16
    assert count_operations(layer, tokens) == 5 * (router + expert)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SkipBlocks([], 4), "there are no blocks"),
        (lambda: SkipBlocks([Adds()], 4, target=0), "target is 0; it must be above 0"),
        (lambda: SkipBlocks([Adds()], 4, temperature=0), "temperature is 0"),
        (lambda: SkipBlocks([Adds()], 4, costs=[1, 2]), "one positive number for each of the 1"),
        (lambda: SkipBlocks([Adds()], 4, costs=[0]), "one positive number"),
        (lambda: MixtureOfExperts(4, 4, experts=1), "experts is 1; it must be 2 or more"),
        (lambda: MixtureOfExperts(4, 4, experts=2, top_k=3), "top_k is 3; it must be from 1 to 2"),
        (lambda: MixtureOfExperts(0, 4), "1 or more"),
    ],
)
def test_unusable_arguments_are_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()
