"""The definitions, by hand and against those of others as their code has them."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from greentrain.errors import ConfigurationError
from greentrain.metrics import (
    anytime_accuracy,
    average_accuracy,
    backward_transfer,
    forgetting,
    forward_transfer,
)

NAN = math.nan
# Scores of three experiences. The first one gained from the second and was forgotten by the third;
# the second one gained from the third.
SCORES = [
    [0.80, NAN, NAN],
    [0.90, 0.70, NAN],
    [0.60, 0.75, 0.95],
]

MEASURES = [average_accuracy, anytime_accuracy, forgetting, backward_transfer]


def matrix_of(scores: list[list[float]]) -> Tensor:
    return torch.tensor(scores, dtype=torch.float64)


def chaudhry_and_renate(scores: list[list[float]]) -> float:
    """Best of all rows before the last, less the last."""
    last, earlier = scores[-1], scores[:-1]
    losses = [
        max(row[on] for row in earlier if not math.isnan(row[on])) - last[on]
        for on in range(len(earlier))
    ]
    return sum(losses) / len(losses)


def avalanche(scores: list[list[float]]) -> float:
    """The score right after learning, less the last."""
    count = len(scores) - 1
    return sum(scores[on][on] - scores[-1][on] for on in range(count)) / count


def mammoth(scores: list[list[float]]) -> float:
    """Best of all rows, missing ones 0 and the last among them, less the last."""
    padded = [[0.0 if math.isnan(score) else score for score in row] for row in scores]
    count = len(scores) - 1
    return sum(max(row[on] for row in padded) - padded[-1][on] for on in range(count)) / count


def test_three_definitions_of_forgetting_give_three_numbers() -> None:
    # Avalanche: (0.80 - 0.60, 0.70 - 0.75); Chaudhry: (0.90 - 0.60, 0.70 - 0.75);
    # Mammoth: (0.90 - 0.60, 0.75 - 0.75).
    assert avalanche(SCORES) == pytest.approx((0.20 - 0.05) / 2)
    assert chaudhry_and_renate(SCORES) == pytest.approx((0.30 - 0.05) / 2)
    assert mammoth(SCORES) == pytest.approx((0.30 - 0.00) / 2)

    assert forgetting(matrix_of(SCORES)) == pytest.approx(0.125)
    assert -backward_transfer(matrix_of(SCORES)) == pytest.approx(0.075)


def test_accuracies_by_hand() -> None:
    # After the last: (0.60 + 0.75 + 0.95) / 3.
    assert average_accuracy(matrix_of(SCORES)) == pytest.approx(2.30 / 3)
    # After each: 0.80, (0.90 + 0.70) / 2, 2.30 / 3.
    assert anytime_accuracy(matrix_of(SCORES)) == pytest.approx((0.80 + 0.80 + 2.30 / 3) / 3)


def test_forward_transfer_by_hand() -> None:
    scores = matrix_of(SCORES)
    scores[0, 1], scores[1, 2] = 0.30, 0.10
    baseline = torch.tensor([0.9, 0.2, 0.25], dtype=torch.float64)
    # (0.30 - 0.20, 0.10 - 0.25): what the first experience starts from is not asked.
    assert forward_transfer(scores, baseline) == pytest.approx((0.10 - 0.15) / 2)


def test_scores_before_an_experience_was_learned_count_as_chaudhry_has_it() -> None:
    scores = [[0.8, 0.9, NAN], [0.8, 0.7, NAN], [0.8, 0.7, 0.9]]
    assert chaudhry_and_renate(scores) == pytest.approx((0.0 + 0.2) / 2)
    assert forgetting(matrix_of(scores)) == pytest.approx(0.1)


@pytest.mark.parametrize("measure", MEASURES)
def test_experiences_still_to_come_do_not_count(measure: Callable[[Tensor], float]) -> None:
    # After the second of three, the third was measured ahead of being learned.
    ahead = [[0.8, 0.1, 0.2], [0.6, 0.7, 0.3], [NAN, NAN, NAN]]
    now = [[0.8, 0.1], [0.6, 0.7]]
    assert measure(matrix_of(ahead)) == pytest.approx(measure(matrix_of(now)))


def test_forward_transfer_in_mid_stream() -> None:
    ahead = [[0.8, 0.3, 0.2], [0.6, 0.7, 0.3], [NAN, NAN, NAN]]
    assert forward_transfer(matrix_of(ahead), torch.tensor([0.1, 0.1, 0.1])) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("missing", "unknown"),
    [
        # Not measured after the last: nothing is known, however forgetting is defined.
        ((2, 0), {"average_accuracy", "anytime_accuracy", "forgetting", "backward_transfer"}),
        # Not measured right after it was learned: the best of the others is still a best.
        ((0, 0), {"anytime_accuracy", "backward_transfer"}),
        ((1, 0), {"anytime_accuracy"}),
        # The last experience has nothing to forget yet.
        ((2, 2), {"average_accuracy", "anytime_accuracy"}),
        # Never measured before the last.
        ((1, 1), {"anytime_accuracy", "forgetting", "backward_transfer"}),
    ],
)
def test_what_was_not_measured(missing: tuple[int, int], unknown: set[str]) -> None:
    scores = matrix_of(SCORES)
    scores[missing] = NAN
    assert {measure.__name__ for measure in MEASURES if math.isnan(measure(scores))} == unknown


def test_forward_transfer_without_a_score_is_unknown() -> None:
    baseline = torch.tensor([0.1, 0.1])
    assert math.isnan(forward_transfer(matrix_of([[0.8, NAN], [0.6, 0.7]]), baseline))
    assert math.isnan(forward_transfer(matrix_of([[0.8, 0.3], [0.6, 0.7]]), baseline * NAN))


def test_one_experience_has_forgotten_and_transferred_nothing_that_is_known() -> None:
    one = matrix_of([[0.8]])
    assert average_accuracy(one) == anytime_accuracy(one) == pytest.approx(0.8)
    assert math.isnan(forgetting(one))
    assert math.isnan(backward_transfer(one))
    assert math.isnan(forward_transfer(one, torch.tensor([0.1])))


@pytest.mark.parametrize("size", [0, 2])
def test_a_stream_without_scores_is_unknown(size: int) -> None:
    empty = torch.full((size, size), NAN)
    assert all(math.isnan(measure(empty)) for measure in MEASURES)
    assert math.isnan(forward_transfer(empty, torch.zeros(size)))


@pytest.mark.parametrize("measure", MEASURES)
def test_the_matrix_is_left_as_it_was(measure: Callable[[Tensor], float]) -> None:
    scores = matrix_of(SCORES)
    measure(scores)
    assert torch.equal(scores.nan_to_num(), matrix_of(SCORES).nan_to_num())


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("shape", [(3,), (2, 3), (3, 2)])
def test_other_shapes_are_refused(
    measure: Callable[[Tensor], float], shape: tuple[int, ...]
) -> None:
    with pytest.raises(ConfigurationError, match=r"the matrix has shape .*; it must be square"):
        measure(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), ()])
def test_a_baseline_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="the baseline has one score for each column"):
        forward_transfer(matrix_of(SCORES), torch.zeros(shape))


squares = st.integers(2, 6).flatmap(
    lambda size: st.lists(
        st.lists(st.floats(0, 1, width=32), min_size=size, max_size=size),
        min_size=size,
        max_size=size,
    )
)


@given(squares)
def test_forgetting_is_that_of_the_plain_definition(scores: list[list[float]]) -> None:
    assert forgetting(matrix_of(scores)) == pytest.approx(chaudhry_and_renate(scores))
    assert -backward_transfer(matrix_of(scores)) == pytest.approx(avalanche(scores))


@given(squares)
def test_forgetting_is_at_least_the_negative_of_backward_transfer(
    scores: list[list[float]],
) -> None:
    # Equal just where every experience was at its best right after it was learned.
    best_when_learned = all(
        scores[on][on] == max(row[on] for row in scores[:-1]) for on in range(len(scores) - 1)
    )
    difference = forgetting(matrix_of(scores)) + backward_transfer(matrix_of(scores))
    assert difference >= -1e-12
    if best_when_learned:
        assert difference == pytest.approx(0, abs=1e-12)


@given(squares)
def test_average_accuracy_is_what_was_learned_and_what_came_of_it(
    scores: list[list[float]],
) -> None:
    # ACC = mean of the diagonal + (t - 1) / t * BWT, by the definitions.
    matrix, count = matrix_of(scores), len(scores)
    learned = float(matrix.diagonal().mean())
    expected = learned + (count - 1) / count * backward_transfer(matrix)
    assert average_accuracy(matrix) == pytest.approx(expected, abs=1e-12)


@given(squares, st.floats(0, 1))
def test_a_constant_shift_moves_accuracies_and_nothing_else(
    scores: list[list[float]], shift: float
) -> None:
    matrix = matrix_of(scores)
    baseline = torch.full((len(scores),), 0.5, dtype=torch.float64)
    for accuracy in (average_accuracy, anytime_accuracy):
        assert accuracy(matrix + shift) == pytest.approx(accuracy(matrix) + shift)
    for change in (forgetting, backward_transfer):
        assert change(matrix + shift) == pytest.approx(change(matrix), abs=1e-12)
    assert forward_transfer(matrix + shift, baseline + shift) == pytest.approx(
        forward_transfer(matrix, baseline), abs=1e-12
    )
