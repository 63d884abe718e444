"""Monitor that is added to every Trainer if the environment requests it."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer

from greentrain.callbacks.energy_monitor import EnergyMonitor


class AutoEnergyMonitor(EnergyMonitor):
    """An :class:`EnergyMonitor` that is inactive if the Trainer already has one.

    ``GREENTRAIN_AUTO=1`` adds it to every Trainer; see :mod:`greentrain.auto`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Start to measure, unless another monitor does."""
        if not any(type(callback) is EnergyMonitor for callback in trainer.callbacks):  # type: ignore[attr-defined]
            super().setup(trainer, pl_module, stage)
