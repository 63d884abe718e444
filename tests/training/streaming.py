"""A stream of the small classifier, whose joules a fake clock gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pytorch_lightning import LightningModule

from greentrain import StreamTrainer
from greentrain.ledger import Ledger, verify
from tests.models import Classifier, Clock, Tick, constant_meter


def ledger_url(folder: Path) -> str:
    """Return the URL of the ledger of a :func:`open_stream` stream."""
    return f"sqlite:///{folder / 'greentrain.db'}"


def open_stream(
    folder: Path,
    make_model: Callable[[], LightningModule] = Classifier,
    *,
    clock: Clock | None = None,
    **changes,
) -> StreamTrainer:
    """Open a stream with a large budget, a ledger in a folder and 1 J for each batch."""
    clock = clock or Clock()
    arguments = {
        "budget": "1 kWh",
        "num_experiences": 10,
        "monitor": "val_acc",
        "ledger": ledger_url(folder),
        "trainer": {"max_epochs": 4, "accelerator": "cpu", "callbacks": [Tick(clock)]},
        "loader": {"batch_size": 8},
        "meter": constant_meter(clock),
        **changes,
    }
    return StreamTrainer(make_model, **arguments)


def rows(folder: Path, kind: str) -> list[dict]:
    """Return rows of its ledger, in which all follows."""
    ledger = Ledger(ledger_url(folder), create=False)
    try:
        assert verify(ledger).failures == ()
        return ledger.rows(kind)
    finally:
        ledger.close()
