"""Train every action from every place where a model may stand: what a recording is made of."""

from __future__ import annotations

import hashlib
import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.data import extract_batch_size

from greentrain.callbacks import BudgetGuard
from greentrain.control import SKIP, Action, Candidate, UpdateMode
from greentrain.errors import MeterError
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.measured import Measured, together
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.evaluation.probe import Probe, ProbeResult
from greentrain.memory import size
from greentrain.simulation.recorded_table import (
    UNTRAINED,
    RecordedLook,
    RecordedRow,
    key_after,
    modelled_j,
)
from greentrain.simulation.recording_budget import RecordingBudget
from greentrain.simulation.recording_files import Branches, TableFile
from greentrain.streams import Experience
from greentrain.training.data import StreamData, UpdateData
from greentrain.training.fit_callbacks import StopOnNan, healthy
from greentrain.training.step_energy import StepEnergy
from greentrain.training.updater import Updater

LOOKED_AT = 1024
"""Samples that a recorded look is at, half of them new ones, where there are as many."""
_WARM_UP_STEPS = 2
_AS_THEY_ARE = ("loss_past", "unseen", "shift", "shift_by", "weight_growth", "slope")
"""What else a look may have found, under the names that :class:`RecordedLook` has for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    """Where a model may stand: its key, the experiences that wait, the file of its weights."""

    key: str
    pending: tuple[str, ...]
    weights: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """What a training came to, whatever was there before it."""

    steps: int
    samples: int
    energy_j: float
    finite: bool
    value: float


class Branching:
    """Go through a stream, and at each experience through all places where a model may stand.

    A full retraining forgets what was before it, so it is trained once for all places at an
    experience; and so are all branches that agree from the last full retraining on.

    Args:
        updater: Trains; has fresh weights.
        material: The data; has had none yet.
        held_out: What models are judged on.
        progress: Turns the metric, and tells whether one is worse.
        purse: Measures and pays.
        file: Takes the lines; those that it has are not made again.
        branches: Keeps weights.
        tried: The actions, without ``SKIP``.
        price: Joules per sample and of an update besides; ``None`` where they are measured.
        exact: Whether a key tells all that a model was trained on.
        on_row: Called after each row that is made.
        seed: Seed of what is looked at.
    """

    def __init__(
        self,
        updater: Updater,
        material: StreamData,
        held_out: HeldOut,
        progress: MetricHistory,
        purse: RecordingBudget,
        *,
        file: TableFile,
        branches: Branches,
        tried: Sequence[Action],
        price: Mapping[str, float] | None,
        exact: bool,
        on_row: Callable[[RecordedRow], None],
        seed: int,
    ) -> None:
        self._updater = updater
        self._material = material
        self._held_out = held_out
        self._progress = progress
        self._purse = purse
        self._probe = Probe(updater, held_out, seed=seed)
        self._seed = seed
        self._file = file
        self._branches = branches
        self._tried = tried
        self._price = price
        self._exact = exact
        self._on_row = on_row
        self._warm = False

    def take(self, experiences: Sequence[Experience]) -> None:
        """Record all that is not recorded yet."""
        if UNTRAINED not in self._branches:
            self._branches.save(UNTRAINED, {"state": self._updater.state_dict()})
        nodes = {UNTRAINED: _Node(key=UNTRAINED, pending=(), weights=UNTRAINED)}
        for position, experience in enumerate(experiences):
            following: dict[str, _Node] = {}
            for node in nodes.values():
                for row in self._rows(position, experience, node):
                    following.setdefault(row.after, self._leads_to(row, node, experience))
            self._held_out.take(experience)
            self._material.pending = []
            self._material.store(experience, trained=True)
            nodes = following
            if self._warm:  # and not while going over what an earlier process recorded
                self._branches.keep({UNTRAINED, *(node.weights for node in nodes.values())})

    def _rows(self, position: int, experience: Experience, node: _Node) -> Iterator[RecordedRow]:
        """Yield what every action comes to at one place: as recorded, or trained now."""
        place = (position, node.key)
        self._material.pending = list(node.pending)
        batch = self._material.gather(experience)
        done = self._file.rows.get(place, {})
        looked: tuple[ProbeResult | None, float] | None = None
        for candidate in [Candidate(action=SKIP, steps=0), *self._candidates(batch, node)]:
            row = done.get(candidate.action)
            if row is None:
                if looked is None:
                    self._updater.load_state_dict(self._branches.load(node.weights)["state"])
                    looked = self._look(position, experience, batch, node)
                row = self._row(position, experience, batch, candidate, node, looked)
                self._file.append(row)
                self._on_row(row)
            yield row

    def _candidates(self, batch: UpdateData, node: _Node) -> list[Candidate]:
        known = self._updater.modes.candidates(
            n_new=batch.n_new,
            n_stored=batch.n_stored,
            n_held=batch.n_held,
            has_model=node.key != UNTRAINED,
            keeps_data=self._material.memory is not None,
        )
        feasible = {candidate.action.mode for candidate in known}
        return [
            Candidate(
                action=action,
                steps=self._updater.modes.steps(
                    action, n_new=batch.n_new, n_stored=batch.n_stored, n_held=batch.n_held
                ),
            )
            for action in self._tried
            if action.mode in feasible
        ]

    def _look(
        self, position: int, experience: Experience, batch: UpdateData, node: _Node
    ) -> tuple[ProbeResult | None, float]:
        """Look at the model of a place; return what is found, and the metric as it really is.

        A model that is not trained yet is not looked at, but has a metric.
        """
        place, look = (position, node.key), None
        if not self._warm:
            self._warm_up(experience, batch)
        with self._purse.look(f"a look at {experience.id}"):
            metric = self._updater.measure(self._held_out.judged_on(experience))
            if self._updater.trained:
                self._draw_anew(f"{self._seed} {position} {node.key}")
                samples = min(LOOKED_AT, 2 * batch.n_new)
                look = self._probe.look(experience, batch.new, samples)
        if place not in self._file.looks:
            oriented, found = self._progress.oriented, dict[str, Any]()
            if look is not None:
                found = {name: getattr(look, name) for name in _AS_THEY_ARE if hasattr(look, name)}
                found["loss_new"] = look.new.loss
            self._file.append(
                RecordedLook(
                    position=position,
                    before=node.key,
                    metric_before=None if look is None else oriented(look.metric),
                    metric_new=None if look is None else oriented(look.new.value),
                    n_new=batch.n_new,
                    n_stored=batch.n_stored,
                    n_pending=batch.n_new - size(experience.train),
                    **found,
                )
            )
        return look, metric

    def _draw_anew(self, text: str) -> None:
        """Look at the same samples whether or not the recording was broken off before."""
        random = torch.Generator().manual_seed(zlib.crc32(text.encode()))
        self._probe.load_state_dict({**self._probe.state_dict(), "random": random.get_state()})

    def _warm_up(self, experience: Experience, batch: UpdateData) -> None:
        """Draw what only the first training and the first look of a process draw."""
        candidate = Candidate(action=Action(mode=UpdateMode.FULL_RETRAIN), steps=_WARM_UP_STEPS)
        with self._purse.look("a first training of two steps"):
            self._updater.train(candidate, batch, position=-1, callbacks=())
            self._updater.measure(self._held_out.judged_on(experience))
        self._warm = True

    def _row(
        self,
        position: int,
        experience: Experience,
        batch: UpdateData,
        candidate: Candidate,
        node: _Node,
        looked: tuple[ProbeResult | None, float],
    ) -> RecordedRow:
        action, (look, metric) = candidate.action, looked
        if action == SKIP:
            return RecordedRow(
                position=position,
                before=node.key,
                action=SKIP,
                steps=0,
                energy_j=0.0,
                samples=0,
                metric_after=self._progress.oriented(metric),
                kept=True,
                after=key_after(position, node.key, SKIP, exact=self._exact),
            )
        trained, on_look = self._trained(position, experience, batch, candidate, node, look)
        gain, gain_sd, kept = None, 0.0, trained.finite
        if look is not None and on_look is not None and kept:
            gain, gain_sd = self._progress.gain(look.measured, on_look)
            kept = not self._progress.worse(look.measured, on_look)
        price = self._price
        return RecordedRow(
            position=position,
            before=node.key,
            action=action,
            steps=trained.steps,
            energy_j=trained.energy_j if price is None else modelled_j(trained.samples, **price),
            samples=trained.samples,
            metric_after=self._progress.oriented(trained.value),
            gain=gain,
            gain_sd=gain_sd,
            kept=kept,
            after=key_after(position, node.key, action if kept else SKIP, exact=self._exact),
        )

    def _trained(
        self,
        position: int,
        experience: Experience,
        batch: UpdateData,
        candidate: Candidate,
        node: _Node,
        look: ProbeResult | None,
    ) -> tuple[_Trained, Measured | None]:
        """Train, unless it was done already from another place, and keep the weights if needed.

        Returns:
            What it came to, and the metric on the samples that were looked at, if any were.
        """
        action = candidate.action
        name = self._weights(position, node.key, action)
        full = action.mode is UpdateMode.FULL_RETRAIN
        if full and name in self._branches:
            known = self._branches.load(name)
            return _Trained(**known["trained"]), self._again(known["state"], experience, node, look)
        model, trained, on_look = self._train(position, experience, batch, candidate, look)
        usual = not self._exact and action == self._usual(node, position)
        if self._exact or full or usual:
            if trained.finite:
                self._updater.keep(model, action)
            content = {"state": self._updater.state_dict(), "trained": asdict(trained)}
            if self._exact or full:
                self._branches.save(name, content)
            if usual:
                self._branches.save(f"updated-{position}", content)
            self._updater.load_state_dict(self._branches.load(node.weights)["state"])
        return trained, on_look

    def _again(
        self,
        state: Mapping[str, Any],
        experience: Experience,
        node: _Node,
        look: ProbeResult | None,
    ) -> Measured | None:
        """Return the metric of a model that was trained before, on what was looked at now."""
        if look is None:
            return None
        self._updater.load_state_dict(state)
        with self._purse.look(f"a comparison on {experience.id}"):
            measured = together(self._updater.measured(look.held))
        self._updater.load_state_dict(self._branches.load(node.weights)["state"])
        return measured

    def _train(
        self,
        position: int,
        experience: Experience,
        batch: UpdateData,
        candidate: Candidate,
        look: ProbeResult | None,
    ) -> tuple[LightningModule, _Trained, Measured | None]:
        purse, updater = self._purse, self._updater
        purpose = f"{candidate.action} of {experience.id}"
        health, count, gauge = StopOnNan(), _Samples(), StepEnergy(purse.recorder)
        with purse.training(candidate, purpose) as payment:
            anneal = not updater.modes.average  # as an update of a stream does
            guard = BudgetGuard(payment.reserved_j, meter=purse.recorder, anneal=anneal)
            model = updater.train(
                candidate, batch, position=position, callbacks=[guard, gauge, health, count]
            )
            with purse.recorder.phase("validation"):
                value = updater.measure(self._held_out.judged_on(experience), model)
                on_look = None if look is None else together(updater.measured(look.held, model))
        if guard.stopped:
            raise purse.cut(purpose, payment.reserved_j)
        if self._price is None and not payment.drawn.complete:
            raise MeterError(
                f"the meter does not know what {purpose} drew; record with cost='samples'"
            )
        purse.learn(candidate, gauge, guard.steps, payment.actual_j)
        trained = _Trained(
            steps=guard.steps,
            samples=count.samples,
            energy_j=payment.actual_j,
            finite=not health.tripped and healthy(model) and math.isfinite(value),
            value=value,
        )
        return model, trained, on_look

    def _usual(self, node: _Node, position: int) -> Action | None:
        """Return the action by which a merged table's model comes to be; ``None`` from elsewhere.

        A full retraining first, then the warm start with the most effort at each experience.
        """
        if position and node.key != f"updated-{position - 1}":
            return None
        order = (UpdateMode.WARM_START, UpdateMode.REPLAY, UpdateMode.FULL_RETRAIN)
        mode = next(
            mode
            for mode in (order if position else order[2:])
            if any(action.mode is mode for action in self._tried)
        )
        step_fraction = max(action.step_fraction for action in self._tried if action.mode is mode)
        return Action(mode=mode, step_fraction=step_fraction)

    def _leads_to(self, row: RecordedRow, node: _Node, experience: Experience) -> _Node:
        if not (row.steps and row.kept):
            pending = (*node.pending, experience.id)
            return _Node(key=row.after, pending=pending, weights=node.weights)
        weights = (
            self._weights(row.position, node.key, row.action)
            if self._exact or row.after.startswith("full-")
            else f"updated-{row.position}"
        )
        return _Node(key=row.after, pending=(), weights=weights)

    def _weights(self, position: int, before: str, action: Action) -> str:
        """Name the file of what an action makes of a model."""
        if action.mode is UpdateMode.FULL_RETRAIN:
            return f"full-{position}-{action.step_fraction:g}"
        key = f"{position} {before} {action.mode} {action.step_fraction:g}"
        return hashlib.sha256(key.encode()).hexdigest()[:32]


class _Samples(Callback):
    """Count the samples that a fit trains on."""

    def __init__(self) -> None:
        self.samples = 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a batch whose parts differ in length
            self.samples += extract_batch_size(batch) * trainer.world_size
