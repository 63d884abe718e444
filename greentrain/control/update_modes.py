"""Update modes, and the facts about each of them that several modules need."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


class UpdateMode(StrEnum):
    """Ways to update a model.

    ``SKIP`` trains nothing. ``FINE_TUNE`` continues from the last weights on new data alone.
    ``REPLAY`` continues from the last weights on batches that are half new and half stored data.
    ``WARM_START`` continues from the last weights on all data. ``FULL_RETRAIN`` starts from fresh
    weights on all data.
    """

    SKIP = "SKIP"
    FINE_TUNE = "FINE_TUNE"
    REPLAY = "REPLAY"
    WARM_START = "WARM_START"
    FULL_RETRAIN = "FULL_RETRAIN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeTraits:
    """Facts about one update mode.

    Steps are in :mod:`greentrain.control.step_plan`, loaders and weights in
    :mod:`greentrain.training`.

    Args:
        label: Name in reports.
        short_name: Name below charts and in names of policies, such as ``"always-warm"``.
        colour: Colour in charts.
        step: Number in the step plot of MLflow.
        data: Samples of a pass: ``"none"``, the ``"new"`` ones, as many stored ones with them
            (``"mixed"``), or ``"all"``.
        keeps_weights: Whether training continues from the last weights.
        prior_weights: Prior weights of the features in the gain, in the order of
            :class:`~greentrain.control.utility.UtilityModel`; empty for ``SKIP``. Their signs
            follow papers: full retraining recovers a drop (Ash & Adams 2020); a warm start and
            uniform replay recover most of it in few steps (Prabhu et al. 2023). Their sizes come
            from trainings of a 2x400 perceptron on parts of the training sets of MNIST and
            Fashion-MNIST (docs/explanation/controller.md). Fine-tuning has those of a replay, and
            recovers the whole drop: no sample contradicts the new ones. Measured gains replace
            them.
    """

    label: str
    short_name: str
    colour: str
    step: int
    data: Literal["none", "new", "mixed", "all"]
    keeps_weights: bool
    prior_weights: tuple[float, ...] = ()


UPDATE_MODES: Mapping[UpdateMode, ModeTraits] = {
    UpdateMode.SKIP: ModeTraits(
        label="Skip",
        short_name="skip",
        colour="#8a8f98",
        step=0,
        data="none",
        keeps_weights=False,
    ),
    UpdateMode.FINE_TUNE: ModeTraits(
        label="Fine-tune",
        short_name="tune",
        colour="#2b8a8a",
        step=4,
        data="new",
        keeps_weights=True,
        prior_weights=(1.0, 0.15, 0.35, -0.05, 0.0),
    ),
    UpdateMode.REPLAY: ModeTraits(
        label="Replay",
        short_name="replay",
        colour="#2f7fc1",
        step=1,
        data="mixed",
        keeps_weights=True,
        prior_weights=(0.93, 0.15, 0.35, -0.05, 0.0),
    ),
    UpdateMode.WARM_START: ModeTraits(
        label="Warm start",
        short_name="warm",
        colour="#c77700",
        step=2,
        data="all",
        keeps_weights=True,
        prior_weights=(0.93, 0.15, 0.4, -0.05, 0.0),
    ),
    UpdateMode.FULL_RETRAIN: ModeTraits(
        label="Full retrain",
        short_name="full",
        colour="#7b4fb5",
        step=3,
        data="all",
        keeps_weights=False,
        prior_weights=(0.95, 0.15, 0.26, 0.0, -0.1),
    ),
}
"""The traits of each update mode. A new mode needs a row here, its steps and its loader."""
