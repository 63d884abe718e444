"""Floating-point operations, counted in one step of an update that nothing else changes."""

from __future__ import annotations

import pytest
import torch
from pytorch_lightning import Trainer
from torch import nn
from torch.utils._python_dispatch import _get_current_dispatch_mode
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from greentrain.ledger import Ledger
from greentrain.report import build
from greentrain.report.exports import gpai, sci
from greentrain.training.step_flops import (
    COMPILED,
    NO_STEP,
    NOTHING_COUNTED,
    StepFlops,
    is_compiled,
)
from tests.models import Classifier, experience
from tests.training.streaming import ledger_url, open_stream, rows

DATA = experience("first", (0, 1), seed=0).train
FEATURES = len(DATA[0][0])


class Net(Classifier):
    """A classifier around any layers, with noise on its inputs."""

    def __init__(self, layers: nn.Module | None = None) -> None:
        super().__init__()
        before = nn.Identity() if layers is None else layers
        self.layer = nn.Sequential(nn.Dropout(0.5), before, nn.Linear(FEATURES, 4))


def fit(model: nn.Module, *callbacks, batches: int = 3, **options):
    """Train with a fixed seed, and return the weights and the random numbers afterwards."""
    torch.manual_seed(0)
    Trainer(
        max_steps=batches,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
        **options,
    ).fit(model, DataLoader(DATA, batch_size=8))
    return {name: each.clone() for name, each in model.state_dict().items()}, torch.rand(3)


def test_the_operations_of_a_linear_layer_by_hand():
    model, counted = Classifier(), StepFlops()
    classes, features = model.layer.weight.shape
    fit(model, counted)
    # Forward: 8 x features x classes products and sums. Backward: those of the weights alone,
    # because the inputs need no gradient.
    assert counted.flops == 2 * 2 * 8 * features * classes
    assert counted.columns(3) == {"flops": 3.0 * counted.flops, "flops_note": None}


def test_counting_changes_neither_weights_nor_random_numbers():
    found = []
    for callbacks in ((), (StepFlops(),)):
        torch.manual_seed(1)
        found.append(fit(Net(nn.Sequential(nn.Linear(FEATURES, FEATURES), nn.ReLU())), *callbacks))
    (plain, numbers), (counted, others) = found
    assert all(torch.equal(plain[name], counted[name]) for name in plain)
    assert torch.equal(numbers, others)
    assert _get_current_dispatch_mode() is None


def test_no_module_has_a_hook_during_the_step():
    class Look(StepFlops):
        def on_before_zero_grad(self, trainer, pl_module, optimizer):
            hooked.append([each for each in pl_module.modules() if each._forward_hooks])

    hooked: list[list[nn.Module]] = []
    fit(Net(nn.Linear(FEATURES, FEATURES)), Look())
    assert hooked and not any(hooked)


class Attention(nn.Module):
    """Attention over parts of the inputs."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        heads = inputs.reshape(len(inputs), 1, -1, 1)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads).flatten(1)


class Products(nn.Module):
    """A classifier that multiplies no matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.sum(1, keepdim=True) * self.weight


class Recurrent(nn.Module):
    """An LSTM over the inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(1, FEATURES)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.lstm(inputs.T[..., None])[0][-1]


class Scripted(nn.Module):
    """A layer that TorchScript has compiled."""

    def __init__(self) -> None:
        super().__init__()
        self.part = torch.jit.script(nn.Linear(FEATURES, FEATURES))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.part(inputs)


@pytest.mark.parametrize("layers", [nn.Linear(FEATURES, FEATURES), nn.Unflatten(1, (1, FEATURES))])
def test_it_counts_what_the_counter_of_torch_counts(layers):
    class Whole(Net):
        def training_step(self, batch, index):
            with FlopCounterMode(display=False) as counter:
                loss = super().training_step(batch, index)
            forward.append(counter.get_total_flops())
            return loss

    forward: list[int] = []
    if isinstance(layers, nn.Unflatten):
        layers = nn.Sequential(layers, nn.Conv1d(1, 1, 3, padding=1), nn.Flatten())
    model, counted = Whole(layers), StepFlops()
    fit(model, counted, batches=1)
    assert forward[0] < counted.flops <= 3 * forward[0]


def test_attention_on_a_cpu_is_counted():
    plain, attending = StepFlops(), StepFlops()
    fit(Net(), plain)
    fit(Net(nn.Sequential(nn.Linear(FEATURES, FEATURES), Attention())), attending)
    assert plain.flops is not None and attending.flops is not None
    # Of 8 samples, forward: two products of 2 x 1 and 1 x 2, or 2 x 2 and 2 x 1. Backward: five.
    attention = 8 * 7 * 2 * (2 * 2 * 1)
    # A layer before it: forward, and backward for its weights. The last one: for its inputs, too.
    before = 2 * 2 * 8 * FEATURES * FEATURES + 2 * 8 * FEATURES * 4
    assert attending.flops == plain.flops + before + attention


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("layers", "note"),
    [(Recurrent, "has no formula for aten.mkldnn_rnn_layer"), (Scripted, COMPILED)],
)
def test_a_model_that_cannot_be_counted_is_trained_and_unknown(layers, note):
    counted = StepFlops()
    fit(Net(layers()), counted)
    assert counted.flops is None
    assert note in counted.note
    assert counted.columns(3) == {"flops": None, "flops_note": counted.note}


def test_a_compiled_model_is_left_as_it_is():
    model = Net(nn.Linear(FEATURES, FEATURES))
    assert not is_compiled(model)
    model.layer.compile(backend="eager")
    assert is_compiled(model)


def test_a_formula_that_fails_ends_no_training(monkeypatch):
    def broken(*args, **kwargs):
        raise AssertionError("the shapes do not fit")

    monkeypatch.setattr(
        "greentrain.training.step_flops.flop_registry", {torch.ops.aten.addmm: broken}
    )
    counted = StepFlops()
    fit(Net(), counted)
    assert counted.flops is None
    assert counted.note == "the formula of addmm failed: the shapes do not fit"


def test_a_step_that_fails_leaves_nothing_behind():
    class Failing(Net):
        def training_step(self, batch, index):
            raise RuntimeError("out of memory")

    counted = StepFlops()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(Failing(), counted)
    assert _get_current_dispatch_mode() is None
    assert counted.columns(1) == {"flops": None, "flops_note": NO_STEP}


def test_a_step_without_products_of_matrices_is_unknown():
    model, counted = Classifier(), StepFlops()
    model.layer = Products()
    fit(model, counted)
    assert (counted.flops, counted.note) == (None, NOTHING_COUNTED)


# In the ledger and the report


def test_outcomes_and_forms_have_the_operations_of_all_steps(tmp_path):
    first, more = experience("first", (0, 1), seed=0), experience("more", (2,), seed=2)
    with open_stream(tmp_path) as stream:
        results = [stream.update(each) for each in (first, first_again(first), more)]
    outcomes = rows(tmp_path, "outcome")
    assert [row["flops"] for row in outcomes][1] is None  # nothing was trained
    model = Classifier()
    classes, features = model.layer.weight.shape
    step = 2 * 2 * 8 * features * classes
    assert outcomes[0]["flops"] == results[0].steps * step
    ledger = Ledger(ledger_url(tmp_path), create=False)
    report = build(ledger)
    ledger.close()
    total = outcomes[0]["flops"] + outcomes[2]["flops"]
    assert report["summary"]["flops"] == total
    assert report["summary"]["trainings"] == 2
    assert report["summary"]["trainings_without_flops"] == 0
    form = {row["row"]: row["value"] for row in gpai.form(report)["rows"]}
    assert form["Amount of computation used for training"] == f"{total:.1e}"
    assert "flop_counter" in form["Measurement methodology of the computation"]
    assert not any("computation used for training" in gap for gap in gpai.missing(report))
    assert sci.score(report)["compute"]["value"] == total


def first_again(first):
    return type(first)("again", first.train, first.val)


def test_a_form_without_all_operations_has_none_and_the_reason(tmp_path):
    class Unknown(Net):
        def __init__(self):
            super().__init__(Recurrent())

    with open_stream(tmp_path, Unknown) as stream:
        stream.update(experience("first", (0, 1), seed=0))
    ledger = Ledger(ledger_url(tmp_path), create=False)
    report = build(ledger)
    ledger.close()
    assert report["summary"]["flops"] is None
    (gap,) = [one for one in gpai.missing(report) if "computation used for training" in one]
    assert "not counted in 1 of 1 training: torch.utils.flop_counter has no formula" in gap
    assert sci.score(report)["compute"]["value"] is None
