"""Continue a fit from a checkpoint as if it had not been interrupted."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pytorch_lightning import LightningModule, Trainer

from greentrain.callbacks.base import Callback
from greentrain.callbacks.messages import warn
from greentrain.callbacks.random_states import collect_states, restore_states
from greentrain.callbacks.ranks import gather
from greentrain.callbacks.resume_point import (
    ResumePoint,
    begin,
    find_point,
    mend,
    monitored,
    validation_is_due,
)
from greentrain.errors import ConfigurationError

_ON_INEXACT = ("raise", "warn")


class ExactResume(Callback):
    """Make a fit that continues from a checkpoint end with the weights of an uninterrupted one.

    Add it to the Trainer of the first fit and of the one that continues it. It adds to every
    checkpoint what Lightning leaves out: the random states of all processes, the values that
    schedulers monitor, and the exact point of the fit. Lightning's own ``ModelCheckpoint`` saves,
    and ``ckpt_path=`` loads. A checkpoint within an epoch needs :func:`resumable_loader`; any
    loader of Lightning continues exactly at the ends of epochs.

    The weights have the same bits on the same machine with the same packages. A GPU needs
    ``Trainer(deterministic=True)`` as well. Averages of a metric over a continued epoch are of its
    rest, because Lightning saves no sums.

    A validation leaves the random states of training unchanged.

    Args:
        on_inexact: ``"raise"`` refuses a checkpoint from which the fit cannot continue exactly.
            ``"warn"`` continues with a warning, as Lightning does.

    Attributes:
        inexact: The reason for which the fit did not continue exactly; empty if it did.

    Raises:
        ConfigurationError: If ``on_inexact`` is not allowed. Also in ``setup``, if Lightning is
            older than 2.5. Also as a fit is continued, if the checkpoint was saved without this
            callback, by another number of processes, or at a point that is not exact.

    Example:
        >>> from pytorch_lightning import Trainer
        >>> from pytorch_lightning.callbacks import ModelCheckpoint
        >>> every = ModelCheckpoint(every_n_train_steps=100, save_last=True)
        >>> trainer = Trainer(callbacks=[ExactResume(), every], logger=False, accelerator="cpu")
        >>> # trainer.fit(model, resumable_loader(dataset, 32), ckpt_path="last")
    """

    def __init__(self, *, on_inexact: Literal["raise", "warn"] = "raise") -> None:
        if on_inexact not in _ON_INEXACT:
            raise ConfigurationError(
                f"ExactResume(on_inexact={on_inexact!r}) is not allowed; choose one of "
                f"{_ON_INEXACT}"
            )
        self.on_inexact = on_inexact
        self.inexact = ""
        self._resumed: dict[str, Any] | None = None
        self._to_restore: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None
        self._warned = False

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return "ExactResume"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Move to the front, so that random states are restored before other callbacks use them."""
        if stage != "fit":
            return
        if not hasattr(trainer.fit_loop, "restarted_mid_epoch"):
            raise ConfigurationError(
                "ExactResume needs pytorch-lightning 2.5 or later; update the package"
            )
        if sum(isinstance(each, ExactResume) for each in trainer.callbacks) > 1:  # type: ignore[attr-defined]
            raise ConfigurationError("this Trainer has two ExactResume callbacks; remove one")
        others = [each for each in trainer.callbacks if each is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [self, *others]  # type: ignore[attr-defined]
        self._resumed = self._to_restore = self._before_validation = None
        self.inexact, self._warned = "", False

    def point(self, trainer: Trainer) -> ResumePoint:
        """Return the present point of the fit, and whether it can continue exactly from there."""
        return find_point(trainer)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the point of the fit and the random states of all processes."""
        if trainer.state.fn != "fit":
            return
        point = find_point(trainer)
        if point.inexact and not self._warned:
            self._warned = True
            warn(f"ExactResume: this checkpoint does not continue exactly: {point.inexact}")
        own = self._before_validation or self._to_restore
        states = own or collect_states(pl_module.device)
        checkpoint.setdefault("callbacks", {})[self.state_key] = {
            "point": point.as_dict(),
            "states": gather(states),
            "metrics": monitored(trainer),
        }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Correct the counters of the loops, or refuse a checkpoint that is not exact."""
        if trainer.state.fn != "fit" or "loops" not in checkpoint:
            return
        saved = checkpoint.get("callbacks", {}).get(self.state_key)
        reason = _reason(saved, trainer.world_size)
        if reason:
            self._refuse(reason)
        if saved is None:
            return
        self._resumed = saved
        mend(checkpoint, ResumePoint(**saved["point"]))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Continue from the point of the checkpoint."""
        if self._resumed is None:
            return
        saved, self._resumed = self._resumed, None
        trainer.callback_metrics.update(
            {name: value.to(pl_module.device) for name, value in saved["metrics"].items()}
        )
        begin(trainer, ResumePoint(**saved["point"]))
        states = saved["states"]
        if len(states) == trainer.world_size:
            self._to_restore = states[trainer.global_rank]
            restore_states(self._to_restore, pl_module.device)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states again, as ``on_train_start`` of others may use them."""
        self._restore(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Restore the random states again, in an epoch that was continued."""
        self._before_validation = None
        self._restore(pl_module.device)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Keep the random states if a validation follows: its loaders use them early."""
        if validation_is_due(trainer):
            self._before_validation = collect_states(pl_module.device)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore the random states that were before the validation."""
        if trainer.sanity_checking:
            return
        if self._before_validation is not None:
            restore_states(self._before_validation, pl_module.device)
            self._before_validation = None
        else:
            self._restore(pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End what was special about an epoch that was continued."""
        self._before_validation = None
        trainer.fit_loop.epoch_loop.restarting = False  # still set if no batch was left

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the states of the fit."""
        self._resumed = self._to_restore = self._before_validation = None

    def _restore(self, device: torch.device) -> None:
        if self._to_restore is not None:
            restore_states(self._to_restore, device)
            self._to_restore = None

    def _refuse(self, reason: str) -> None:
        self.inexact = reason
        if self.on_inexact == "raise":
            raise ConfigurationError(
                f"the fit cannot continue exactly from this checkpoint: {reason}. Choose another "
                "checkpoint, or ExactResume(on_inexact='warn') to continue nevertheless"
            )
        warn(f"ExactResume: the fit does not continue exactly: {reason}")


def _reason(saved: dict[str, Any] | None, processes: int) -> str:
    if saved is None:
        return "it was saved without ExactResume, and has no random states"
    if len(saved["states"]) != processes:
        return f"{len(saved['states'])} process(es) saved it, and {processes} continue"
    return str(saved["point"]["inexact"])
