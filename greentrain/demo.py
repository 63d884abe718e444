"""The demo: a small model that follows a changing stream of digits within an energy budget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from greentrain.budget import Budget
from greentrain.decisions.budget_arguments import check_intensity
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, file_url
from greentrain.report import build, write
from greentrain.report.document import Report
from greentrain.streams import Experience, digits_stream
from greentrain.tracking import MlflowTracker
from greentrain.training import CarbonConfig, StreamTrainer, UpdateResult

DEFAULT_BUDGET = "25 % of full"
EPOCHS = 30
BATCH_SIZE = 16


class DigitsModel(LightningModule):
    """A small perceptron for 8 x 8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
        )
        self.accuracy = MulticlassAccuracy(num_classes=10, average="micro")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(batch, 10)`` of images ``(batch, 64)``."""
        logits: torch.Tensor = self.layers(images)
        return logits

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the cross-entropy of a batch of images and labels."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Log the accuracy as ``val_acc``."""
        images, labels = batch
        self.accuracy(self(images), labels)
        self.log("val_acc", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam at a constant rate, as an update averages the weights."""
        return torch.optim.Adam(self.parameters(), lr=2e-3)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoOutcome:
    """The results and the files of a demo.

    Args:
        results: The result of each experience.
        budget: The budget, with its amount in joules.
        report: The HTML report.
        document: The report's document.
        mlflow_uri: Tracking URI of the MLflow runs.
    """

    results: Sequence[UpdateResult]
    budget: Budget
    report: Path
    document: Report
    mlflow_uri: str


def run_demo(
    out: Path,
    *,
    budget: str = DEFAULT_BUDGET,
    num_experiences: int | None = None,
    zone: str | None = None,
    seed: int = 0,
    on_begin: Callable[[Experience], None] = lambda experience: None,
    on_result: Callable[[UpdateResult, Budget], None] = lambda result, budget: None,
) -> DemoOutcome:
    """Train a small model on a stream of digits, and write ledger, MLflow runs and report.

    Args:
        out: Folder for ``greentrain.db``, ``mlflow.db``, ``report.html`` and ``report.json``.
        budget: The energy budget, as text.
        num_experiences: Experiences that the budget has to last for; by default all of the stream.
        zone: Zone of this machine's power, such as ``"DE"``; without it no grams are reported.
        seed: Seed of stream, weights and sampling.
        on_begin: Called before each experience.
        on_result: Called after each experience, with the budget as it is known then.

    Raises:
        ConfigurationError: If the budget, ``num_experiences`` or the zone cannot be used, or the
            folder cannot be written to. Nothing is written then.
    """
    stream = digits_stream(seed=seed)
    parsed = Budget.parse(
        budget, num_experiences=len(stream) if num_experiences is None else num_experiences
    )
    carbon = CarbonConfig(zone=zone)
    check_intensity(parsed, carbon.account())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"cannot use the folder {str(out)!r}: {error.strerror}") from None
    folder = out.resolve()
    torch.set_num_threads(1)  # a second thread would slow down so small a model
    quiet_mlflow()
    mlflow_uri = file_url(folder / "mlflow.db")
    ledger_url = file_url(folder / "greentrain.db")
    tracker = MlflowTracker(
        mlflow_uri,
        experiment="greentrain demo",
        artifact_location=(folder / "mlflow-artifacts").as_uri(),
    )
    with closing(Ledger(ledger_url)) as ledger:
        n_earlier = len(ledger.rows("run"))
    with StreamTrainer(
        DigitsModel,
        budget=parsed,
        monitor="val_acc",
        ledger=ledger_url,
        trainer={"max_epochs": EPOCHS, "accelerator": "auto", "devices": 1},
        loader={"batch_size": BATCH_SIZE},
        tracking_uri=tracker,
        carbon=carbon,
        name=f"demo-{n_earlier + 1}",
        seed=seed,
    ) as trainer:
        for experience in stream:
            on_begin(experience)
            on_result(trainer.update(experience), trainer.budget)
        run_id = trainer.run_id
    with closing(Ledger(ledger_url, create=False)) as ledger:
        document = build(ledger, run=run_id)
    paths = write(document, folder)
    tracker.attach(paths)
    html = next(path for path in paths if path.suffix == ".html")
    return DemoOutcome(
        results=trainer.results,
        budget=trainer.budget,
        report=html,
        document=document,
        mlflow_uri=mlflow_uri,
    )


def quiet_mlflow() -> None:
    """Hide the messages of MLflow about each table of a new database."""
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
