"""An updater of the small classifier, one fit of it, and what looking at it takes."""

from __future__ import annotations

from pytorch_lightning import Callback

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.memory import concat
from greentrain.training.data import UpdateData
from greentrain.training.modes import ModeConfig
from greentrain.training.updater import Updater
from tests.models import Classifier, Clock, blobs

NEW, STORED = blobs((0, 1), 20), blobs((2, 3), 20)
BATCH = UpdateData(new=NEW, stored=STORED, held=concat([NEW, STORED]))
VAL = blobs(range(4), 16, seed=9)


def updater(make_model=Classifier, *, loader=None, modes=None, monitor="val_acc", **options):
    loader = {"batch_size": 8, **(loader or {})}
    modes = {"epochs": 4, "batch_size": loader["batch_size"], **(modes or {})}
    return Updater(
        make_model,
        monitor=monitor,
        options={"accelerator": "cpu", "max_epochs": modes["epochs"], **options},
        loader=loader,
        modes=ModeConfig(**modes),
        seed=0,
    )


LOOK_S = 1 / 8192
"""What looking at a sample takes: at 100 W, a tenth of what training on it does at 1 J a batch."""


def timed(clock: Clock, base: type[Classifier] = Classifier) -> type[Classifier]:
    """Return a class of models at which looking takes its time, with a Trainer and without."""

    class Timed(base):
        def validation_step(self, batch, batch_idx):
            clock.seconds += LOOK_S * len(batch[1])
            super().validation_step(batch, batch_idx)

    return Timed


class Note(Callback):
    """Note how far each batch brings the fit, and which samples it holds."""

    def __init__(self):
        self.batches = []
        self.trainer = None

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.trainer = trainer
        self.batches.append(batch)


def train(updating, *, mode=UpdateMode.FULL_RETRAIN, steps=None, batch=BATCH, callbacks=()):
    """Train for the usual number of steps, and return the model and what was noted."""
    action = Action(mode=mode)
    usual = updating.modes.steps(
        action, n_new=batch.n_new, n_stored=batch.n_stored, n_held=batch.n_held
    )
    note = Note()
    candidate = Candidate(action=action, steps=steps or usual)
    model = updating.train(candidate, batch, position=0, callbacks=[note, *callbacks])
    return model, note
