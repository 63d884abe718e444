"""Read a configuration file, and put in what the command line says instead."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError

TEMPLATE = Path(__file__).with_name("stream.yaml")
"""What ``greentrain init`` writes."""


def read(path: Path) -> dict[str, Any]:
    """Return what a YAML file says, unchecked.

    Args:
        path: The file.

    Raises:
        ConfigurationError: If there is no such file, or it holds no YAML mapping.
    """
    name = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigurationError(
            f"there is no file {name!r}; 'greentrain init' writes one to start from"
        ) from None
    except OSError as error:
        raise ConfigurationError(f"cannot read {name!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name!r} is no text in UTF-8; it has to be YAML") from None
    config = _load(text, name)
    if config is None:
        raise ConfigurationError(
            f"{name!r} is empty; it has to say at least model, stream, budget and monitor"
        )
    if not isinstance(config, dict):
        raise ConfigurationError(
            f"{name!r} holds a {type(config).__name__}; it has to be lines of 'key: value'"
        )
    return config


def override(config: Mapping[str, Any], arguments: Iterable[str]) -> dict[str, Any]:
    """Return a configuration with values from the command line in place of the file's.

    Args:
        config: What the file says.
        arguments: ``--KEY VALUE`` or ``--KEY=VALUE``: the key with dots, the value in YAML.

    Raises:
        ConfigurationError: If an argument is no option, lacks its value, or leads into something
            that holds no keys.

    Example:
        >>> override({"budget": "1 Wh"}, ["--trainer.max_epochs", "3", "--budget=2 Wh"])
        {'budget': '2 Wh', 'trainer': {'max_epochs': 3}}
    """
    changed: dict[str, Any] = deepcopy(dict(config))
    words = iter(arguments)
    for word in words:
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise ConfigurationError(
                f"{word!r} is not understood; what changes the file is such as "
                "--trainer.max_epochs 3, after the file's name"
            )
        if not equals:
            following = next(words, None)
            if following is None:
                raise ConfigurationError(f"--{key} lacks its value, such as --{key} VALUE")
            text = following
        _put(changed, key, _load(text, f"--{key}"))
    return changed


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *above, last = key.split(".")
    inside = config
    for depth, name in enumerate(above, start=1):
        if inside.get(name) is None:
            inside[name] = {}
        inside = inside[name]
        if not isinstance(inside, dict):
            at = ".".join(above[:depth])
            raise ConfigurationError(
                f"--{key} leads into {at}, which is {inside!r} and has no keys"
            )
    inside[last] = value


def _load(text: str, name: str) -> Any:
    import yaml
    from jsonargparse import get_loader

    try:
        # LightningCLI's reading of YAML, in which 1e-3 is a number.
        return get_loader("yaml")(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}" if mark is not None and "\n" in text.strip() else ""
        raise ConfigurationError(f"{name!r}{where} is no YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"{name!r} is no YAML: {reason}") from None
