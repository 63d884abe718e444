"""Read a YAML file, and say in one line why it cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from greentrain.errors import ConfigurationError

TEMPLATE = Path(__file__).with_name("stream.yaml")
"""The file that ``greentrain init`` writes."""


def read(path: Path) -> dict[str, Any]:
    """Return the content of a YAML file, unchecked.

    Args:
        path: The file.

    Raises:
        ConfigurationError: If the file does not exist or holds no YAML mapping.
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
    config = load(text, name)
    if config is None:
        raise ConfigurationError(
            f"{name!r} is empty; it needs at least model, stream, budget and monitor"
        )
    if not isinstance(config, dict):
        raise ConfigurationError(
            f"{name!r} holds a {type(config).__name__}; it has to be lines of 'key: value'"
        )
    return config


def load(text: str, name: str) -> Any:
    """Return the value of a text in YAML, in which 1e-3 is a number as in LightningCLI.

    Args:
        text: The text.
        name: Name of its file or option, for the error.

    Raises:
        ConfigurationError: If the text is no YAML.
    """
    import yaml
    from jsonargparse import get_loader

    try:
        return get_loader("yaml")(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        reason = getattr(error, "problem", None) or " ".join(str(error).split())
        where = f", line {mark.line + 1}" if mark is not None and "\n" in text.strip() else ""
        raise ConfigurationError(f"{name!r}{where} is no YAML: {reason}") from None
