"""Base of the callbacks whose term on outputs replays samples from a reservoir."""

from __future__ import annotations

import abc
from typing import Any

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.output_term import OutputTerm
from greentrain.methods import TensorReservoir
from greentrain.units import whole_seed


class ReservoirTerm(OutputTerm, abc.ABC):
    """Add a term on stored samples to the loss: one subclass for each method.

    Each process has a reservoir for its samples. A resumed run continues with that of the first
    process.

    Args:
        capacity: Most stored samples.
        seed: Seed of the reservoir.
        unpack: Returns inputs and targets of a batch, each one tensor.
        outputs: Returns the outputs of a module for inputs.

    Attributes:
        reservoir: The stored samples.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """

    def __init__(
        self,
        capacity: int,
        *,
        seed: int = 0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(unpack=unpack, outputs=outputs)
        self.seed = whole_seed(seed)
        self.reservoir = TensorReservoir(capacity, seed=self.seed)

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Wrap the training step, and give each process a reservoir of another seed."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.global_rank and not self.reservoir.seen:
            seed = self.seed + trainer.global_rank
            self.reservoir = TensorReservoir(self.reservoir.capacity, seed=seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the reservoir."""
        return {"reservoir": self.reservoir.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the reservoir from a checkpoint."""
        self.reservoir.load_state_dict(state_dict["reservoir"])
