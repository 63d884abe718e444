"""Train every action at every place of a table."""

from __future__ import annotations

import math
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.data import extract_batch_size

from greentrain.budget import Budget
from greentrain.callbacks import BudgetGuard
from greentrain.control import SKIP, Action, Candidate, UpdateMode
from greentrain.errors import MeterError
from greentrain.evaluation.comparison import Measured, MetricHistory
from greentrain.evaluation.evaluator import Evaluator
from greentrain.evaluation.held_out import HeldOut
from greentrain.evaluation.probe import Probe, ProbeResult
from greentrain.memory import size
from greentrain.simulation.recorded_table import (
    UNTRAINED,
    RecordedProbe,
    RecordedRow,
    key_after,
    modelled_j,
)
from greentrain.simulation.recording_budget import RecordingBudget
from greentrain.simulation.recording_files import TableFile, WeightsFolder
from greentrain.simulation.table_nodes import TableNode, node_after, usual_action, weights_name
from greentrain.streams import Experience
from greentrain.training.data import StreamData, UpdateData
from greentrain.training.fit import ModelTrainer, TrainedModel
from greentrain.training.fit_callbacks import StepEnergy, StopOnNan, has_finite_weights
from greentrain.training.late_labels import judged
from greentrain.training.stream_state import CurrentModel

PROBE_SAMPLES = 1024
"""Samples of a recorded probe, half of them new ones, if there are as many."""
_WARM_UP_STEPS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Visit:
    """A place with its data, its probe if the model is trained, and its held-out metric."""

    position: int
    experience: Experience
    node: TableNode
    data: UpdateData
    probe: ProbeResult | None
    metric: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trained:
    """Result of a training."""

    steps: int
    samples: int
    energy_j: float
    finite: bool
    value: float


class TableRecorder:
    """Record the probe and all actions of each place, experience by experience.

    A full retraining forgets all before it, so it is trained once for all places of an experience.
    Places with the same updates since the last full retraining share one model.

    Args:
        model: The current model, with fresh weights.
        trainer: Trains.
        evaluator: Measures models.
        data: The data; still empty.
        held_out: The held-out data.
        progress: Orients and compares metrics.
        budget: Measures and pays.
        file: File of the lines; recorded lines are not recorded again.
        weights: Keeps trained models.
        tried: The actions, without ``SKIP``.
        price: Joules per sample and per update; ``None`` if they are measured.
        exact: Whether keys are exact: see :func:`~greentrain.simulation.recorded_table.key_after`.
        on_row: Called after each new row.
        seed: Seed of the probes.
    """

    def __init__(
        self,
        model: CurrentModel,
        trainer: ModelTrainer,
        evaluator: Evaluator,
        data: StreamData,
        held_out: HeldOut,
        progress: MetricHistory,
        budget: RecordingBudget,
        *,
        file: TableFile,
        weights: WeightsFolder,
        tried: Sequence[Action],
        price: Mapping[str, float] | None,
        exact: bool,
        on_row: Callable[[RecordedRow], None],
        seed: int,
    ) -> None:
        self._model = model
        self._trainer = trainer
        self._evaluator = evaluator
        self._data = data
        self._held_out = held_out
        self._progress = progress
        self._budget = budget
        self._probe = Probe(evaluator, held_out, seed=seed)
        self._seed = seed
        self._file = file
        self._weights = weights
        self._tried = tried
        self._price = price
        self._exact = exact
        self._on_row = on_row
        self._warm = False

    def record(self, experiences: Sequence[Experience]) -> None:
        """Record every place of a stream that is not recorded yet."""
        if UNTRAINED not in self._weights:
            self._weights.save(UNTRAINED, {"state": self._model.state_dict()})
        nodes = {UNTRAINED: TableNode(key=UNTRAINED, pending=(), weights=UNTRAINED)}
        for position, given in enumerate(experiences):
            experience = judged(given, self._probe, needed=True)
            following: dict[str, TableNode] = {}
            for node in nodes.values():
                for row in self._rows(position, experience, node):
                    following.setdefault(
                        row.after, node_after(row, node, experience, exact=self._exact)
                    )
            self._held_out.add(experience)
            self._data.pending = []
            self._data.store(experience, trained=True)
            nodes = following
            if self._warm:  # not while repeating rows of an earlier process
                self._weights.keep({UNTRAINED, *(node.weights for node in nodes.values())})

    def _rows(
        self, position: int, experience: Experience, node: TableNode
    ) -> Iterator[RecordedRow]:
        """Yield the row of every action at one place, recorded earlier or trained now."""
        place = (position, node.key)
        self._data.pending = list(node.pending)
        data = self._data.gather(experience)
        done = self._file.rows.get(place, {})
        visit: _Visit | None = None
        for candidate in [Candidate(action=SKIP, steps=0), *self._candidates(data, node)]:
            row = done.get(candidate.action)
            if row is None:
                if visit is None:
                    self._load(node)
                    visit = self._visit(position, experience, data, node)
                row = self._row(visit, candidate)
                self._file.append(row)
                self._on_row(row)
            yield row

    def _candidates(self, data: UpdateData, node: TableNode) -> list[Candidate]:
        known = self._trainer.plan.candidates(
            **data.counts,
            has_model=node.key != UNTRAINED,
            keeps_data=self._data.buffer is not None,
            forgets=self._held_out.forgets,
        )
        feasible = {candidate.action.mode for candidate in known}
        return [
            Candidate(
                action=action,
                steps=self._trainer.plan.steps(action, **data.counts),
            )
            for action in self._tried
            if action.mode in feasible
        ]

    def _load(self, node: TableNode) -> None:
        self._model.load_state_dict(self._weights.load(node.weights)["state"])

    def _visit(
        self, position: int, experience: Experience, data: UpdateData, node: TableNode
    ) -> _Visit:
        """Probe the model of a place, and record the probe."""
        place, probe = (position, node.key), None
        if not self._warm:
            self._warm_up(experience, data)
        with self._budget.probe(f"a probe at {experience.id}"):
            held_out = self._held_out.with_current(experience)
            metric = self._evaluator.metric(self._model.module, held_out)
            if self._model.trained:
                self._seed_probe(f"{self._seed} {position} {node.key}")
                samples = min(PROBE_SAMPLES, 2 * data.n_new)
                probe = self._probe.run(self._model.module, experience, data.new, samples)
        if place not in self._file.probes:
            oriented, found = self._progress.oriented, dict[str, Any]()
            if probe is not None:
                found = {"loss_new": probe.new.loss}
                if probe.drift is not None:
                    found |= {"shift": probe.drift.value, "shift_by": probe.drift.measure}
            self._file.append(
                RecordedProbe(
                    position=position,
                    before=node.key,
                    metric_before=None if probe is None else oriented(probe.metric),
                    metric_new=None if probe is None else oriented(probe.new.value),
                    n_new=data.n_new,
                    n_stored=data.n_stored,
                    n_pending=data.n_new - size(experience.train),
                    **found,
                )
            )
        return _Visit(
            position=position,
            experience=experience,
            node=node,
            data=data,
            probe=probe,
            metric=metric,
        )

    def _seed_probe(self, text: str) -> None:
        """Probe the same samples, whether or not the recording was interrupted before."""
        self._probe.reseed(zlib.crc32(text.encode()))

    def _warm_up(self, experience: Experience, data: UpdateData) -> None:
        """Spend the joules that only the first training and probe of a process use."""
        candidate = Candidate(action=Action(mode=UpdateMode.FULL_RETRAIN), steps=_WARM_UP_STEPS)
        with self._budget.probe("a first training of two steps"):
            self._trainer.train(candidate, data, weights=None, position=-1)
            held_out = self._held_out.with_current(experience)
            self._evaluator.metric(self._model.module, held_out)
        self._warm = True

    def _row(self, visit: _Visit, candidate: Candidate) -> RecordedRow:
        action, probe = candidate.action, visit.probe
        position, before = visit.position, visit.node.key
        if action == SKIP:
            return RecordedRow(
                position=position,
                before=before,
                action=SKIP,
                steps=0,
                energy_j=0.0,
                samples=0,
                metric_after=self._progress.oriented(visit.metric),
                kept=True,
                after=key_after(position, before, SKIP, exact=self._exact),
            )
        trained, compared = self._trained(visit, candidate)
        gain, gain_sd, kept = None, 0.0, trained.finite
        if probe is not None and compared is not None and kept:
            found = self._progress.compare(probe.measured, compared)
            gain, gain_sd, kept = found.gain, found.sd, not found.worse
        price = self._price
        return RecordedRow(
            position=position,
            before=before,
            action=action,
            steps=trained.steps,
            energy_j=trained.energy_j if price is None else modelled_j(trained.samples, **price),
            samples=trained.samples,
            metric_after=self._progress.oriented(trained.value),
            gain=gain,
            gain_sd=gain_sd,
            kept=kept,
            after=key_after(position, before, action if kept else SKIP, exact=self._exact),
        )

    def _trained(self, visit: _Visit, candidate: Candidate) -> tuple[_Trained, Measured | None]:
        """Train, unless another place has the same training; also return the probed metric."""
        action, node = candidate.action, visit.node
        name = weights_name(visit.position, node.key, action)
        full = action.mode is UpdateMode.FULL_RETRAIN
        if full and name in self._weights:
            known = self._weights.load(name)
            return _Trained(**known["trained"]), self._measure_again(visit, known["state"])
        model, trained, compared = self._train(visit, candidate)
        usual = not self._exact and action == usual_action(node, visit.position, self._tried)
        if self._exact or full or usual:
            if trained.finite:
                self._model.keep(model, action)
            content = {"state": self._model.state_dict(), "trained": asdict(trained)}
            if self._exact or full:
                self._weights.save(name, content)
            if usual:
                self._weights.save(f"updated-{visit.position}", content)
            self._load(node)
        return trained, compared

    def _measure_again(self, visit: _Visit, state: Mapping[str, Any]) -> Measured | None:
        """Return the metric of a model that was trained before, on the samples of the probe."""
        if visit.probe is None:
            return None
        self._model.load_state_dict(state)
        with self._budget.probe(f"a comparison on {visit.experience.id}"):
            held_out = visit.probe.held_out
            measured = self._evaluator.measure_as_one(self._model.module, held_out)
        self._load(visit.node)
        return measured

    def _train(
        self, visit: _Visit, candidate: Candidate
    ) -> tuple[TrainedModel, _Trained, Measured | None]:
        budget, evaluator = self._budget, self._evaluator
        experience, probe = visit.experience, visit.probe
        purpose = f"{candidate.action} of {experience.id}"
        nan, count, steps = StopOnNan(), _Samples(), StepEnergy(budget.recorder)
        with budget.training(candidate, purpose) as payment:
            guard = BudgetGuard(
                Budget(energy_j=payment.reserved_j),
                meter=budget.recorder,
                anneal=self._trainer.anneals,
            )
            model = self._trainer.train(
                candidate,
                visit.data,
                weights=self._model.weights,
                position=visit.position,
                callbacks=[guard, steps, nan, count],
            )
            with budget.recorder.phase("validation"):
                held_out = self._held_out.with_current(experience)
                value = evaluator.metric(model.module, held_out)
                compared = None
                if probe is not None:
                    compared = evaluator.measure_as_one(model.module, probe.held_out)
        if guard.stopped:
            raise budget.exceeded(purpose, payment.reserved_j)
        if self._price is None and not payment.used.complete:
            raise MeterError(f"the meter cannot measure {purpose}; record with cost='samples'")
        budget.learn(candidate, steps, guard.steps, payment.actual_j)
        trained = _Trained(
            steps=guard.steps,
            samples=count.samples,
            energy_j=payment.actual_j,
            finite=not nan.stopped and has_finite_weights(model.module) and math.isfinite(value),
            value=value,
        )
        return model, trained, compared


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
        batch_idx: int,
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a batch whose parts differ in length
            self.samples += extract_batch_size(batch) * trainer.world_size
