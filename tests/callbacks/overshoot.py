"""Random fits under random caps, whose joules are known exactly: for a test and a benchmark.

The energy of a step follows one of four laws, in multiples of the mean step of its fit:

- always 1;
- random from 0 to 2;
- 2 every third or fourth step and less between, with a mean of 1, as in gradient accumulation;
- growing from 0.6 to 1.4 over the fit.

The first step uses 1 to 4 mean steps more. A validation batch uses 0.1 to 1 mean step. Each whole
validation uses up to 2 % more or less than that, and so does each saving of a checkpoint, which
uses up to 10 mean steps. On the simulated card, the power is constant in one half of the fits. In
the other half, it falls to a third for a part of each period of 20 ms to 2 s. If a fit's validation
is not measured beforehand, its first epoch is longer than its cap.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import TorchCheckpointIO
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard
from greentrain.energy import ConstantMeter, Meter, NvmlMeter
from tests.models import Clock
from tests.nvml.simulation import Node

ENOUGH_STEPS, ENOUGH_S = 200, 60.0
"""From a cap worth this many steps and seconds on, 97 % of it are to be used."""
SMALL_END = 0.01
"""Share of the cap that a validation and a saving use at most, in half of the large caps.

In the other half they use up to ten times as much. A fit ends after a validation if the rest of the
cap does not pay for a step and another validation. That rest may be more than 3 % of the cap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One fit.

    Args:
        seed: Of everything random in it.
        simulated: Whether its meter is that of a simulated card, which ticks every 0.1 s.
        cap_steps: The cap, in mean steps.
        step_s: Seconds of a mean step.
        power_w: Watts, at their highest.
        law: Energy of a step: ``"even"``, ``"random"``, ``"accumulated"`` or ``"growing"``.
        epoch: Batches of an epoch.
        validation: Batches of a validation.
        evaluated: Energy of a validation batch, in mean steps.
        save: Energy of saving a checkpoint, in mean steps; 0 without checkpoints.
        save_every: Steps between two saved checkpoints; 0 for each epoch's end.
        measured: Whether a validation is measured before the last one.
        end: Upper bound of a validation and a saving, as a share of the cap.
    """

    seed: int
    simulated: bool
    cap_steps: float
    step_s: float
    power_w: float
    law: str
    epoch: int
    validation: int
    evaluated: float
    save: float
    save_every: int
    measured: bool
    end: float

    @property
    def cap_j(self) -> float:
        """The cap in joules."""
        return self.cap_steps * self.step_s * self.power_w

    @property
    def enough(self) -> bool:
        """True if the cap is large enough to be used up to 97 %."""
        return (
            self.measured
            and self.cap_steps >= ENOUGH_STEPS
            and self.cap_steps * self.step_s >= ENOUGH_S
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of a fit.

    Args:
        case: The fit.
        used_j: Joules really used, from the start of the fit to its end.
        steps: Steps taken.
        reads: Number of times that the guard read its meter.
        validations: Number of whole validations.
    """

    case: Case
    used_j: float
    steps: int
    reads: int
    validations: int

    @property
    def share(self) -> float:
        """Share of the cap that was used."""
        return self.used_j / self.case.cap_j


def case(seed: int, *, simulated: bool) -> Case:
    """Return a random fit: in three of five, the cap is large enough to be used up to 97 %."""
    chance = random.Random(2 * seed + simulated)
    enough = chance.random() < 0.6
    measured = enough or chance.random() < 0.5
    if enough:
        step_s = _between(chance, 0.1, 3.0)
        cap_steps = max(ENOUGH_STEPS, ENOUGH_S / step_s) * _between(chance, 1.0, 1.5)
    else:
        step_s = _between(chance, 0.002, 3.0)
        cap_steps = _between(chance, 60.0, 600.0)
    evaluated, save = chance.uniform(0.1, 1.0), chance.choice((0.0, chance.uniform(0.0, 10.0)))
    end = chance.choice((SMALL_END, 0.1)) if enough else 0.3
    save = min(save, 0.5 * end * cap_steps)
    validation = max(1, int(chance.uniform(0.0, 1.0) * (end * cap_steps - save) / evaluated))
    epoch = int(cap_steps * chance.uniform(0.1, 0.4)) if measured else math.ceil(2 * cap_steps)
    return Case(
        seed=seed,
        simulated=simulated,
        cap_steps=cap_steps,
        step_s=step_s,
        power_w=_between(chance, 20.0, 700.0),
        law=chance.choice(("even", "random", "accumulated", "growing")),
        epoch=epoch,
        validation=validation,
        evaluated=evaluated,
        save=save,
        save_every=chance.choice((0, 0, max(2, epoch // 3))),
        measured=measured,
        end=end,
    )


def run(case: Case, folder: Path, node: Node | None = None) -> Outcome:
    """Fit, with a light model and a real Trainer.

    Args:
        case: The fit.
        folder: Where checkpoints would go.
        node: The simulated node, for a case that needs one.
    """
    chance = random.Random(case.seed)
    meter, clock, advance, energy_j = _machine(case, chance, node)
    costs = _Costs(case, chance, advance)
    counted = _Counted(meter)
    guard = BudgetGuard(Budget(energy_j=case.cap_j), meter=counted)
    callbacks: list[Callback] = [guard, costs]
    if case.save:
        callbacks.append(ModelCheckpoint(folder, every_n_train_steps=case.save_every or None))
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="BudgetGuard: .* more than its cap"
        )  # it is counted
        warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        warnings.filterwarnings("ignore", message=r".*isinstance\(treespec, LeafSpec\)")
        trainer = Trainer(
            callbacks=callbacks,
            plugins=[_SlowIO(costs)] if case.save else None,
            max_epochs=1000,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=bool(case.save),
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
        began_s = clock()
        trainer.fit(_Light(), _batches(case.epoch), _batches(case.validation))
    return Outcome(
        case=case,
        used_j=energy_j(began_s, clock()),
        steps=guard.steps,
        reads=counted.reads,
        validations=costs.validations,
    )


def _machine(
    case: Case, chance: random.Random, node: Node | None
) -> tuple[Meter, Callable[[], float], Callable[[float], None], Callable[[float, float], float]]:
    """Return a meter, its clock, a function that moves it, and the joules between two times."""
    if node is None:
        fake = Clock()

        def advance(seconds: float) -> None:
            fake.seconds += seconds

        meter = ConstantMeter(case.power_w, clock=fake)
        return meter, fake, advance, lambda begin, end: case.power_w * (end - begin)
    card = node.cards[0]
    card.tick_phase_s = chance.uniform(0.0, 0.1)
    card.constant(case.power_w)
    if chance.random() < 0.5:
        period_s = _between(chance, 0.02, 2.0)
        card.square(case.power_w / 3, case.power_w, period_s, duty=chance.uniform(0.5, 0.9))
    node.advance(1.0)
    still = NvmlMeter(
        clock=node.clock, synchronize=lambda index: None, wait=lambda stop, seconds: stop.wait()
    )
    return still, node.clock, node.advance, card.energy_j


class _Costs(Callback):
    """Advance the clock where a real fit would use time."""

    def __init__(self, case: Case, chance: random.Random, advance: Callable[[float], None]) -> None:
        self.validations = 0
        self._case = case
        self._chance = chance
        self._advance = advance
        self._steps = 0
        self._first = chance.uniform(1.0, 4.0)
        self._every = chance.choice((3, 4))
        self._factor = 1.0

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.pass_steps(self._law() + (self._first if self._steps == 0 else 0.0))
        self._steps += 1

    def on_validation_start(self, *args: Any, **kwargs: Any) -> None:
        self._factor = self._chance.uniform(0.98, 1.02)

    def on_validation_batch_start(self, *args: Any, **kwargs: Any) -> None:
        self.pass_steps(self._factor * self._case.evaluated)

    def on_validation_end(self, *args: Any, **kwargs: Any) -> None:
        self.validations += 1

    def save(self) -> None:
        """Advance the clock by the time of a saving."""
        self.pass_steps(self._case.save * self._chance.uniform(0.98, 1.02))

    def pass_steps(self, steps: float) -> None:
        """Advance the clock by the time of some mean steps."""
        self._advance(steps * self._case.step_s)

    def _law(self) -> float:
        if self._case.law == "random":
            return self._chance.uniform(0.0, 2.0)
        if self._case.law == "accumulated":
            every = self._every
            return 2.0 if self._steps % every == every - 1 else (every - 2.0) / (every - 1.0)
        if self._case.law == "growing":
            return min(1.4, 0.6 + 0.8 * self._steps / self._case.cap_steps)
        return 1.0


class _SlowIO(TorchCheckpointIO):
    """Save nothing, and advance the clock by the time of a saving."""

    def __init__(self, costs: _Costs) -> None:
        self._costs = costs

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        self._costs.save()

    def remove_checkpoint(self, path: Any) -> None:
        pass


class _Counted:
    """A meter that counts how often it is read."""

    def __init__(self, meter: Meter) -> None:
        self.reads = 0
        self._meter = meter

    def read(self) -> Any:
        self.reads += 1
        return self._meter.read()

    @property
    def sources(self) -> Any:
        return self._meter.sources

    def start(self) -> None:
        self._meter.start()

    def close(self) -> None:
        self._meter.close()


class _Light(LightningModule):
    """A model with the least possible work."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.weight.sum()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def _batches(count: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.zeros(count, 1)), batch_size=1)


def _between(chance: random.Random, low: float, high: float) -> float:
    """Return a random number, uniform in the logarithm."""
    return math.exp(chance.uniform(math.log(low), math.log(high)))
