"""Callbacks that are added to every Trainer if the environment requests it."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer

from greentrain.callbacks.budget_guard import BudgetGuard
from greentrain.callbacks.energy_monitor import EnergyMonitor


class AutoEnergyMonitor(EnergyMonitor):
    """An :class:`EnergyMonitor` that is inactive if the Trainer already has one.

    ``GREENTRAIN_AUTO=1`` adds it to every Trainer; see :mod:`greentrain.auto`.
    """

    def on_prepare_data(self, trainer: Trainer) -> None:
        """Start to measure the preparation of data, unless another monitor does."""
        if not _has_other(trainer, EnergyMonitor, type(self)):
            super().on_prepare_data(trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to measure, unless another monitor does."""
        if not _has_other(trainer, EnergyMonitor, type(self)):
            super().setup(trainer, pl_module, stage)


class AutoBudgetGuard(BudgetGuard):
    """A :class:`BudgetGuard` that is inactive if the Trainer already has one.

    ``GREENTRAIN_AUTO=1`` with ``GREENTRAIN_CAP`` adds it to every Trainer.
    """

    @property
    def state_key(self) -> str:
        """Key of this callback's state, which differs from that of the Trainer's own guard."""
        return f"Auto{super().state_key}"

    def on_prepare_data(self, trainer: Trainer) -> None:
        """Start to measure the preparation of data, unless another guard does."""
        if not _has_other(trainer, BudgetGuard, type(self)):
            super().on_prepare_data(trainer)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to guard, unless another guard does."""
        if not _has_other(trainer, BudgetGuard, type(self)):
            super().setup(trainer, pl_module, stage)


def _has_other(trainer: Any, kind: type, automatic: type) -> bool:
    """Return whether a Trainer has a callback of a kind that is not the automatic one."""
    return any(
        isinstance(callback, kind) and not isinstance(callback, automatic)
        for callback in trainer.callbacks
    )
