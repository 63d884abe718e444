"""A checked configuration of a stream, and the objects that it describes."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from greentrain.configuration.class_paths import Component
from greentrain.configuration.stream_parser import groups, parse
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace
    from pytorch_lightning import LightningModule

    from greentrain.streams import Experience
    from greentrain.tracking import Tracker
    from greentrain.training import StreamTrainer

DEFAULTS: Mapping[str, str] = {
    "ledger": "sqlite:///greentrain.db",
    "state_dir": "greentrain-state",
    "report": ".",
}
"""Outputs of a run whose configuration does not name them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """A checked configuration, of which nothing is made yet.

    Args:
        parser: The parser that checked it.
        values: The values that were given, by key.
        components: The classes and functions that are named in it, by key.
    """

    parser: ArgumentParser
    values: Namespace
    components: Mapping[str, Component]

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value that was given, else the run's default for it, else ``default``."""
        return self.values.get(key, DEFAULTS.get(key, default))

    def make_model(self) -> LightningModule:
        """Return the model with fresh weights.

        Raises:
            ConfigurationError: If the function returns something else.
        """
        from pytorch_lightning import LightningModule

        model = self._make("model")
        if not isinstance(model, LightningModule):
            raise _no_model(self.components["model"].path, type(model))
        return model

    def make_stream(self) -> Iterable[Experience]:
        """Return the iterable of experiences.

        Raises:
            ConfigurationError: If the result cannot be iterated over.
        """
        stream = self._make("stream")
        if not isinstance(stream, Iterable):
            raise ConfigurationError(
                f"stream.class_path is {self.components['stream'].path!r}, which gives "
                f"{stream!r}; it has to give experiences one after the other"
            )
        return stream

    def make_arguments(self) -> dict[str, Any]:
        """Return the given arguments of ``StreamTrainer``, with every object in them made."""
        others = ("config", "model", "stream", "limit", "report")
        names = [name for name in vars(self.values) if name not in others]
        made = self._instantiate(*names)
        for key in self.components.keys() - {"model", "stream"}:
            made[key] = self._make(key)
        given: dict[str, Any] = {name: made[name] for name in names}
        for name, kind in groups().items():
            if name in given:
                options = vars(given[name])
                given[name] = options if name in ("trainer", "loader") else kind(**options)
        return given

    def make_trainer(self, tracker: Tracker | None = None) -> StreamTrainer:
        """Return the trainer of the stream, which opens the ledger and the state.

        Args:
            tracker: A tracker to use in place of ``tracking_uri``.

        Raises:
            ConfigurationError: If a value has the right type but cannot be used.
        """
        from greentrain.training import StreamTrainer

        given = {name: self.get(name) for name in ("ledger", "state_dir")} | self.make_arguments()
        if tracker is not None:
            given["tracking_uri"] = tracker
        return StreamTrainer(self.make_model, **given)

    def _make(self, key: str) -> Any:
        """Call the class or function of a key, with newly made arguments."""
        component = self.components[key]
        arguments = self._instantiate(key.partition(".")[0]).get(f"{key}.init_args")
        return component.function(**(vars(arguments) if arguments else {}), **component.further)

    def _instantiate(self, *keys: str) -> Namespace:
        from jsonargparse import Namespace

        part = Namespace(**{key: self.values[key] for key in keys})  # type: ignore[no-untyped-call]
        made: Namespace = self.parser.instantiate(part)
        return made


def configure(config: Mapping[str, Any], arguments: Sequence[str] = ()) -> Configuration:
    """Check a configuration as a whole, before anything is made.

    Args:
        config: Content of a file.
        arguments: Options that replace values of the file: ``--KEY VALUE`` or ``--KEY=VALUE``, the
            key with dots.

    Raises:
        ConfigurationError: If a key is unknown or missing, or a value cannot be used.

    Example:
        >>> from greentrain.configuration import TEMPLATE, configure, read
        >>> configuration = configure(read(TEMPLATE), ["--trainer.max_epochs", "3"])
        >>> configuration.make_arguments()["trainer"]["max_epochs"]
        3
    """
    from pytorch_lightning import LightningModule

    parser, values, components = parse(config, arguments)
    model = components["model"]
    if inspect.isclass(model.function) and not issubclass(model.function, LightningModule):
        raise _no_model(model.path, model.function)
    configuration = Configuration(parser=parser, values=values, components=components)
    report = configuration.get("report")
    if report is not None and Path(report).exists() and not Path(report).is_dir():
        raise ConfigurationError(f"report is {report!r}, which is no folder")
    return configuration


def _no_model(path: str, kind: type) -> ConfigurationError:
    return ConfigurationError(
        f"model.class_path is {path!r}, and a {kind.__module__}.{kind.__qualname__} is no "
        "LightningModule of pytorch_lightning"
    )
