"""Projections of gradients against solutions found by hand and by search."""

from __future__ import annotations

import itertools

import pytest
import torch

from greentrain.methods import project_from, project_from_all
from greentrain.methods.projection import assign_gradients, flattened


@pytest.mark.parametrize("seed", range(4))
def test_a_projected_gradient_goes_against_no_reference_and_is_the_nearest(seed):
    generator = torch.Generator().manual_seed(seed)
    references = list(torch.randn(3, 6, generator=generator).double())
    gradient = -sum(references) + torch.randn(6, generator=generator).double()
    found = project_from_all(gradient, references)
    assert all(float(each @ found) >= -1e-6 for each in references)
    # The nearest point is the projection on the span that some set of active references leaves.
    nearest = None
    for count in range(4):
        for active in itertools.combinations(references, count):
            point = gradient
            if active:
                rows = torch.stack(active)
                point = gradient - rows.T @ torch.linalg.solve(rows @ rows.T, rows @ gradient)
            allowed = all(float(each @ point) >= -1e-9 for each in references)
            distance = float((point - gradient).norm())
            if allowed and (nearest is None or distance < nearest[0]):
                nearest = (distance, point)
    torch.testing.assert_close(found, nearest[1], atol=1e-5, rtol=1e-5)


def test_one_reference_gives_the_projection_of_both_methods():
    gradient, reference = torch.tensor([1.0, -3.0]), torch.tensor([1.0, 1.0])
    expected = [2.0, -2.0]  # (1, -3) + (1, 1), as g . r = -2 and r . r = 2
    assert project_from(gradient, reference).tolist() == expected
    assert project_from(gradient, 1e3 * reference).tolist() == pytest.approx(expected)
    assert project_from_all(gradient, [reference]).tolist() == pytest.approx(expected)


def test_a_margin_moves_towards_the_stored_samples():
    gradient, reference = torch.tensor([1.0, -3.0]), torch.tensor([3.0, 4.0])
    # Of the unit length (0.6, 0.8): along is -1.8; v = 5 instead of 1.8.
    found = project_from_all(gradient, [reference], margin=5.0)
    assert found.tolist() == pytest.approx([4.0, 1.0])


@pytest.mark.parametrize("zero", [torch.zeros(2), torch.ones(2)])
def test_what_agrees_or_says_nothing_changes_nothing(zero):
    gradient = torch.tensor([1.0, 2.0])
    assert torch.equal(project_from(gradient, zero), gradient)
    assert torch.equal(project_from_all(gradient, [zero, zero]), gradient)


def test_gradients_come_back_where_they_were():
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3))]
    parameters[0].grad = torch.arange(4.0).view(2, 2)
    vector = flattened([each.grad for each in parameters], parameters)
    assert vector.tolist() == [0, 1, 2, 3, 0, 0, 0]
    assign_gradients(vector + 1, parameters)
    assert parameters[0].grad.tolist() == [[1, 2], [3, 4]]
    assert parameters[1].grad.tolist() == [1, 1, 1]
