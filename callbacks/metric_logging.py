"""Show metrics of callbacks on the progress bar, and send them to callbacks and loggers.

``LightningModule.log`` takes 0.3 ms per metric and synchronizes the processes. These metrics are
the same in every process already. As in Lightning's ``LearningRateMonitor``, they go directly to
their readers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from pytorch_lightning import Trainer

from greentrain.budget import Unit
from greentrain.callbacks.messages import warn
from greentrain.tracking import names
from greentrain.units import wh

ON_PROGRESS_BAR = frozenset({names.ENERGY_TOTAL, names.BUDGET_LEFT, names.BUDGET_LEFT_G})


def budget_metrics(used: float, cap: float, unit: Unit) -> dict[str, float]:
    """Return what is used and left of a cap, by the names of the metrics.

    Args:
        used: Amount used, in the cap's unit.
        cap: The cap.
        unit: Its unit.
    """
    left = max(0.0, cap - used)
    if unit == "J":
        return {names.BUDGET_USED: wh(used), names.BUDGET_LEFT: wh(left)}
    return {names.BUDGET_USED_G: used, names.BUDGET_LEFT_G: left}


def show(trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """Make metrics available to other callbacks, and show some on the progress bar."""
    trainer.callback_metrics.update({name: torch.tensor(v) for name, v in metrics.items()})
    trainer.progress_bar_metrics.update(
        {name: value for name, value in metrics.items() if name in ON_PROGRESS_BAR}
    )


class EpochLogger:
    """Send an epoch's metrics to every logger of a Trainer, in one call for each logger.

    The first failure causes one warning; the measurements stay in the ledger.
    """

    def __init__(self) -> None:
        self._warned = False

    def log(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """Log metrics at the step that Lightning uses at the end of an epoch."""
        step = max(trainer.global_step - 1, 0)
        for logger in trainer.loggers:
            try:
                logger.log_metrics({**metrics, "epoch": trainer.current_epoch}, step=step)
            except Exception as error:  # a failing tracking server must not stop training
                if not self._warned:
                    self._warned = True
                    warn(f"greentrain: {type(logger).__name__} rejected the metrics: {error}")
