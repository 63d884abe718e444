"""Whether a successor is worse than the model that it would replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytorch_lightning import LightningModule
from torch.utils.data import Dataset

from greentrain.evaluation.measured import Measured, together
from greentrain.evaluation.metric_history import MetricHistory
from greentrain.evaluation.probe import ProbeResult
from greentrain.training.updater import Updater


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a successor gained on samples that both models were measured on.

    Args:
        gain: By how much the metric got better.
        sd: Its standard error.
        worse: Whether it got worse by more than that.
    """

    gain: float
    sd: float
    worse: bool


def on_look(
    look: ProbeResult | None, model: LightningModule, *, updater: Updater, progress: MetricHistory
) -> Comparison | None:
    """Compare a successor on what was looked at; ``None`` where nothing was."""
    if look is None:
        return None
    before, after = look.measured, together(updater.measured(look.held, model))
    if _sizes(before) != _sizes(after):  # the look needed no Trainer, and the successor did
        before = together(updater.measured(look.held))
    return _compared(before, after, progress)


def on_more(
    dataset: Dataset[Any], model: LightningModule, *, updater: Updater, progress: MetricHistory
) -> Comparison:
    """Compare a successor with the current model on other samples: both are measured on them.

    What seems worse on the few samples of a look may do so by chance, and then an update is lost.
    """
    before = together(updater.measured([dataset]))
    return _compared(before, together(updater.measured([dataset], model)), progress)


def _compared(before: Measured, after: Measured, progress: MetricHistory) -> Comparison:
    gain, sd = progress.gain(before, after)
    return Comparison(gain=gain, sd=sd, worse=progress.worse(before, after))


def _sizes(measured: Measured) -> list[int]:
    return [size for size, _ in measured.blocks]
