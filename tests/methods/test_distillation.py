"""Distillation against cross-entropies with soft targets."""

from __future__ import annotations

import pytest
import torch

from greentrain.errors import ConfigurationError
from greentrain.methods import distillation_loss, heads_loss


def test_the_gradient_is_that_of_the_cross_entropy_with_soft_targets():
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(5, 3, generator=generator, requires_grad=True)
    teacher = torch.randn(5, 3, generator=generator)
    (found,) = torch.autograd.grad(distillation_loss(student, teacher, temperature=2.0), student)
    # T ** 2 * (softmax(s / T) - softmax(t / T)) / T / batch
    expected = 2 * ((student / 2).softmax(1) - (teacher / 2).softmax(1)) / 5
    torch.testing.assert_close(found, expected.detach())


def test_heads_are_distilled_alone():
    student, teacher = torch.zeros(2, 4), torch.tensor([[1.0, 0.0, 9.0, 0.0]] * 2)
    alone = [
        float(distillation_loss(student[:, part], teacher[:, part])) for part in ([0, 1], [2, 3])
    ]
    assert float(heads_loss(student, teacher, [[0, 1], [2, 3]])) == pytest.approx(sum(alone) / 2)
    shifted = teacher + torch.tensor([5.0, 5.0, -7.0, -7.0])  # moves no head's probabilities
    assert float(heads_loss(student, shifted, [[0, 1], [2, 3]])) == pytest.approx(sum(alone) / 2)


@pytest.mark.parametrize("heads", [[], [[0, 4]], [[-1]]])
def test_heads_that_the_model_lacks_are_refused(heads):
    with pytest.raises(ConfigurationError, match="the model has 4 outputs"):
        heads_loss(torch.zeros(1, 4), torch.zeros(1, 4), heads)
