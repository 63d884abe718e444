"""The methods of the benchmark, their strengths, and the numbers to compare them with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from pytorch_lightning import Callback
from torch import Tensor

from _methods import structures
from _methods.protocol import (
    BATCH_SIZE,
    CLASSES,
    CONTEXTS,
    MaskedPerceptron,
    Scenario,
    class_groups,
    make_model,
)
from _methods.rehearsal import Rehearsal
from greentrain.callbacks import (
    AGEM,
    DER,
    EWC,
    GEM,
    MAS,
    MIR,
    SI,
    GDumb,
    GenerativeReplay,
    ICaRL,
    L2Anchor,
    LwF,
    ReplayThroughFeedback,
)
from greentrain.memory import (
    BinPlayBuffer,
    FeedbackNet,
    GenerativeBuffer,
    LearnedBuffer,
    LogarithmicBuffer,
    MultibandBuffer,
    QuantisedBuffer,
    ReservoirBuffer,
)

SCENARIOS: tuple[Scenario, ...] = ("task", "domain", "class")

STORED = 200
"""Stored samples of each experience: 100 of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One method.

    Args:
        make: Returns its callbacks for a scenario, a strength and a seed.
        grid: Strengths to choose from, by scenario; empty for a method without one.
        published: Accuracies of van de Ven & Tolias 2019, table 4, by scenario in percent.
        reach: Lowest accuracies of the issue, by scenario.
        searched_as: The method whose strengths it takes.
        model: Makes its model for a strength; the protocol's perceptron unless given.
    """

    make: Callable[[Scenario, float, int], list[Callback]]
    grid: Mapping[Scenario, Sequence[float]] = field(default_factory=dict)
    published: Mapping[Scenario, float] = field(default_factory=dict)
    reach: Mapping[Scenario, float] = field(default_factory=dict)
    searched_as: str = ""
    model: Callable[[float], MaskedPerceptron] | None = None


def _table(task: float, domain: float, klass: float) -> dict[Scenario, float]:
    return {"task": task, "domain": domain, "class": klass}


def all_outputs(model: object, images: Tensor) -> Tensor:
    """Return all logits, also those of other tasks."""
    return model.net(images)  # type: ignore[attr-defined, no-any-return]


def _lwf(scenario: Scenario, strength: float, seed: int) -> list[Callback]:
    if scenario != "task":
        return [LwF(lambda: make_model(scenario))]
    heads = class_groups(seed)
    return [LwF(lambda: make_model(scenario), heads=heads, outputs=all_outputs)]


def last_hidden(model: object, images: Tensor) -> Tensor:
    """Return the last hidden layer."""
    return model.net[:-1](images)  # type: ignore[attr-defined, no-any-return]


def _icarl(scenario: Scenario, strength: float, seed: int) -> list[Callback]:
    return [
        ICaRL(
            *(lambda: make_model(scenario), last_hidden),
            capacity=2000,
            outputs=all_outputs,
            seed=seed,
        )
    ]


def _generative(
    scenario: Scenario,
    strength: float,
    seed: int,
    *,
    distill: bool = False,
    kind: Callable[..., LearnedBuffer] = GenerativeBuffer,
) -> list[Callback]:
    buffer = kind(10_000, seed=seed)  # steps: those of an experience
    return [GenerativeReplay(lambda: make_model(scenario), buffer, distill=distill)]


class FeedbackPerceptron(MaskedPerceptron):
    """The protocol's perceptron, which also generates."""

    def __init__(self) -> None:
        super().__init__()
        self.net = FeedbackNet((784,), CLASSES)


def _none(scenario: Scenario, strength: float, seed: int) -> list[Callback]:
    return []


ENTRIES: dict[str, Entry] = {
    "none": Entry(make=lambda scenario, strength, seed: [], published=_table(87.2, 59.2, 19.9)),
    "EWC": Entry(
        make=lambda scenario, strength, seed: [EWC(strength)],
        grid={"task": (1e3, 1e5, 1e7), "domain": (1e6, 1e8, 1e10), "class": (1e3, 1e6, 1e9)},
        published=_table(98.6, 64.0, 20.0),
        reach={"task": 98.5, "class": 19.0},
    ),
    "online EWC": Entry(
        make=lambda scenario, strength, seed: [EWC(strength, decay=1.0)],
        published=_table(99.1, 64.3, 20.0),
        searched_as="EWC",
    ),
    "SI": Entry(
        make=lambda scenario, strength, seed: [SI(strength)],
        grid={"task": (2.0, 20.0, 200.0, 2e3), "domain": (1e3, 1e4, 1e5), "class": (1e2, 1e3, 1e4)},
        published=_table(99.1, 65.4, 20.0),
        reach={"task": 98.5, "class": 19.0},
    ),
    "MAS": Entry(
        make=lambda scenario, strength, seed: [MAS(strength, outputs=all_outputs)],
        grid={"task": (0.01, 0.1, 1.0), "domain": (1.0, 10.0, 100.0), "class": (0.1, 1.0, 10.0)},
    ),
    "L2": Entry(
        make=lambda scenario, strength, seed: [L2Anchor(strength)],
        grid={"task": (0.01, 0.1, 1.0), "domain": (0.1, 1.0, 10.0), "class": (0.01, 0.1, 1.0)},
    ),
    "LwF": Entry(
        make=_lwf,
        published=_table(99.6, 71.5, 23.9),
        reach={"task": 98.5, "domain": 70.0, "class": 22.0},
    ),
    "A-GEM": Entry(
        make=lambda scenario, strength, seed: [AGEM(STORED, seed=seed)],
        reach={"class": 63.0},
    ),
    "GEM": Entry(
        make=lambda scenario, strength, seed: [GEM(STORED, seed=seed)],
    ),
    "DER": Entry(
        make=lambda scenario, strength, seed: [
            DER(CONTEXTS * STORED, outputs=all_outputs, seed=seed)
        ],
    ),
    "DER++": Entry(
        make=lambda scenario, strength, seed: [
            DER(CONTEXTS * STORED, beta=0.5, outputs=all_outputs, seed=seed)
        ],
    ),
    "ER": Entry(
        make=lambda scenario, strength, seed: [
            Rehearsal(ReservoirBuffer(CONTEXTS * STORED, seed=seed), seed=seed)
        ],
    ),
    "ER-MIR": Entry(
        make=lambda scenario, strength, seed: [
            MIR(CONTEXTS * STORED, candidates=2 * BATCH_SIZE, batch_size=BATCH_SIZE, seed=seed)
        ],
    ),
    "AQM": Entry(
        make=lambda scenario, strength, seed: [
            Rehearsal(QuantisedBuffer(CONTEXTS * STORED, seed=seed), seed=seed)
        ],
    ),
    "iCaRL": Entry(
        make=_icarl,
        published={"class": 94.6},
        reach={"class": 92.0},
    ),
    "DGR": Entry(
        make=_generative,
        published=_table(99.5, 95.7, 90.8),
        reach={"class": 90.0},
    ),
    "DGR+distill": Entry(
        make=partial(_generative, distill=True),
        published=_table(99.6, 96.8, 91.8),
        reach={"class": 91.0},
    ),
    "BinPlay": Entry(make=partial(_generative, kind=BinPlayBuffer)),
    "Multiband VAE": Entry(make=partial(_generative, kind=MultibandBuffer)),
    "LogCL": Entry(make=partial(_generative, kind=LogarithmicBuffer)),
    "RTF": Entry(
        make=lambda scenario, strength, seed: [ReplayThroughFeedback(FeedbackPerceptron)],
        model=lambda strength: FeedbackPerceptron(),
    ),
    "GDumb": Entry(
        make=lambda scenario, strength, seed: [
            GDumb(lambda: make_model(scenario), CONTEXTS * STORED, seed=seed)
        ],
    ),
    "progressive": Entry(make=_none, model=lambda strength: structures.progressive()),
    "Piggyback": Entry(make=_none, model=lambda strength: structures.piggyback()),
    "SupSup": Entry(make=_none, model=lambda strength: structures.supermasks()),
    "hypernetwork": Entry(make=_none, grid={"task": (0.01, 1.0)}, model=structures.hypernetwork),
    "InterContiNet": Entry(make=_none, grid={"task": (0.01, 0.1, 1.0)}, model=structures.intervals),
}
