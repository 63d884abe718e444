"""A monitor that comes by itself, where the environment asks for it."""

from __future__ import annotations

from pytorch_lightning import LightningModule, Trainer

from greentrain.callbacks.energy_monitor import EnergyMonitor


class AutoEnergyMonitor(EnergyMonitor):
    """An :class:`EnergyMonitor` that steps aside where the Trainer has one already.

    ``GREENTRAIN_AUTO=1`` adds it to every Trainer; see :mod:`greentrain.auto`.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin to measure, if nobody else does."""
        if not any(type(callback) is EnergyMonitor for callback in trainer.callbacks):  # type: ignore[attr-defined]
            super().setup(trainer, pl_module, stage)
