"""Memory-aware synapses: anchor parameters by the sensitivity of the outputs."""

from __future__ import annotations

from typing import Any

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.ewc import check_samples
from greentrain.callbacks.parameter_anchor import (
    ParameterAnchor,
    detached,
    mean_over_processes,
    measuring,
    trainable,
)
from greentrain.methods import Anchor, output_sensitivity
from greentrain.methods.anchors import accumulate


class MAS(ParameterAnchor):
    """Anchor parameters by the sensitivity of the outputs' squared norm: memory-aware synapses.

    Aljundi et al. 2018. The importance is the mean of ``|d ||f(x)||^2 / d theta|`` over samples. It
    is summed over experiences, and the reference is the last weights. Targets are not used, so it
    works for classes, for a regression and for data without labels.

    Args:
        strength: Weight of the penalty.
        samples: Samples of each experience that the importance is measured with, over all
            processes; ``None`` for all.
        unpack: Returns inputs and targets of a batch.
        outputs: Returns the outputs of a module for inputs.

    Raises:
        ConfigurationError: If an argument cannot be used.

    Example:
        >>> MAS(1.0, samples=None).most is None
        True
    """

    def __init__(
        self,
        strength: float,
        *,
        samples: int | None = 1000,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(strength, unpack=unpack, outputs=outputs)
        self.most = check_samples(samples)

    def consolidate(self, trainer: Any, pl_module: Any) -> Anchor:
        """Measure the sensitivity at the present values, and add it to the anchor."""
        named = trainable(pl_module)
        with measuring(pl_module):
            sums, count = output_sensitivity(
                lambda inputs: self.outputs(pl_module, inputs),
                named,
                self.samples(trainer, pl_module, self.most),
            )
        importance = mean_over_processes(trainer, sums, count)
        return accumulate(self.anchor, Anchor(reference=detached(named), importance=importance))
