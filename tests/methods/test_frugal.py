"""Pruning and low rank: smaller layers that compute what is left of the larger ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods import count_operations, low_rank, magnitude_prune, prune_channels


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()),
            nn.Conv2d(4, 4, 3, padding=1),
        )

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.body(inputs)


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU()),
        nn.Conv2d(8, 4, 3),
        Block(),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 6), nn.ReLU(), nn.Linear(6, 3)),
    ).eval()


def test_channels_that_are_0_are_removed_without_a_change():
    module, images = net(), torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        module[0][0].weight[[1, 5]] = 0.0  # a filter of 0, of which the norm makes a constant
        module[0][1].weight.copy_(torch.rand(8) + 0.5)
        module[0][1].bias[[1, 5]] = 0.0
        module[0][1].running_var.copy_(torch.rand(8) + 0.5)
        module[2].body[1].weight[2] = 0.0  # the norm silences a channel of large weights
        module[2].body[1].bias[2] = 0.0
        module[5].weight[3] = 0.0
        module[5].bias[3] = 0.0
    before, cost = module(images), count_operations(module, images)
    assert prune_channels(module, share=0.25) == {"0.0": 6, "2.body.0": 3, "5": 4}
    after = module(images)
    # A quarter of 6 units is 2 by rounding, and only one of them is 0.
    assert module[5].out_features == 4
    assert count_operations(module, images) < 0.8 * cost
    kept = net()
    assert after.shape == before.shape == kept(images).shape
    assert [each.out_channels for each in (module[1], module[2].body[3])] == [4, 4]


def test_removed_channels_of_0_leave_the_output_as_it_was():
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 9, 2)).eval()
    with torch.no_grad():
        module[0].weight[2], module[0].bias[2] = 0.0, 0.0
    images = torch.randn(3, 1, 5, 5)
    before = module(images)
    assert prune_channels(module, share=0.25) == {"0": 3}
    assert module[3].in_features == 27
    assert torch.allclose(module(images), before, atol=1e-6)


def test_a_pruned_module_can_be_trained():
    module = net()
    prune_channels(module, share=0.5)
    low_rank(module, share=0.3)
    module.train()(torch.randn(4, 1, 8, 8)).sum().backward()
    assert all(each.grad is not None for each in module.parameters())


def test_layers_in_two_places_and_groups_are_left_alone():
    shared = nn.Linear(4, 4)
    module = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), nn.Linear(4, 6), nn.Linear(6, 2))
    assert prune_channels(module, share=0.5) == {"4": 3}
    grouped = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1, groups=4))
    with pytest.raises(ConfigurationError, match=r"no two layers in an nn\.Sequential"):
        prune_channels(grouped, share=0.5)


def test_the_smallest_weights_are_0_and_no_operation_is_saved():
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -5.0], [0.5, 4.0]]))
        module[1].weight.copy_(torch.tensor([[-0.1, 3.0]]))
    before = count_operations(module, torch.zeros(1, 2))
    assert magnitude_prune(module, share=0.5) == 3
    assert module[0].weight.tolist() == [[0.0, -5.0], [0.0, 4.0]]
    assert module[1].weight.tolist() == [[0.0, 3.0]]
    assert not module[0]._forward_pre_hooks  # the masks are gone
    assert count_operations(module, torch.zeros(1, 2)) == before


@pytest.mark.parametrize(
    ("layer", "images"),
    [
        (nn.Linear(12, 12), torch.randn(5, 12)),
        (nn.Conv2d(6, 8, 3, stride=2, padding=1, bias=False), torch.randn(2, 6, 8, 8)),
    ],
)
def test_a_layer_of_rank_2_is_two_layers_that_compute_the_same(layer, images):
    torch.manual_seed(0)
    with torch.no_grad():
        matrix = layer.weight.flatten(1)
        low = torch.randn(len(matrix), 2) @ torch.randn(2, matrix.shape[1])
        layer.weight.copy_(low.view_as(layer.weight))
    module = nn.Sequential(layer)
    before, cost = module(images), count_operations(module, images)
    assert low_rank(module, share=0.999999) == {"0": 2}
    assert torch.allclose(module(images), before, atol=1e-4)
    assert count_operations(module, images) < 0.6 * cost


def test_the_rank_keeps_the_share_of_the_squared_singular_values():
    module = nn.Sequential(nn.Linear(8, 8))
    with torch.no_grad():  # squares 64, 25, 9, 1, 1, 0...: 98 of 100 with three
        values = torch.tensor([8.0, 5.0, 3.0, 1.0, 1.0, 0.0, 0.0, 0.0])
        module[0].weight.copy_(torch.diag(values))
    assert low_rank(module, share=0.97) == {"0": 3}


def test_tied_weights_and_attention_are_left_alone():
    first, second = nn.Linear(16, 16), nn.Linear(16, 16)
    second.weight = first.weight
    module = nn.Sequential(first, second, nn.MultiheadAttention(16, 2))
    with pytest.raises(ConfigurationError, match="no layer of Sequential needs fewer operations"):
        low_rank(module, share=0.1)


@pytest.mark.parametrize("change", [low_rank, magnitude_prune, prune_channels])
@pytest.mark.parametrize("share", [0, 1.0, -1, "half", True, float("nan")])
def test_unusable_shares_are_refused(change, share):
    with pytest.raises(ConfigurationError, match="must be between 0 and 1"):
        change(net(), share=share)


def test_a_module_without_weights_cannot_be_pruned():
    with pytest.raises(ConfigurationError, match="nothing can be pruned"):
        magnitude_prune(nn.ReLU(), share=0.5)
