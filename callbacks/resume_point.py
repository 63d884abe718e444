"""Find at which point of a fit a checkpoint is saved, and make Lightning continue from it.

Lightning restores its loops by comparing counters. At some points this repeats or leaves out work:

- after the last batch of an epoch, the epoch's validation and its end are left out;
- after a batch that a validation follows, this validation is left out;
- at the end of an epoch, ``ReduceLROnPlateau`` is left out, the next epoch has the order of the
  first one, and with ``max_steps`` the epoch is counted twice;
- within an epoch, ``ReduceLROnPlateau`` is left out at its end.

The functions here save what is missing, correct the counters of a loaded checkpoint, and set the
loops so that the fit goes on as if it had not ended. They use private attributes of Lightning,
which ``tests/callbacks/test_exact_resume.py`` covers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader

from greentrain.callbacks.exact_loader import ResumableLoader

Kind = Literal["start", "epoch start", "step", "validation", "epoch end", "within a step"]

_WITHIN_STEP = "it was saved in the middle of a step or a validation"
_ACCUMULATING = "it was saved between two optimizer steps, and holds no accumulated gradients"
_STOPPED = "it was saved after the fit was stopped within an epoch, whose rest is left out"
_AFTER_HOOK = (
    "the model's on_train_batch_end runs after the checkpoint is saved, and is not repeated; move "
    "its work into a callback, or save at the ends of epochs"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumePoint:
    """The point of a fit at which a checkpoint is saved.

    Args:
        kind: The point.
        inexact: The reason for which a fit does not continue exactly from it; empty if it does.
        last: Whether the batch is the last of its epoch.
        validates: Whether a validation follows.
        completed: Whether the end of the epoch is completed, schedulers included.
    """

    kind: Kind
    inexact: str = ""
    last: bool = False
    validates: bool = False
    completed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)


def find_point(trainer: Any) -> ResumePoint:
    """Return the present point of a fit."""
    epoch = trainer.fit_loop.epoch_progress.current
    batch = trainer.fit_loop.epoch_loop.batch_progress.current
    if epoch.ready == epoch.processed:
        if not epoch.ready:
            return ResumePoint(kind="start")
        return _epoch_end(trainer, completed=epoch.completed == epoch.processed)
    if epoch.started == epoch.processed:
        return ResumePoint(kind="epoch start", inexact=persistent_reason(trainer))
    if not (batch.ready == batch.started == batch.processed) or not batch.ready:
        return ResumePoint(kind="within a step", inexact=_WITHIN_STEP)
    if batch.completed == batch.processed:
        return _after_step(trainer, "validation")
    return _after_step(trainer, "step")


def mend(checkpoint: dict[str, Any], point: ResumePoint) -> None:
    """Correct the counters of a loaded checkpoint, before Lightning restores its loops."""
    loops = checkpoint["loops"]["fit_loop"]
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]
    if point.kind == "step" and (point.validates or point.last):
        for counts in (batches["total"], batches["current"]):
            counts["completed"] = counts["processed"]
        if point.validates:  # the counters by which Lightning runs an interrupted validation
            validation = loops["epoch_loop.val_loop.batch_progress"]
            for counts in (validation["total"], validation["current"]):
                counts.update(ready=1, started=1, processed=0, completed=0)
        else:
            loops["epoch_loop.state_dict"]["_batches_that_stepped"] += 1
    elif point.kind in ("epoch end", "epoch start"):
        for counts in (epochs["total"], epochs["current"]):
            done = counts["processed"]
            counts.update(ready=done, started=done, completed=done)


def begin(trainer: Any, point: ResumePoint) -> None:
    """Set the restored loops so that the fit goes on at a point; called in ``on_train_start``."""
    fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    if point.kind in ("epoch end", "epoch start", "start"):
        # As after an epoch of this process: the iterator is made again, and nothing is skipped.
        fit_loop._restarting = fit_loop._resuming_from_checkpoint = False
        fit_loop._loaded_from_state_dict = False
        epoch_loop.restarting = False
        for loop in (fit_loop, epoch_loop, epoch_loop.val_loop):
            loop.reset_restart_stage()
        if point.kind == "epoch end" and not point.completed:
            current = fit_loop.epoch_progress.current
            current.completed -= 1  # schedulers count from the epoch that ends
            epoch_loop.update_lr_schedulers("epoch", update_plateau_schedulers=True)
            current.completed += 1
        return
    fit_loop._restarting = False  # else the end of this epoch would leave out schedulers
    _skip_second_saving(trainer)
    if point.kind != "step":
        return
    if point.validates:
        epoch_loop.val_loop.batch_progress.total.reset()
    else:
        epoch_loop.update_lr_schedulers("step", update_plateau_schedulers=True)
        if point.last:
            epoch_loop.val_loop._has_run = True  # none is due: the epoch loop is done


def _skip_second_saving(trainer: Any) -> None:
    """Make ``ModelCheckpoint`` save once at a step, although it does not store where it saved.

    It would save again after the next batch, between two optimizer steps.
    """
    if trainer.accumulate_grad_batches > 1:
        for callback in trainer.checkpoint_callbacks:
            if getattr(callback, "_every_n_train_steps", 0):
                callback._last_global_step_saved = trainer.global_step


def train_loaders(trainer: Any) -> list[Any]:
    """Return the training loaders of a fit."""
    combined = trainer.fit_loop._combined_loader
    return [] if combined is None else list(combined.flattened)


def loader_reason(trainer: Any) -> str:
    """Return why a fit cannot continue within an epoch; empty if its loaders can."""
    for loader in train_loaders(trainer):
        stateful = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
        if not stateful:
            return (
                f"it was saved within an epoch, and the train loader is a {type(loader).__name__}, "
                "which begins its epoch again; use greentrain.callbacks.resumable_loader, or save "
                "at the ends of epochs"
            )
    return persistent_reason(trainer)


def persistent_reason(trainer: Any) -> str:
    """Return why a fit cannot continue after an epoch; empty if its loaders can."""
    for loader in train_loaders(trainer):
        foreign = isinstance(loader, DataLoader) and not isinstance(loader, ResumableLoader)
        if foreign and loader.persistent_workers:
            return (
                "the train loader has persistent_workers=True, and their random states are in no "
                "checkpoint; use greentrain.callbacks.resumable_loader, or persistent_workers=False"
            )
    return ""


def validation_is_due(trainer: Any) -> bool:
    """Return whether a validation follows the present batch."""
    loop = trainer.fit_loop.epoch_loop
    return bool(
        trainer.enable_validation
        and trainer.fit_loop._data_fetcher is not None
        and loop._should_check_val_fx(trainer.fit_loop._data_fetcher)
    )


def monitored(trainer: Any) -> dict[str, torch.Tensor]:
    """Return the logged values that schedulers and checkpoints monitor, on the CPU."""
    return {
        str(name): value.detach().cpu().clone()
        for name, value in trainer.callback_metrics.items()
        if isinstance(value, torch.Tensor)
    }


def _epoch_end(trainer: Any, *, completed: bool) -> ResumePoint:
    whole = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
    inexact = persistent_reason(trainer) if whole else _STOPPED
    return ResumePoint(kind="epoch end", inexact=inexact, completed=completed)


def _after_step(trainer: Any, kind: Literal["step", "validation"]) -> ResumePoint:
    loop = trainer.fit_loop.epoch_loop
    last = bool(loop._num_ready_batches_reached())
    return ResumePoint(
        kind=kind,
        inexact=next(filter(None, _reasons(trainer, kind, last=last)), ""),
        last=last,
        validates=kind == "step" and validation_is_due(trainer),
    )


def _reasons(trainer: Any, kind: str, *, last: bool) -> Iterator[str]:
    loop = trainer.fit_loop.epoch_loop
    if kind == "validation" and not _validated(loop.val_loop):
        yield _WITHIN_STEP
    if loop._should_accumulate():
        yield _ACCUMULATING
    hook = type(trainer.lightning_module).on_train_batch_end
    if kind == "step" and not hook.__module__.endswith(".core.hooks"):
        yield _AFTER_HOOK
    yield persistent_reason(trainer) if last else loader_reason(trainer)


def _validated(loop: Any) -> bool:
    progress = loop.batch_progress
    return bool(progress.is_last_batch and progress.current.completed == progress.current.ready)
