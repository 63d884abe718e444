"""Fisher information, sensitivity and path integrals against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods import (
    add_contributions,
    output_sensitivity,
    path_importance,
    squared_gradients,
)


def softmax_model():
    weight = nn.Parameter(torch.tensor([[0.5, -0.5, 0.0], [1.0, 0.0, -1.0]]))
    return weight, lambda inputs: inputs @ weight


def samples():
    return [
        (torch.tensor([[1.0, 2.0]]), torch.tensor([0])),
        (torch.tensor([[-1.0, 0.5]]), torch.tensor([2])),
    ]


def test_the_fisher_information_of_a_softmax_is_its_formula():
    """The Fisher information of logits is p (1 - p) on its diagonal, times the input squared."""
    weight, model = softmax_model()
    expected = torch.zeros(2, 3)
    for inputs, _ in samples():
        p = model(inputs).softmax(1)[0].detach()
        expected += inputs[0].square().unsqueeze(1) * (p * (1 - p)).unsqueeze(0)
    sums, count = squared_gradients(model, {"w": weight}, samples(), outcomes="all")
    assert count == 2
    torch.testing.assert_close(sums["w"], expected)
    assert weight.grad is None
    drawn, count = squared_gradients(
        model,
        {"w": weight},
        samples() * 700,
        generator=torch.Generator().manual_seed(0),
    )
    torch.testing.assert_close(drawn["w"] / count, expected / 2, rtol=0.25, atol=0.01)
    given, _ = squared_gradients(model, {"w": weight}, samples(), outcomes="given")
    p = [model(inputs).softmax(1)[0].detach() for inputs, _ in samples()]
    ones = torch.eye(3)
    by_hand = torch.outer(torch.tensor([1.0, 4.0]), (p[0] - ones[0]) ** 2)
    by_hand += torch.outer(torch.tensor([1.0, 0.25]), (p[1] - ones[2]) ** 2)
    torch.testing.assert_close(given["w"], by_hand)


def test_the_fisher_information_of_a_regression_is_the_squared_input():
    weight = nn.Parameter(torch.zeros(2, 1))
    points = [(torch.tensor([[3.0, 1.0]]), torch.tensor([[0.5]]))] * 1000
    sums, count = squared_gradients(
        lambda inputs: inputs @ weight,
        {"w": weight},
        points,
        likelihood="gaussian",
        generator=torch.Generator().manual_seed(0),
    )
    mean = sums["w"].flatten() / count  # E[(x * noise) ** 2] = x ** 2
    assert mean.tolist() == pytest.approx([9.0, 1.0], rel=0.2)
    given, _ = squared_gradients(
        lambda inputs: inputs @ weight,
        {"w": weight},
        points[:1],
        likelihood="gaussian",
        outcomes="given",
    )
    assert given["w"].flatten().tolist() == [2.25, 0.25]  # (3 * 0.5) ** 2 and (1 * 0.5) ** 2


def test_the_sensitivity_adds_up_over_samples_and_never_cancels():
    weight = nn.Parameter(torch.tensor([[1.0]]))
    sums, count = output_sensitivity(
        lambda inputs: inputs @ weight - 1, {"w": weight}, [(torch.tensor([[2.0]]), None)] * 3
    )
    # f = 2 w - 1 = 1; |2 f * 2| = 4 for each sample.
    assert (sums["w"].item(), count) == (12.0, 3)
    opposite = [(torch.tensor([[value]]), None) for value in (2.0, 0.5)]  # 4, and |2 * -0.5 * 0.5|
    sums, _ = output_sensitivity(lambda inputs: inputs @ weight - 1, {"w": weight}, opposite)
    assert sums["w"].item() == 4.5


def test_a_parameter_that_is_not_used_does_not_matter():
    used, unused = nn.Parameter(torch.ones(1, 1)), nn.Parameter(torch.ones(1))
    sums, _ = output_sensitivity(
        lambda inputs: inputs @ used,
        {"used": used, "unused": unused},
        [(torch.ones(1, 1), None)],
    )
    assert (sums["used"].item(), sums["unused"].item()) == (2.0, 0.0)


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_step_without_a_finite_gradient_contributes_nothing(bad):
    path = {"w": torch.tensor([1.0, 1.0])}
    add_contributions(path, {"w": torch.tensor([bad, 2.0])}, {"w": torch.tensor([0.0, -0.25])})
    assert path["w"].tolist() == [1.0, 1.5]


def test_contributions_that_raised_the_loss_do_not_matter():
    importance = path_importance(
        {"w": torch.tensor([-1.0, 0.3])}, {"w": torch.tensor([1.0, 0.1])}, damping=0.05
    )
    assert importance["w"].tolist() == pytest.approx([0.0, 5.0])  # 0.3 / (0.01 + 0.05)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"likelihood": "poisson"}, "likelihood is 'poisson'"),
        ({"outcomes": "some"}, "outcomes is 'some'"),
        ({"likelihood": "gaussian", "outcomes": "all"}, "more outcomes than can be listed"),
    ],
)
def test_unknown_choices_are_refused(options, sentence):
    weight, model = softmax_model()
    with pytest.raises(ConfigurationError, match=sentence):
        squared_gradients(model, {"w": weight}, samples(), **options)


def test_a_regression_as_classes_is_refused():
    weight, model = softmax_model()
    with pytest.raises(ConfigurationError, match="likelihood='gaussian'"):
        squared_gradients(model, {"w": weight}, [(torch.ones(1, 2), torch.tensor([0.5]))])
