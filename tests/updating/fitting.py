"""An updater of the small classifier, and one fit of it, for the tests of how an update trains."""

from __future__ import annotations

from pytorch_lightning import Callback

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.memory import concat
from greentrain.updating.material import Batch
from greentrain.updating.modes import ModeOptions
from greentrain.updating.updater import Updater
from tests.models import Classifier, blobs

NEW, STORED = blobs((0, 1), 20), blobs((2, 3), 20)
BATCH = Batch(new=NEW, stored=STORED, held=concat([NEW, STORED]))
VAL = blobs(range(4), 16, seed=9)


def updater(make_model=Classifier, *, loader=None, modes=None, monitor="val_acc", **options):
    loader = {"batch_size": 8, **(loader or {})}
    modes = {"epochs": 4, "batch_size": loader["batch_size"], **(modes or {})}
    return Updater(
        make_model,
        monitor=monitor,
        options={"accelerator": "cpu", "max_epochs": modes["epochs"], **options},
        loader=loader,
        modes=ModeOptions(**modes),
        seed=0,
    )


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
