"""Train on a stream by the published protocols, with greentrain's model trainer.

The protocols fix when and how long to train, so there is no controller, budget, meter or annealing.
An update's optimizer starts without moments; van de Ven's optimizer keeps them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pytorch_lightning import Callback, LightningModule
from torch.utils.data import Dataset

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.evaluation.evaluator import Evaluator
from greentrain.memory import Buffer, SampleList, size
from greentrain.metrics import AccuracyMatrix
from greentrain.streams import Experience
from greentrain.training.config import ModeConfig
from greentrain.training.data import UpdateData
from greentrain.training.fit import ModelTrainer

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
WARM = Action(mode=UpdateMode.WARM_START)
REPLAY = Action(mode=UpdateMode.REPLAY)

Make = Callable[[], LightningModule]


def trainer_of(
    make: Make, *, batch_size: int, seed: int, drop_last: bool = False, **options: object
) -> ModelTrainer:
    """Return a model trainer with only the features that the protocols have.

    Args:
        make: Returns a model with fresh weights.
        batch_size: Samples in a batch.
        seed: Seed of weights and order.
        drop_last: Whether to skip a last batch that is not full.
        options: Further options of each Trainer.
    """
    return ModelTrainer(
        make,
        options={"max_epochs": 1, "accelerator": "cpu", **options},
        loader={"batch_size": batch_size, "drop_last": drop_last},
        modes=ModeConfig(),
        seed=seed,
    )


def learn(
    stream: Sequence[Experience],
    buffer: Buffer | None,
    make: Callable[[int], LightningModule],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    callbacks: Sequence[Callback] = (),
) -> torch.Tensor:
    """Train on one experience after another from the last weights, and measure all so far.

    With a buffer, each batch after the first experience has as many stored samples as new ones:
    experience replay. Without a buffer, this is fine-tuning.

    Args:
        stream: The experiences.
        buffer: Buffer of past samples.
        make: Returns a model with fresh weights for the experience at a position.
        steps: Steps on each experience.
        batch_size: New samples in a batch.
        seed: Seed of weights and order.
        callbacks: Callbacks of each fit.

    Returns:
        The accuracies on their test data, ``(experiences, experiences)``.
    """
    matrix = AccuracyMatrix()
    model: LightningModule | None = None
    for position, experience in enumerate(stream):
        stored: Dataset[object] = SampleList([]) if buffer is None else buffer.select(_all)
        action = FULL if model is None else REPLAY if size(stored) else WARM
        whole = 2 * batch_size if action is REPLAY else batch_size
        trainer = trainer_of(
            lambda at=position: make(at), batch_size=whole, seed=seed, drop_last=True
        )
        model = trainer.train(
            Candidate(action=action, steps=steps),
            UpdateData(new=experience.train, stored=stored, held=experience.train),
            weights=None if model is None else model.state_dict(),
            position=position,
            callbacks=callbacks,
        ).module
        if buffer is not None:
            buffer.add(experience.train, origin=experience.id)
        measure(model, stream[: position + 1], matrix, batch_size=whole)
    return matrix.compute()


def retrain(
    stream: Sequence[Experience],
    buffer: Buffer,
    make: Make,
    *,
    passes: float | None = None,
    steps: int | None = None,
    batch_size: int,
    seed: int,
    **options: object,
) -> torch.Tensor:
    """Store a stream in a buffer, and train once from fresh weights at the end of the stream.

    Args:
        stream: The experiences.
        buffer: Buffer of the samples.
        make: Returns a model with fresh weights.
        passes: Passes over the stored samples, unless ``steps`` is given.
        steps: Steps.
        batch_size: Samples in a batch.
        seed: Seed of weights and order.
        options: Further options of the Trainer.

    Returns:
        The accuracies on their test data, with only the last row measured.
    """
    for experience in stream:
        buffer.add(experience.train, origin=experience.id)
    held = buffer.select(_all)
    if steps is None:
        steps = round((passes or 1) * -(-size(held) // batch_size))
    trainer = trainer_of(make, batch_size=batch_size, seed=seed, **options)
    model = trainer.train(
        Candidate(action=FULL, steps=steps),
        UpdateData(new=stream[-1].train, stored=held, held=held),
        weights=None,
        position=len(stream) - 1,
    ).module
    matrix = AccuracyMatrix()
    measure(model, stream, matrix, batch_size=batch_size)
    return matrix.compute()


def measure(
    model: LightningModule,
    learned: Sequence[Experience],
    matrix: AccuracyMatrix,
    *,
    batch_size: int,
) -> None:
    """Measure a model on the test data, where it exists, of each experience so far."""
    evaluator = Evaluator(
        monitor="val_acc", options={"accelerator": "cpu"}, loader={"batch_size": batch_size}
    )
    for on, experience in enumerate(learned):
        if experience.test is not None:
            value = evaluator.metric(model, experience.test)
            matrix.update(after=len(learned) - 1, on=on, value=value)


def _all(origin: str) -> bool:
    return True
