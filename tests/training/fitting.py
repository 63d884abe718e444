"""A stream's model, trainer and evaluator for the small classifier, and one fit of it."""

from __future__ import annotations

from pytorch_lightning import Callback, LightningModule

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.evaluation.evaluator import Evaluator
from greentrain.memory import concat
from greentrain.training.config import ModeConfig
from greentrain.training.data import UpdateData
from greentrain.training.fit import ModelTrainer, TrainedModel, trainer_options
from greentrain.training.stream_state import CurrentModel
from tests.models import Classifier, Clock, blobs

NEW, STORED = blobs((0, 1), 20), blobs((2, 3), 20)
DATA = UpdateData(new=NEW, stored=STORED, held=concat([NEW, STORED]))
VAL = blobs(range(4), 16, seed=9)

PROBE_S = 1 / 8192
"""Seconds of evaluating a sample: at 100 W, a tenth of training on it at 1 J a batch."""


class Parts:
    """The current model, its trainer and its evaluator, as a stream has them."""

    def __init__(self, make_model, *, loader, modes, monitor, **options):
        options = trainer_options({"accelerator": "cpu", "max_epochs": 4, **options})
        self.trainer = ModelTrainer(
            make_model,
            options=options,
            loader={"batch_size": 8, **(loader or {})},
            modes=ModeConfig(**(modes or {})),
            seed=0,
        )
        self.plan = self.trainer.plan
        self.current = CurrentModel(self.trainer.fresh_model)
        self.evaluator = Evaluator(monitor=monitor, options=options, loader=self.trainer.loader)
        self._trained: TrainedModel | None = None

    @property
    def model(self) -> LightningModule:
        return self.current.module

    def train(self, candidate, data=DATA, *, position=0, callbacks=(), logger=None):
        """Train a successor, and return its module."""
        self._trained = self.trainer.train(
            candidate,
            data,
            weights=self.current.weights,
            position=position,
            callbacks=callbacks,
            logger=logger,
        )
        return self._trained.module

    def keep(self, module, action) -> None:
        """Make a module the current model."""
        trained = self._trained
        if trained is None or trained.module is not module:
            trained = TrainedModel(module=module)
        self.current.keep(trained, action)

    def metric(self, dataset, model=None) -> float:
        return self.evaluator.metric(self.model if model is None else model, dataset)

    def measure(self, datasets, model=None, **options):
        return self.evaluator.measure(self.model if model is None else model, datasets, **options)


def parts(make_model=Classifier, *, loader=None, modes=None, monitor="val_acc", **options) -> Parts:
    return Parts(make_model, loader=loader, modes=modes, monitor=monitor, **options)


class Note(Callback):
    """Note the batches of a fit, and its Trainer."""

    def __init__(self):
        self.batches = []
        self.trainer = None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.trainer = trainer
        self.batches.append(batch)


def timed(clock: Clock, base: type[Classifier] = Classifier) -> type[Classifier]:
    """Return a class of models whose evaluation takes time, with a Trainer and without."""

    class Timed(base):
        def validation_step(self, batch, batch_idx):
            clock.seconds += PROBE_S * len(batch[1])
            super().validation_step(batch, batch_idx)

    return Timed


def train(updating: Parts, *, mode=UpdateMode.FULL_RETRAIN, steps=None, data=DATA, callbacks=()):
    """Train for the usual number of steps, and return the model and the notes."""
    action = Action(mode=mode)
    usual = updating.plan.steps(action, **data.counts)
    note = Note()
    candidate = Candidate(action=action, steps=steps or usual)
    model = updating.train(candidate, data, callbacks=[note, *callbacks])
    return model, note
