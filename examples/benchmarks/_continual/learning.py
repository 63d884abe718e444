"""How the protocols learn a stream: with greentrain's own updater, at steps that they prescribe.

The controller has no part in them, as the protocols fix when and how long to train: no budget, no
meter and no annealing. An update's optimizer starts without moments, where van de Ven's goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from pytorch_lightning import Callback, LightningModule
from torch.utils.data import Dataset

from greentrain.control import Action, Candidate, UpdateMode
from greentrain.memory import Buffer, SampleList, size
from greentrain.metrics import AccuracyMatrix
from greentrain.streams import Experience
from greentrain.training.data import Batch
from greentrain.training.modes import ModeConfig
from greentrain.training.updater import Updater

FULL = Action(mode=UpdateMode.FULL_RETRAIN)
WARM = Action(mode=UpdateMode.WARM_START)
REPLAY = Action(mode=UpdateMode.REPLAY)

Make = Callable[[], LightningModule]


def updater(
    make: Make, *, batch_size: int, seed: int, drop_last: bool = False, **options: object
) -> Updater:
    """Return an updater without anything that the protocols do not have.

    Args:
        make: Returns a model with fresh weights.
        batch_size: Samples in a batch.
        seed: Seed of weights and order.
        drop_last: Whether to leave out a last batch that is not full.
        options: Further options of each Trainer.
    """
    return Updater(
        make,
        monitor="val_acc",
        options={"max_epochs": 1, "accelerator": "cpu", **options},
        loader={"batch_size": batch_size, "drop_last": drop_last},
        modes=ModeConfig(epochs=1, batch_size=batch_size),
        seed=seed,
    )


def learn(
    stream: Sequence[Experience],
    memory: Buffer | None,
    make: Callable[[int], LightningModule],
    *,
    steps: int,
    batch_size: int,
    seed: int,
    callbacks: Sequence[Callback] = (),
) -> torch.Tensor:
    """Learn experience after experience from the last weights, and measure all that were learned.

    With a memory each later batch is as many new samples again of stored ones, experience replay;
    without, this is fine-tuning.

    Args:
        stream: The experiences.
        memory: What is kept of past samples.
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
        stored: Dataset[object] = SampleList([]) if memory is None else memory.select(_all)
        action = FULL if model is None else REPLAY if size(stored) else WARM
        whole = 2 * batch_size if action is REPLAY else batch_size
        updates = updater(lambda at=position: make(at), batch_size=whole, seed=seed, drop_last=True)
        if model is not None:
            updates.keep(model, action)
        model = updates.train(
            Candidate(action=action, steps=steps),
            Batch(new=experience.train, stored=stored, held=experience.train),
            position=position,
            callbacks=callbacks,
        )
        if memory is not None:
            memory.add(experience.train, origin=experience.id)
        look(updates, model, stream[: position + 1], matrix)
    return matrix.compute()


def retrain(
    stream: Sequence[Experience],
    memory: Buffer,
    make: Make,
    *,
    passes: float | None = None,
    steps: int | None = None,
    batch_size: int,
    seed: int,
    **options: object,
) -> torch.Tensor:
    """Keep what memory keeps of a stream, and train once, from fresh weights, at its end.

    Args:
        stream: The experiences.
        memory: What is kept.
        make: Returns a model with fresh weights.
        passes: Passes over what is kept; or
        steps: Steps.
        batch_size: Samples in a batch.
        seed: Seed of weights and order.
        options: Further options of the Trainer.

    Returns:
        The accuracies on their test data, of which only the last row is known.
    """
    for experience in stream:
        memory.add(experience.train, origin=experience.id)
    held = memory.select(_all)
    if steps is None:
        steps = round((passes or 1) * -(-size(held) // batch_size))
    updates = updater(make, batch_size=batch_size, seed=seed, **options)
    model = updates.train(
        Candidate(action=FULL, steps=steps),
        Batch(new=stream[-1].train, stored=held, held=held),
        position=len(stream) - 1,
        callbacks=[],
    )
    matrix = AccuracyMatrix()
    look(updates, model, stream, matrix)
    return matrix.compute()


def look(
    updates: Updater,
    model: LightningModule,
    learned: Sequence[Experience],
    matrix: AccuracyMatrix,
) -> None:
    """Measure a model on the test data of each experience that it has learned, if there are any."""
    for on, experience in enumerate(learned):
        if experience.test is None:
            continue
        value = updates.measure(experience.test, model)
        matrix.update(after=len(learned) - 1, on=on, value=value)


def _all(origin: str) -> bool:
    return True
