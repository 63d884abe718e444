"""Names of every metric and tag that greentrain writes; changing one is a breaking change."""

from __future__ import annotations

ENERGY_EPOCH = "energy/epoch_wh"
ENERGY_TOTAL = "energy/total_wh"
ENERGY_POWER = "energy/power_w"
ENERGY_PREFIX = "energy/"
SAMPLES_PER_J = "energy/samples_per_j"
ENERGY_PREDICTED_TOTAL = "energy/predicted_total_wh"
ENERGY_PREDICTED_LOW = "energy/predicted_total_low_wh"
ENERGY_PREDICTED_HIGH = "energy/predicted_total_high_wh"
ENERGY_UPDATE = "energy/update_wh"
ENERGY_EXPERIENCE = "energy/experience_wh"
ENERGY_PREDICTED = "energy/predicted_wh"
ENERGY_PROJECTED = "energy/projected_wh"
COST_ERROR = "energy/prediction_error"
ENERGY_CUMULATIVE = "energy/cumulative_wh"
ENERGY_BASELINE = "energy/baseline_wh"
ENERGY_AVOIDED = "energy/avoided_modelled_wh"
ENERGY_AVOIDED_EACH = "energy/avoided_each_wh"

EMISSIONS_EPOCH = "emissions/epoch_g"
EMISSIONS_TOTAL = "emissions/total_g"
EMISSIONS_UPDATE = "emissions/update_g"
EMISSIONS_CUMULATIVE = "emissions/cumulative_g"

BUDGET_LEFT = "budget/left_wh"
BUDGET_LEFT_G = "budget/left_g"
BUDGET_USED = "budget/used_wh"
BUDGET_USED_G = "budget/used_g"
BUDGET_MIN_GAIN = "budget/min_gain_per_wh"
BUDGET_OVERRUN = "budget/overrun_wh"

METRIC_BEFORE = "continual/metric_before"
METRIC_AFTER = "continual/metric_after"
METRIC_BASELINE = "continual/baseline_metric"
ANYTIME = "continual/anytime_metric"
AVERAGE = "continual/average_metric"
FORGETTING = "continual/forgetting"
BACKWARD_TRANSFER = "continual/backward_transfer"
UPDATE_MODE_STEP = "continual/update_mode"

LABELS_UPDATE = "labels/update"

TAG_STREAM = "greentrain.stream"
TAG_EXPERIENCE = "greentrain.experience"
TAG_UPDATE_MODE = "greentrain.update_mode"
TAG_REASON = "greentrain.reason"
TAG_SENTENCE = "greentrain.sentence"
TAG_KEPT = "greentrain.kept"
TAG_SHADOW = "greentrain.shadow"
TAG_HARDWARE = "greentrain.hardware"
TAG_ZONE = "greentrain.zone"
TAG_KEY = "greentrain.key"
TAG_LEDGER_RUN = "greentrain.ledger_run"
TAG_LEDGER_HEAD = "greentrain.ledger_head"
TAG_WEIGHTS = "greentrain.weights_sha256"
TAG_VERSION = "greentrain.version"
NOTE = "mlflow.note.content"


def source_epoch(source: str) -> str:
    """Return the name of one source's energy per epoch.

    Example:
        >>> source_epoch("gpu:0"), source_epoch("node1/cpu")
        ('energy/gpu_0_epoch_wh', 'energy/node1_cpu_epoch_wh')
    """
    return f"{ENERGY_PREFIX}{_flat(source)}_epoch_wh"


def source_power_limit(source: str) -> str:
    """Return the name of the power limit in force for one source.

    Example:
        >>> source_power_limit("gpu:0")
        'energy/gpu_0_power_limit_w'
    """
    return f"{ENERGY_PREFIX}{_flat(source)}_power_limit_w"


def source_power(source: str) -> str:
    """Return the name of the mean power of one source, which is MLflow's own name for a GPU.

    Example:
        >>> source_power("gpu:0"), source_power("cpu")
        ('system/gpu_0_power_usage_watts', 'system/cpu_power_usage_watts')
    """
    return f"system/{_flat(source)}_power_usage_watts"


def setting(name: str) -> str:
    """Return the name of the tag for a setting that has changed since the stream began.

    Example:
        >>> setting("num_experiences")
        'greentrain.setting.num_experiences'
    """
    return f"greentrain.setting.{name}"


def _flat(source: str) -> str:
    return source.replace(":", "_").replace("/", "_")
