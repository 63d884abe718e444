"""Elastic weight consolidation: anchor parameters by their Fisher information."""

from __future__ import annotations

from typing import Any

import torch

from greentrain.callbacks.batch_parts import Outputs, Unpack
from greentrain.callbacks.parameter_anchor import (
    ParameterAnchor,
    detached,
    mean_over_processes,
    measuring,
    number_from,
    trainable,
)
from greentrain.errors import ConfigurationError
from greentrain.methods import Anchor, squared_gradients
from greentrain.methods.anchors import accumulate, merge
from greentrain.methods.importance import Likelihood, Outcomes, check_choice
from greentrain.units import is_whole, whole_seed


class EWC(ParameterAnchor):
    """Anchor parameters by the diagonal of their Fisher information: EWC and online EWC.

    EWC (Kirkpatrick et al. 2017) has one quadratic for each experience. They are kept as the one
    quadratic that is their sum, so memory does not grow. Online EWC (Schwarz et al. 2018) has one
    reference, the last weights, and decays the information of earlier experiences.

    Args:
        strength: Weight of the penalty.
        decay: Factor of the earlier information in each experience, in (0, 1], for online EWC;
            ``None`` for EWC.
        samples: Samples of each experience that the information is measured with, over all
            processes; ``None`` for all.
        likelihood: ``"categorical"`` for logits of classes, ``"gaussian"`` for a regression.
        outcomes: Outcomes that the information is an expectation over: see
            :func:`~greentrain.methods.squared_gradients`.
        seed: Seed of the sampled outcomes.
        unpack: Returns inputs and targets of a batch.
        outputs: Returns the outputs of a module for inputs.

    Raises:
        ConfigurationError: If an argument cannot be used. At the end of a fit, if the targets are
            none of the likelihood.

    Example:
        >>> EWC(1e3).decay, EWC(1e3, decay=0.9).decay
        (None, 0.9)
    """

    def __init__(
        self,
        strength: float,
        *,
        decay: float | None = None,
        samples: int | None = 1000,
        likelihood: Likelihood = "categorical",
        outcomes: Outcomes = "sampled",
        seed: int = 0,
        unpack: Unpack | None = None,
        outputs: Outputs | None = None,
    ) -> None:
        super().__init__(strength, unpack=unpack, outputs=outputs)
        if decay is not None and number_from(decay, "decay", lowest=0.0, above=True) > 1:
            raise ConfigurationError(f"decay is {decay!r}; it must be above 0, and at most 1")
        check_choice(likelihood, Likelihood, "likelihood")
        check_choice(outcomes, Outcomes, "outcomes")
        if likelihood == "gaussian" and outcomes == "all":
            raise ConfigurationError(
                "a Gaussian has more outcomes than can be listed; give outcomes='sampled'"
            )
        self.decay = decay
        self.most = check_samples(samples)
        self.likelihood, self.outcomes = likelihood, outcomes
        self.seed = whole_seed(seed)

    def consolidate(self, trainer: Any, pl_module: Any) -> Anchor:
        """Measure the Fisher information at the present values, and add it to the anchor."""
        named = trainable(pl_module)
        generator = torch.Generator().manual_seed((self.seed + trainer.global_rank) % 2**63)
        with measuring(pl_module):
            sums, count = squared_gradients(
                lambda inputs: self.outputs(pl_module, inputs),
                named,
                self.samples(trainer, pl_module, self.most),
                likelihood=self.likelihood,
                outcomes=self.outcomes,
                generator=generator,
            )
        fisher = mean_over_processes(trainer, sums, count)
        new = Anchor(reference=detached(named), importance=fisher)
        if self.decay is None:
            return merge(self.anchor, new)
        return accumulate(self.anchor, new, decay=self.decay)


def check_samples(samples: object) -> int | None:
    """Return a number of samples; ``None`` for all.

    Raises:
        ConfigurationError: If it is no whole number of 1 or more.
    """
    if samples is not None and not is_whole(samples, 1):
        raise ConfigurationError(
            f"samples is {samples!r}; it must be a whole number from 1 on, or None for all"
        )
    return None if samples is None else int(samples)
