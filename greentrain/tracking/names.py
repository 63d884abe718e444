"""The names of every metric and tag that greentrain writes; changing one is a breaking change."""

from __future__ import annotations

ENERGY_EPOCH = "energy/epoch_wh"
ENERGY_TOTAL = "energy/total_wh"
ENERGY_POWER = "energy/power_w"
ENERGY_PREFIX = "energy/"
ENERGY_UPDATE = "energy/update_wh"
ENERGY_PREDICTED = "energy/predicted_wh"
ENERGY_CUMULATIVE = "energy/cumulative_wh"

EMISSIONS_EPOCH = "emissions/epoch_g"
EMISSIONS_TOTAL = "emissions/total_g"
EMISSIONS_CUMULATIVE = "emissions/cumulative_g"

BUDGET_LEFT = "budget/left_wh"
BUDGET_PRICE = "budget/price_per_wh"
BUDGET_OVERRUN = "budget/overrun_wh"

METRIC_BEFORE = "continual/metric_before"
METRIC_AFTER = "continual/metric_after"
ANYTIME = "continual/anytime_metric"
UPDATE_MODE_STEP = "continual/update_mode"

TAG_STREAM = "greentrain.stream"
TAG_EXPERIENCE = "greentrain.experience"
TAG_UPDATE_MODE = "greentrain.update_mode"
TAG_REASON = "greentrain.reason"
TAG_LEDGER_RUN = "greentrain.ledger_run"
TAG_LEDGER_HEAD = "greentrain.ledger_head"
TAG_VERSION = "greentrain.version"
NOTE = "mlflow.note.content"

UPDATE_MODE_STEPS = {"SKIP": 0, "REPLAY": 1, "WARM_START": 2, "FULL_RETRAIN": 3}
"""The update mode as a number, for a step plot."""


def source_epoch(source: str) -> str:
    """Return the name of one source's energy per epoch: ``gpu:0`` gives ``energy/gpu_0_epoch_wh``.

    Example:
        >>> source_epoch("gpu:0")
        'energy/gpu_0_epoch_wh'
    """
    return f"{ENERGY_PREFIX}{source.replace(':', '_')}_epoch_wh"
