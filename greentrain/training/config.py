"""Validate the arguments of a stream, and group the rarely used ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pytorch_lightning import LightningModule, Trainer

from greentrain.carbon import CarbonAccount, IntensityProvider
from greentrain.control import LeastEnergy, Policy
from greentrain.energy import check_meter
from greentrain.errors import ConfigurationError
from greentrain.evaluation.held_out import EvalOn
from greentrain.memory import Buffer, FullBuffer
from greentrain.tracking import MlflowTracker, NullTracker, Tracker


@dataclass(frozen=True, slots=True, kw_only=True)
class CarbonConfig:
    """The conversion of joules to grams of CO2 equivalent.

    Args:
        zone: Grid zone of this machine's power, such as ``"DE"``; without it, no emissions are
            claimed.
        intensity: A provider of carbon intensities or its name, in place of a zone.
        pue: Power usage effectiveness of the building: a factor of the grams, not of the joules.
        market_intensity: Market-based intensity of the electricity contract in g/kWh; its grams are
            recorded next to the location-based ones.

    Raises:
        ConfigurationError: If the zone is unknown, or a value cannot be used.
    """

    zone: str | None = None
    intensity: IntensityProvider | str | None = None
    pue: float | None = None
    market_intensity: float | None = None

    def __post_init__(self) -> None:
        self.account()

    def account(self) -> CarbonAccount:
        """Return the account that converts joules to grams."""
        return CarbonAccount(
            zone=self.zone,
            intensity=self.intensity,
            pue=self.pue,
            market_intensity=self.market_intensity,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationConfig:
    """The data that models are evaluated on.

    Args:
        eval_on: Held-out data of all experiences (``"seen"``), of the last five (``"window"``), or
            of the current one (``"current"``), for streams whose old data no longer matter.
        eval_each_experience: Whether to evaluate each experience separately, too, by one more
            validation of each at each update. This fills ``StreamTrainer.matrix``.

    Raises:
        ConfigurationError: If ``eval_on`` has another value.
    """

    eval_on: EvalOn = "seen"
    eval_each_experience: bool = False

    def __post_init__(self) -> None:
        if self.eval_on not in get_args(EvalOn):
            raise ConfigurationError(
                f"eval_on is {self.eval_on!r}; allowed are 'seen', 'current' and 'window'"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModeConfig:
    """The work and the weights of the update modes.

    Args:
        reuse_fraction: Share of the usual epochs of a warm start (over all data) or a replay (over
            the new data), at step fraction 1.
        shrink: Factor of the last weights at a warm start; 1 keeps them.
        perturb: Factor of fresh weights that are added to them; 0 adds none.
        weight_averaging: Share of an update's steps over which its weights are averaged, at a
            constant learning rate. 0 anneals the learning rate instead, and uses the last weights.

    Raises:
        ConfigurationError: If a value is out of range.
    """

    reuse_fraction: float = 0.2
    shrink: float = 1.0
    perturb: float = 0.0
    weight_averaging: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.reuse_fraction <= 1:
            raise ConfigurationError(
                f"reuse_fraction is {self.reuse_fraction!r}; it must be above 0 and at most 1"
            )
        if not (0 <= self.shrink <= 1 and 0 <= self.perturb <= 1):
            raise ConfigurationError(
                f"shrink and perturb are {self.shrink!r} and {self.perturb!r}; both lie in [0, 1]"
            )
        if not 0 <= self.weight_averaging < 1:
            raise ConfigurationError(
                f"weight_averaging is {self.weight_averaging!r}; it must be a share of the steps, "
                "0 (off) or more, below 1"
            )


def check_arguments(
    make_model: object, buffer: object, policy: object, meter: object, carbon: object
) -> None:
    """Refuse arguments of the wrong kind before anything is opened.

    Raises:
        ConfigurationError: If an argument cannot be used.
    """
    if isinstance(make_model, LightningModule):
        name = type(make_model).__name__
        raise ConfigurationError(
            f"make_model is a {name} instance, and each full retraining needs fresh weights; give "
            f"the class {name}, or a function that returns a new one: lambda: {name}(...)"
        )
    if not callable(make_model):
        raise ConfigurationError(
            f"make_model is {make_model!r}; it must be a function that returns a LightningModule "
            "with fresh weights"
        )
    if isinstance(buffer, int) and not isinstance(buffer, bool):
        raise ConfigurationError(
            f"buffer is {buffer!r}, and a number alone names no buffer; give "
            f"ReservoirBuffer({buffer}) of greentrain.memory to keep {buffer} samples"
        )
    if buffer is not None and buffer != "all" and not hasattr(buffer, "select"):
        raise ConfigurationError(
            f"buffer is {buffer!r}; it must be 'all', a buffer such as ReservoirBuffer(2000), or "
            "None to keep no past data"
        )
    if getattr(buffer, "learn_at_once", False):
        raise ConfigurationError(
            f"buffer is a {type(buffer).__name__} with learn_at_once=True, which no update would "
            "pay for; give it learn_at_once=False, and trainer={'callbacks': [LearnBuffer(buffer)]}"
        )
    check_meter(meter, "meter")
    if not isinstance(carbon, CarbonConfig):
        raise ConfigurationError(
            f"carbon is {carbon!r}; it must be a CarbonConfig, such as CarbonConfig(zone='DE')"
        )
    is_class = isinstance(policy, type)
    if policy is not None and (is_class or not callable(getattr(policy, "decide", None))):
        hint = "; it is a class, so write its arguments in brackets after it" if is_class else ""
        if isinstance(policy, str):
            hint = f"; names such as {policy!r} work for `greentrain simulate` only"
        raise ConfigurationError(
            f"policy is {policy!r}; it must be a policy of greentrain.control, such as Greedy(), "
            f"or an object with a method decide{hint}"
        )


def check_trainer_options(options: object) -> Mapping[str, Any]:
    """Refuse Trainer options that are no mapping.

    Raises:
        ConfigurationError: If they are a Trainer, or anything else but a mapping.
    """
    if options is None:
        return {}
    if isinstance(options, Trainer):
        raise ConfigurationError(
            "trainer is a Trainer, which can fit only once, and each update needs a new one; give "
            "its options instead: trainer={'max_epochs': 10, 'accelerator': 'auto'}"
        )
    if not isinstance(options, Mapping):
        raise ConfigurationError(
            f"trainer is {options!r}; it holds options of a Trainer, such as {{'max_epochs': 10}}"
        )
    return options


def choose_policy(
    policy: Policy | None, target_metric: float | str | None, mode: Literal["max", "min"]
) -> Policy | None:
    """Return the policy, or the one that reaches a target metric with the least energy.

    Raises:
        ConfigurationError: If both are given, or the target cannot be read.
    """
    if target_metric is None:
        return policy
    if policy is not None:
        raise ConfigurationError(
            f"policy is {policy!r} and target_metric is {target_metric!r}; a target has its own "
            "policy, so give one of the two"
        )
    if isinstance(target_metric, (int, float)) and mode == "min":
        target_metric = -target_metric
    return LeastEnergy(target_metric=target_metric)


def open_buffer(
    buffer: Buffer | Literal["all"] | None,
    state_dir: str | Path | None,
    seed: int,
    *,
    appends: bool = True,
) -> Buffer | None:
    """Return the buffer; ``"all"`` gives one that keeps everything, next to the saved state.

    Args:
        buffer: The buffer, or ``"all"``.
        state_dir: Folder of the saved state.
        seed: Seed of the buffer.
        appends: Whether this process writes to the folder.
    """
    if not isinstance(buffer, str):
        return buffer
    folder = None if state_dir is None else Path(state_dir) / "buffer"
    return FullBuffer(folder=folder, appends=appends, seed=seed)


def open_tracker(tracking_uri: str | Tracker | None) -> Tracker:
    """Return the tracker; a tracking URI gives one that logs to MLflow."""
    if tracking_uri is None:
        return NullTracker()
    return MlflowTracker(tracking_uri) if isinstance(tracking_uri, str) else tracking_uri
