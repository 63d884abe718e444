from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from greentrain.errors import ConfigurationError
from greentrain.metrics import AccuracyMatrix, average_accuracy


def filled() -> AccuracyMatrix:
    matrix = AccuracyMatrix()
    matrix.update(after=0, on=0, value=0.75)
    matrix.update(after=1, on=0, value=0.5)
    matrix.update(after=1, on=1, value=torch.tensor(1.0))
    return matrix


def same(found: Tensor, expected: list[list[float]]) -> bool:
    return torch.equal(found.nan_to_num(nan=-1.0), torch.tensor(expected).nan_to_num(nan=-1.0))


FILLED = [[0.75, math.nan], [0.5, 1.0]]


def test_rows_are_after_and_columns_on() -> None:
    assert same(filled().compute(), FILLED)


def test_it_grows_to_the_largest_position_in_either_direction() -> None:
    matrix = AccuracyMatrix()
    matrix.update(after=0, on=2, value=0.25)
    unknown = [math.nan] * 3
    assert same(matrix.compute(), [[math.nan, math.nan, 0.25], unknown, unknown])


def test_a_cell_measured_again_takes_the_later_score() -> None:
    matrix = filled()
    matrix.update(after=1, on=0, value=0.625)
    assert same(matrix.compute(), [[0.75, math.nan], [0.625, 1.0]])


def test_what_was_handed_out_does_not_change() -> None:
    matrix = filled()
    before, state = matrix.compute(), matrix.state_dict()
    matrix.update(after=0, on=0, value=0.0)
    assert same(before, FILLED)
    assert same(state["matrix"], FILLED)


def test_forward_enters_a_score_and_returns_that_alone() -> None:
    matrix = filled()
    assert same(matrix(after=0, on=0, value=0.25), [[0.25]])
    assert same(matrix.compute(), [[0.25, math.nan], [0.5, 1.0]])


def test_reset_forgets_everything() -> None:
    matrix = filled()
    matrix.reset()
    matrix.update(after=0, on=0, value=0.5)
    assert same(matrix.compute(), [[0.5]])


def test_it_is_saved_with_a_model_and_taken_up_where_it_was(tmp_path: Any) -> None:
    class Model(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.scores = AccuracyMatrix()

    saved, loaded = Model(), Model()
    saved.scores = filled()
    loaded.scores.update(after=0, on=0, value=0.125)
    loaded.scores.compute()
    torch.save(saved.state_dict(), tmp_path / "model.pt")
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    loaded.load_state_dict(state)

    # Neither the score that was computed before, nor a warning of a metric without updates.
    assert same(loaded.scores.compute(), FILLED)
    loaded.scores.update(after=2, on=0, value=0.25)
    assert loaded.scores.compute().shape == (3, 3)
    assert same(saved.scores.compute(), FILLED)


def test_it_survives_pickling() -> None:
    assert same(pickle.loads(pickle.dumps(filled())).compute(), FILLED)


def test_ranks_are_averaged() -> None:
    matrix = filled()
    other = torch.tensor([[0.25, math.nan], [0.0, math.nan]])
    matrix.distributed_available_fn = lambda: True
    matrix.dist_sync_fn = lambda state, group: [state, other]
    # What only one rank measured is that rank's.
    assert same(matrix.compute(), [[0.5, math.nan], [0.25, 1.0]])


def test_it_starts_without_experiences() -> None:
    matrix = AccuracyMatrix()
    with pytest.warns(UserWarning, match="before the ``update`` method"):
        assert matrix.compute().shape == (0, 0)
    assert math.isnan(average_accuracy(matrix.matrix))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"after": -1}, r"after is -1; it must be the position of an experience, 0 or more"),
        ({"on": 1.0}, r"on is 1\.0; it must be the position"),
        ({"after": True}, r"after is True; it must be the position"),
        ({"value": math.nan}, r"value is nan; it must be a finite number"),
        ({"value": math.inf}, r"value is inf; it must be a finite number"),
    ],
)
def test_what_is_no_score_is_refused(wrong: dict[str, Any], message: str) -> None:
    matrix = filled()
    with pytest.raises(ConfigurationError, match=message):
        matrix.update(**{"after": 0, "on": 0, "value": 0.5, **wrong})
    assert same(matrix.compute(), FILLED)
