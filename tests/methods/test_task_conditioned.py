"""Structure per task: forward passes by hand, what is frozen, and bytes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from greentrain.errors import ConfigurationError
from greentrain.methods import (
    Box,
    ColumnRouter,
    HyperNetwork,
    InterContiNet,
    IntervalLinear,
    MultiHead,
    Piggyback,
    ProgressiveNetwork,
    SuperMasks,
    set_task,
)


def base() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))


MAKES = {
    "heads": lambda: MultiHead(4, 3, tasks=2),
    "progressive": lambda: ProgressiveNetwork([4, 6, 3], tasks=2),
    "piggyback": lambda: Piggyback(base(), tasks=2),
    "supermasks": lambda: SuperMasks(base(), tasks=2),
    "hypernetwork": lambda: HyperNetwork(base(), tasks=2, chunk=10),
    "intervals": lambda: InterContiNet([4, 6], 3, tasks=2),
}


@pytest.fixture(params=MAKES)
def net(request):
    torch.manual_seed(0)
    return MAKES[request.param]()


def fitted(net, inputs, labels, steps=5, finish=lambda net: None, loss=None):
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        (loss or (lambda: cross_entropy(net(inputs), labels)))().backward()
        optimizer.step()
        finish(net)


def test_the_task_is_given_by_the_batch_or_set_before(net):
    inputs = torch.rand(5, 4)
    for each in net.parameters():
        with torch.no_grad():
            each += 0.1 * torch.rand_like(each)
    both = [net(inputs, task) for task in range(2)]
    net.task = 1
    assert torch.equal(net(inputs), both[1])
    tasks = torch.tensor([1, 0, 0, 1, 0])
    mixed = torch.where(tasks[:, None] == 0, both[0], both[1])
    torch.testing.assert_close(net(inputs, tasks), mixed)
    assert torch.equal(net(inputs, torch.tensor([1] * 5)), both[1])
    net.add_task()
    assert net(inputs, 2).shape == (5, 3)
    for wrong in (3, -1, 1.5, None):
        with pytest.raises(ConfigurationError, match="and there are 3, counted from 0"):
            net.task = wrong
    with pytest.raises(ConfigurationError, match=r"tasks are \[3\] for a batch of 5"):
        net(inputs, torch.tensor([0, 1, 0]))


def test_a_checkpoint_restores_what_each_task_answers(net, request):
    inputs = torch.rand(5, 4)
    net.task = 1
    fitted(net, inputs, torch.arange(5) % 3)
    other = MAKES[request.node.callspec.params["net"]]()
    other.load_state_dict(net.state_dict())
    for task in range(2):
        assert torch.equal(other(inputs, task), net(inputs, task))


@pytest.mark.parametrize("kind", ["heads", "progressive", "piggyback", "supermasks"])
def test_a_later_task_changes_no_answer_of_an_earlier_one(kind):
    torch.manual_seed(0)
    net, inputs = MAKES[kind](), torch.rand(5, 4)
    labels = torch.arange(5) % 3
    before = [net(inputs, task).detach() for task in range(2)]
    net.task = 1
    fitted(net, inputs, labels, steps=20)
    assert torch.equal(net(inputs, 0), before[0])
    assert cross_entropy(net(inputs, 1), labels) < cross_entropy(before[1], labels)


def test_a_column_takes_the_earlier_ones_through_adapters():
    torch.manual_seed(0)
    net, x = ProgressiveNetwork([4, 6, 3], adapter=2, tasks=3), torch.rand(5, 4)
    first, second, third = net.columns
    hidden = [column.layers[0](x).relu() for column in (first, second, third)]
    entry, _, leave = third.adapters[0]
    together = torch.cat([0.5 * hidden[0], 0.5 * hidden[1]], dim=1)  # factors start at 1/2
    expected = third.layers[1](hidden[2]) + leave(entry(together).relu())
    torch.testing.assert_close(net(x, 2), expected)
    assert [any(each.requires_grad for each in column.parameters()) for column in net.columns] == [
        *(False, False, True)
    ]


def test_a_router_opens_a_column_for_inputs_that_it_cannot_reconstruct():
    torch.manual_seed(0)
    router = ColumnRouter(6, hidden=2)
    kinds = [torch.rand(40, 1) * torch.eye(6)[task] + 0.5 for task in range(2)]
    for task, inputs in enumerate(kinds):
        assert router.is_new(inputs)
        assert router.add_task() == task
        fitted(router, inputs, None, 150, loss=lambda x=inputs, t=task: router.loss(x, t))
        router.finish(inputs, task)
        assert not router.is_new(inputs)
    routed = torch.stack([router.route(inputs).float().mean() for inputs in kinds])
    assert float(routed[0]) < 0.2
    assert float(routed[1]) > 0.8


@pytest.mark.parametrize("kind", [Piggyback, SuperMasks])
@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.LayerNorm])
def test_normalisation_is_fixed_and_shared(kind, norm):
    torch.manual_seed(0)
    layers = base()
    layers.insert(1, norm(6))
    with torch.no_grad():
        layers[1].weight.copy_(torch.arange(1.0, 7.0))
        layers[1].bias.fill_(0.5)
    net, inputs = kind(layers, tasks=2), 3 * torch.rand(9, 4) + 2
    assert layers[1].weight.tolist() == [1, 2, 3, 4, 5, 6]
    assert layers[1].bias.tolist() == [0.5] * 6
    assert net.bytes_per_task == 6  # 24 + 18 weights
    state = {name: each.clone() for name, each in layers[1].state_dict().items()}
    for mode in (None, True):  # from construction, and as a fit sets it
        before = net(inputs, 0).detach()
        assert before.std(0).max() > 0
        net.task = 1
        fitted(net if mode is None else net.train(mode), inputs, torch.arange(9) % 3)
        assert torch.equal(net(inputs, 0), before)
    assert net.training
    assert not layers[1].training
    for name, each in layers[1].state_dict().items():
        assert torch.equal(each, state[name])


def test_supermasks_keep_a_normalisation_of_many_dimensions():
    net = SuperMasks(nn.Sequential(nn.LayerNorm((2, 4)), nn.Flatten(), nn.Linear(8, 2)))
    assert list(net.weights()) == ["2.weight"]
    assert net.net[0].weight.eq(1).all()
    assert net.net[2].bias.eq(0).all()


def test_a_task_is_set_where_there_are_tasks_only():
    part = MultiHead(4, 2, tasks=3)
    set_task(nn.ModuleDict({"head": part, "rest": nn.ReLU()}), 2)
    assert part.task == 2
    with pytest.raises(ConfigurationError, match="Sequential has no part with tasks"):
        set_task(base(), 0)


@pytest.mark.parametrize("kind", ["piggyback", "supermasks"])
def test_what_is_stored_of_a_mask_is_a_bit_a_weight(kind):
    torch.manual_seed(0)
    net, inputs = MAKES[kind](), torch.rand(5, 4)
    fitted(net, inputs, torch.arange(5) % 3)  # changes the masks of task 0
    bits = net.mask_bits(0)
    assert len(bits) == net.bytes_per_task == 6  # 24 + 18 weights
    net.load_mask_bits(1, bits)
    assert torch.equal(net(inputs, 0), net(inputs, 1))
    assert torch.equal(net.mask_bits(1), bits)
    with pytest.raises(ConfigurationError, match=r"\[2\] bytes"):
        net.load_mask_bits(0, bits[:2])


def test_gradients_go_through_masks_unchanged():
    net = Piggyback(nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net.net.weight.copy_(torch.tensor([[3.0, -2.0]]))
        net.scores[0][0].copy_(torch.tensor([[0.02, 0.001]]))  # above and below 0.005
    output = net(torch.tensor([[10.0, 1.0]]))
    assert output.item() == 30.0
    output.backward()
    # d output / d mask = weight * input, and scores get it as it is.
    assert net.scores[0][0].grad.tolist() == [[30.0, -2.0]]
    assert net.net.weight.grad is None


def test_supermasks_choose_the_largest_scores_and_infer_the_task():
    torch.manual_seed(0)
    net = SuperMasks(nn.Linear(4, 2), density=0.25, tasks=2)
    assert net.net.weight.abs().unique().tolist() == [pytest.approx((2 / 4) ** 0.5)]
    assert torch.equal(net.net.weight, SuperMasks(nn.Linear(4, 2)).net.weight)  # of the seed
    with torch.no_grad():
        net.net.weight.copy_(torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, -1.0, 1.0, 1.0]]))
        net.scores[0][0].copy_(torch.tensor([[9.0, 0, 0, 0], [8.0, 0, 0, 0]]))
        net.scores[1][0].copy_(torch.tensor([[0, 0, 0, 9.0], [0, 0, 0, 8.0]]))
    assert net.masks(0)[0].tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]
    # Task 0 decides by the first input, task 1 by the last: each is sure of its own.
    assert net.infer(torch.tensor([[5.0, 0.0, 0.0, 0.0]])) == 0
    assert net.infer(torch.tensor([[0.0, 0.0, 0.0, 5.0]])) == 1


def test_a_hypernetwork_keeps_the_weights_of_finished_tasks():
    torch.manual_seed(0)
    changes = {}
    for strength in (0.0, 1.0):
        torch.manual_seed(0)
        net, inputs = HyperNetwork(base(), tasks=2, chunk=7), torch.rand(16, 4)
        labels = torch.arange(16) % 3
        fitted(net, inputs, labels, steps=10)
        net.consolidate()
        before = net.generated(net.embeddings[0]).detach()
        net.task = 1
        assert float(net.penalty().detach()) == 0.0
        fitted(
            *(net, inputs, labels.flip(0), 30),
            loss=lambda n=net, x=inputs, y=labels, s=strength: (
                cross_entropy(n(x), y.flip(0)) + s * n.penalty()
            ),
        )
        now = net.generated(net.embeddings[0]).detach()
        changes[strength] = float((now - before).square().sum())
        assert float(net.penalty().detach()) == pytest.approx(changes[strength], rel=1e-4)
    assert changes[1.0] < 0.1 * changes[0.0]
    restored = HyperNetwork(base(), tasks=2, chunk=7)
    restored.load_state_dict(net.state_dict())
    assert torch.equal(restored.penalty(), net.penalty())


def test_bounds_hold_for_every_weight_of_the_intervals():
    torch.manual_seed(0)
    layer = IntervalLinear(3, 2, radius=0.5)
    x = torch.randn(7, 3)
    box = layer(Box(x, x - 0.1, x + 0.2))
    for _ in range(50):
        share = 2 * torch.rand(2, 4) - 1
        weights = layer.centre + share.sign() * share.abs().sqrt() * layer.radius
        inputs = x - 0.1 + 0.3 * torch.rand(7, 3)
        values = inputs @ weights[:, :-1].T + weights[:, -1]
        assert ((box.lower <= values) & (values <= box.upper)).all()


def test_later_tasks_stay_in_the_hyperrectangle_and_its_worst_case_holds():
    torch.manual_seed(0)
    net, inputs = InterContiNet([4, 8], 3, tasks=2, radius=0.05), torch.rand(12, 4)
    labels = torch.arange(12) % 3
    fitted(net, inputs, labels, 10, InterContiNet.project, lambda: net.loss(inputs, labels))
    net.consolidate()
    layer, box = net.layers[0], net.bounds(inputs, 0)
    low, high = layer.lowest.clone(), layer.highest.clone()
    assert (high - low).mean() > 0
    net.task = 1
    fitted(net, inputs, labels, 20, InterContiNet.project, lambda: net.loss(inputs, labels.flip(0)))
    assert not torch.equal(layer.centre, (low + high) / 2)
    tiny = 1e-6
    assert (layer.centre - layer.radius >= low - tiny).all()
    assert (layer.centre + layer.radius <= high + tiny).all()
    after = net(inputs, 0)
    assert ((box.lower - 1e-5 <= after) & (after <= box.upper + 1e-5)).all()


def test_the_worst_case_of_an_interval_by_hand():
    net = InterContiNet([1, 1], 2, radius=0.0)
    with torch.no_grad():
        net.layers[0].centre.copy_(torch.tensor([[1.0, 0.0]]))
        net.layers[0].set_radius(torch.tensor([[0.5, 0.0]]))
        net.heads.heads[0].weight.copy_(torch.tensor([[2.0], [-1.0]]))
        net.heads.heads[0].bias.zero_()
    one = torch.tensor([[1.0]])  # hidden: 1, from 0.5 to 1.5; logits (2, -1)
    box = net.bounds(one)
    torch.testing.assert_close(box.lower, torch.tensor([[1.0, -1.5]]))
    torch.testing.assert_close(box.upper, torch.tensor([[3.0, -0.5]]))
    point, worst = torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, -0.5]])
    label = torch.tensor([0])
    expected = cross_entropy(point, label) + 2 * cross_entropy(worst, label)
    expected -= 0.4 * (math.log(0.5) + math.log(1e-12)) / 2  # a radius of 0 counts as 1e-12
    found = net.loss(one, label, robust=2.0, width=0.4)
    assert float(found.detach()) == pytest.approx(float(expected))
    value = net.loss(one, torch.tensor([[0.0, 0.0]]), robust=1.0, width=0.0)
    assert float(value.detach()) == pytest.approx((4 + 1) / 2 + (9 + 2.25) / 2)  # a regression


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: MultiHead(4, 0), "outputs is 0"),
        (lambda: MultiHead(4, 2, tasks=0), "tasks is 0"),
        (lambda: ProgressiveNetwork([4, 2]), "one or more hidden layers"),
        (lambda: ColumnRouter(4, tolerance=1.0), "tolerance 1.0"),
        (lambda: Piggyback(nn.ReLU()), "nothing can be masked"),
        (lambda: Piggyback(base(), start=0.0), "start must be above the threshold"),
        (lambda: SuperMasks(base(), density=0.0), "density is 0.0"),
        (lambda: HyperNetwork(base(), chunk=0), "chunk is 0"),
        (lambda: InterContiNet([4], 2), "widths is"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused(make, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        make()
