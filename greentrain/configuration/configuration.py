"""The keys of a configuration, and what they become: a stream and its trainer."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greentrain.configuration.components import Arguments, Component, check_names, mapping
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    from pytorch_lightning import LightningModule

    from greentrain.streams import Experience
    from greentrain.tracking import Tracker
    from greentrain.training import StreamTrainer

MODES = ("reuse_fraction", "shrink", "perturb", "average")
"""Parameters of ``StreamTrainer`` that stand under ``modes``."""

ELSEWHERE = {
    "make_model": "model",
    "stream": "name",
    "ledger": "outputs.ledger",
    "state": "outputs.state",
    "tracking": "outputs.mlflow",
    **{name: f"modes.{name}" for name in MODES},
}
"""Parameters of ``StreamTrainer`` whose key is not their own name."""

_REQUIRED = {
    "model": "the class of a LightningModule, by class_path and init_args",
    "stream": "what yields experiences, by class_path and init_args",
    "budget": "an energy such as '20 Wh', emissions, or a share such as '25 % of full'",
    "monitor": "the name of the metric that the model logs in validation",
}
_IN_CODE = ("shadow",)
"""Parameters of ``StreamTrainer`` that no file can use: a job has to be told of in code."""
_COMPONENTS = ("memory", "meter", "intensity", "policy")
# What an update sets by itself: which samples come when, and that nothing is tried out first.
_NOT_OF_TRAINER = ("num_sanity_val_steps",)
_NOT_OF_LOADER = ("dataset", "shuffle", "batch_sampler", "generator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Where a run writes to.

    Args:
        ledger: The ledger: a file, or a URL such as ``"sqlite:///greentrain.db"``.
        state: Folder of what the stream needs to go on; ``None`` to begin anew each time.
        mlflow: An MLflow tracking URI such as ``"sqlite:///mlflow.db"``; ``None`` tells nobody.
        report: Folder of ``report.html`` and ``report.json``; ``None`` writes none.
    """

    ledger: str = "sqlite:///greentrain.db"
    state: str | None = "greentrain-state"
    mlflow: str | None = None
    report: str | None = "."


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A configuration that was checked; nothing of it is made yet.

    Args:
        model: The model.
        stream: The stream.
        name: The stream's name, and its budget's.
        outputs: Where the run writes to.
        limit: Experiences to take at most; ``None`` for all that have arrived.
        settings: Arguments of ``StreamTrainer`` that are plain values.
        components: Those that are to be made, by the argument's name.
    """

    model: Component
    stream: Component
    name: str
    outputs: Outputs
    limit: int | None
    settings: Sequence[Arguments]
    components: Mapping[str, Component | Arguments]

    def make_model(self) -> LightningModule:
        """Return the model with fresh weights."""
        from pytorch_lightning import LightningModule

        model = self.model.make()
        if not isinstance(model, LightningModule):
            raise _no_model(self.model.path, type(model))
        return model

    def make_stream(self) -> Iterable[Experience]:
        """Return what yields the experiences.

        Raises:
            ConfigurationError: If it cannot be iterated over.
        """
        stream = self.stream.make()
        if not isinstance(stream, Iterable):
            raise ConfigurationError(
                f"stream.class_path is {self.stream.path!r}, which gives "
                f"{stream!r}; it has to give experiences one after the other"
            )
        return stream

    def make_trainer(self, tracking: Tracker | None = None) -> StreamTrainer:
        """Return the stream's trainer, which opens ledger and state.

        Args:
            tracking: Is told of what happens, in place of ``outputs.mlflow``.

        Raises:
            ConfigurationError: If a value is of the right type and yet cannot be used.
        """
        from greentrain.training import StreamTrainer

        given: dict[str, Any] = {name: each.make() for name, each in self.components.items()}
        for settings in self.settings:
            given |= settings.make()
        return StreamTrainer(
            self.make_model,
            stream=self.name,
            ledger=self.outputs.ledger,
            state=self.outputs.state,
            tracking=tracking or self.outputs.mlflow,
            **given,
        )


def keys() -> list[str]:
    """Return every key that a configuration may have, those of Lightning and torch left out."""
    from greentrain.training import StreamTrainer

    parameters = inspect.signature(StreamTrainer).parameters
    own = [name for name in parameters if name not in ELSEWHERE and name not in _IN_CODE]
    modes = [f"modes.{name}" for name in MODES]
    outputs = [f"outputs.{field.name}" for field in dataclasses.fields(Outputs)]
    return ["model", "stream", "name", *own, "limit", *modes, *outputs]


def configure(config: Mapping[str, Any]) -> Configuration:
    """Check a configuration as a whole.

    Args:
        config: What a file says.

    Raises:
        ConfigurationError: If a key is not known or missing, or a value cannot be used.
    """
    check_names("", config, list(dict.fromkeys(key.partition(".")[0] for key in keys())))
    for name, what in _REQUIRED.items():
        if config.get(name) is None:
            raise ConfigurationError(f"the key {name!r} is missing; it is {what}")
    outputs = Outputs(**Arguments("outputs", Outputs, config.get("outputs")).make())
    _check_report(outputs.report)
    return Configuration(
        model=_model(config["model"]),
        stream=Component("stream", config["stream"]),
        name=_name(config.get("name")),
        outputs=outputs,
        limit=_limit(config.get("limit")),
        settings=_settings(config),
        components=_components(config),
    )


def _settings(config: Mapping[str, Any]) -> list[Arguments]:
    from greentrain.training import StreamTrainer

    parameters = set(inspect.signature(StreamTrainer).parameters)
    plain = parameters - set(ELSEWHERE) - {"trainer", "loader", *_IN_CODE}
    top = {key: config[key] for key in plain & set(config) if not _is_component(config, key)}
    return [
        Arguments("", StreamTrainer, top, skip=parameters - plain),
        Arguments("modes", StreamTrainer, config.get("modes"), skip=parameters - set(MODES)),
    ]


def _components(config: Mapping[str, Any]) -> dict[str, Component | Arguments]:
    from pytorch_lightning import Trainer
    from torch.utils.data import DataLoader

    from greentrain.training.fit import check_options

    memory = config.get("memory")
    if isinstance(memory, str) and memory != "all" and "." not in memory:
        raise ConfigurationError(
            f"memory is {memory!r}; it is 'all', null to keep nothing, or a buffer by class_path"
        )
    trainer = mapping("trainer", config.get("trainer"))
    check_options(trainer)
    return {
        "trainer": Arguments("trainer", Trainer, trainer, skip=_NOT_OF_TRAINER),
        "loader": Arguments(
            "loader",
            DataLoader,
            config.get("loader"),
            skip=_NOT_OF_LOADER,
            callables=["sampler"],  # of each update's dataset, so not a Sampler yet
        ),
        **{key: Component(key, config[key]) for key in _COMPONENTS if _is_component(config, key)},
    }


def _is_component(config: Mapping[str, Any], key: str) -> bool:
    absent: tuple[object, ...] = ("all", None) if key == "memory" else (None,)
    return key in _COMPONENTS and config.get(key) not in absent


def _model(given: object) -> Component:
    from pytorch_lightning import LightningModule

    model = Component("model", given)
    if inspect.isclass(model.function) and not issubclass(model.function, LightningModule):
        raise _no_model(model.path, model.function)
    return model


def _no_model(path: object, kind: type) -> ConfigurationError:
    return ConfigurationError(
        f"model.class_path is {path!r}, and a {kind.__module__}.{kind.__qualname__} is no "
        "LightningModule of pytorch_lightning"
    )


def _name(given: object) -> str:
    if given is not None and not isinstance(given, str):
        raise ConfigurationError(f"name is {given!r}; it is a text")
    return given or "stream"


def _limit(given: object) -> int | None:
    if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
        raise ConfigurationError(
            f"limit is {given!r}; it is a number of experiences, 1 or more, or null for all"
        )
    return given


def _check_report(report: str | None) -> None:
    if report is not None and Path(report).exists() and not Path(report).is_dir():
        raise ConfigurationError(f"outputs.report is {report!r}, which is no folder")
