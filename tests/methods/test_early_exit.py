"""Early exits: who leaves where, what runs for the others, and the choice of a threshold."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from greentrain.errors import ConfigurationError
from greentrain.methods import ExitHeads, ExitRow, choose_threshold, exit_table


class Noted(nn.Identity):
    """Keeps how many rows each forward pass has."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[int] = []

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.rows.append(len(inputs))
        return inputs


def net() -> nn.Sequential:
    return nn.Sequential(nn.Identity(), nn.Identity(), Noted(), nn.Linear(2, 2)).eval()


def certain(at: list[str]) -> ExitHeads:
    """Heads whose logits are the two features."""
    heads = ExitHeads({name: 2 for name in at}, 2)
    for head in heads.heads:
        head[0] = nn.Identity()
        with torch.no_grad():
            head[1].weight.copy_(torch.eye(2))
            head[1].bias.zero_()
    return heads.eval()


# Softmax of (3, 0): 0.953; of (1, 0): 0.731; of (0, 0): 0.5.
SAMPLES = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 1.0], [0.0, 3.0]])


def test_confident_samples_leave_and_only_the_others_run_later_layers():
    module = net()
    found = certain(["0"]).predict(module, SAMPLES, threshold=0.9)
    assert found.exits.tolist() == [1, 0, 1, 0]
    assert module[2].rows == [2]
    assert found.logits[[1, 3]].tolist() == [[3.0, 0.0], [0.0, 3.0]]
    assert torch.allclose(found.logits[[0, 2]], module[3](SAMPLES[[0, 2]]))


def test_the_forward_pass_ends_when_all_have_left():
    module, heads = net(), certain(["0", "1"])
    assert heads.predict(module, SAMPLES, threshold=0.5).exits.tolist() == [0, 0, 0, 0]
    assert module[2].rows == []
    heads.threshold.fill_(0.7)
    assert torch.equal(heads(module, SAMPLES[1:]), SAMPLES[1:])
    assert module[2].rows == []
    heads.train()  # while it is trained, it has to see the last layer
    assert heads(module, SAMPLES).shape == (4, 2)
    assert module[2].rows == [4]


def test_without_a_threshold_nothing_changes():
    module = net()
    heads = certain(["0"])
    assert torch.equal(heads(module, SAMPLES), module(SAMPLES))
    found = heads.predict(module, SAMPLES)
    assert found.exits.tolist() == [1, 1, 1, 1]
    assert torch.equal(found.logits, module(SAMPLES))


def test_a_table_has_accuracy_shares_and_operations_worked_out_by_hand():
    module = net()
    with torch.no_grad():  # the last layer decides wrongly: it exchanges the classes
        module[3].weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        module[3].bias.zero_()
    labels = torch.tensor([0, 0, 1, 1])
    rows = exit_table(
        certain(["0"]),
        module,
        [(SAMPLES[:2], labels[:2]), (SAMPLES[2:], labels[2:])],
        thresholds=[0.9, 0.6],
        full_energy_j=0.5,
    )
    # A head is a product of 2 x 2: 8 operations. So is the last layer.
    assert [row.threshold for row in rows] == [0.6, 0.9, float("inf")]
    assert rows[0].shares == (0.75, 0.25)
    assert rows[0].operations == 1000 * (0.75 * 8 + 0.25 * 16)
    assert rows[0].accuracy == 1.0  # of equal logits, the first class
    assert rows[1].shares == (0.5, 0.5)
    assert rows[1].accuracy == 0.75
    assert rows[1].energy_j == 1000 * 0.5 * 12 / 8
    assert (rows[2].operations, rows[2].energy_j, rows[2].accuracy) == (8000.0, 500.0, 0.25)


def row(threshold: float, accuracy: float, operations: float, energy_j: float | None = None):
    shares = (1.0, 0.0)
    return ExitRow(
        threshold=threshold,
        accuracy=accuracy,
        shares=shares,
        operations=operations,
        energy_j=energy_j,
    )


ROWS = [row(0.5, 0.7, 1000, 10), row(0.7, 0.9, 3000, 30), row(0.9, 0.8, 4000, 40)]


@pytest.mark.parametrize(
    ("target", "threshold"),
    [({"accuracy": 0.8}, 0.7), ({"operations": 3.5}, 0.7), ({"energy_j": 0.02}, 0.5)],
)
def test_a_threshold_is_chosen_for_a_target(target, threshold):
    assert choose_threshold(ROWS, **target).threshold == threshold


@pytest.mark.parametrize(
    ("rows", "target", "sentence"),
    [
        (ROWS, {}, "0 targets are given"),
        (ROWS, {"accuracy": 0.8, "energy_j": 1.0}, "2 targets are given"),
        (ROWS, {"accuracy": 0.99}, "no threshold reaches an accuracy of 0.99; the best is 0.9"),
        (ROWS, {"operations": 0.5}, "at most 0.5 of operations for a sample; the least is 1"),
        ([row(0.5, 0.7, 1000)], {"energy_j": 1.0}, "the rows have no joules"),
    ],
)
def test_a_target_that_no_row_meets_is_refused(rows, target, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        choose_threshold(rows, **target)


class Skipping(nn.Module):
    """A skip connection leads past the layer with the exit."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs + self.inner(inputs)


class Twice(Skipping):
    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(self.inner(inputs))


@pytest.mark.parametrize(
    ("module", "sentence"),
    [(Skipping(), "no skip connection leads past"), (Twice(), "runs twice")],
)
def test_a_module_whose_rows_cannot_leave_is_refused(module, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        certain(["inner"]).predict(module, torch.cat([SAMPLES, SAMPLES[:1]])[:3], threshold=0.9)
    assert not module.inner._forward_hooks


class Tuple(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.unused = nn.LSTM(2, 2, batch_first=True), nn.Identity()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs)[0]


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (["iner"], "Tuple has no layer 'iner'; the nearest names are 'inner'"),
        (["inner"], "is a tuple; it must be one tensor of 2 to 4 dimensions"),
        (["unused"], "'unused' does not run"),
        ("inner", "give a list of names"),
        ([], "no layer for an exit"),
    ],
)
def test_unusable_layers_are_refused(layers, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        ExitHeads.of(Tuple(), layers, classes=2, example=torch.zeros(1, 3, 2))


@pytest.mark.parametrize("thresholds", [[1.5], [-0.1]])
def test_unusable_thresholds_are_refused(thresholds):
    with pytest.raises(ConfigurationError, match="must be from 0 to 1"):
        exit_table(certain(["0"]), net(), [], thresholds=thresholds)
