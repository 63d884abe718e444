"""Parse a configuration with jsonargparse: a YAML file, and options that replace its values."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

from greentrain.carbon.named import is_intensity_name
from greentrain.configuration.class_paths import Component, find
from greentrain.configuration.error_messages import lookup, one_line
from greentrain.configuration.yaml_file import load
from greentrain.errors import ConfigurationError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

COMPONENTS = ("model", "stream", "buffer", "meter", "policy", "carbon.intensity")
"""Keys of classes and functions that are given by ``class_path``."""

REQUIRED = {
    "model": "the class of a LightningModule, by class_path and init_args",
    "stream": "a class or function that yields experiences, by class_path and init_args",
    "budget": "an energy such as '20 Wh', emissions, or a share such as '25 % of full'",
    "monitor": "the name of the metric that the model logs in validation",
}
"""Keys that every configuration needs, each with what it is."""

IN_CODE_ONLY = ("make_model", "shadow")
"""Parameters of ``StreamTrainer`` that no configuration can give."""

# Options of Trainer and DataLoader that an update sets itself, such as the order of the samples.
_SET_BY_UPDATES = {
    *("num_sanity_val_steps", "dataset", "shuffle", "sampler", "batch_sampler", "generator")
}


def parse(
    config: Mapping[str, Any], arguments: Sequence[str]
) -> tuple[ArgumentParser, Namespace, dict[str, Component]]:
    """Check a configuration against the signatures of everything that it configures.

    Args:
        config: Content of the file.
        arguments: Options of the command line, which replace values of the file.

    Returns:
        The parser, the values that were given, and the components by key.

    Raises:
        ConfigurationError: If a key is unknown or missing, or a value cannot be used.
    """
    import yaml
    from jsonargparse import ArgumentError

    given = deepcopy(dict(config))
    options = _take_class_paths(given, arguments)
    components = _find_components(given)
    parser = build_parser(components, given)
    try:
        values = parser.parse_args(["--config", yaml.safe_dump(given), *options], defaults=False)
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigurationError(one_line(str(error), given, keys(parser), REQUIRED)) from None
    for key, component in components.items():
        init_args = values.get(f"{key}.init_args")
        component.check_complete(f"{key}.init_args", vars(init_args) if init_args else ())
    return parser, values, components


def build_parser(components: Mapping[str, Component], given: Mapping[str, Any]) -> ArgumentParser:
    """Return a parser of every key, with the arguments of the components.

    Args:
        components: The components by key.
        given: The configuration.
    """
    from jsonargparse import ArgumentParser
    from jsonargparse.typing import PositiveInt

    from greentrain.training import StreamTrainer

    parser = ArgumentParser(
        exit_on_error=False, add_help=False, allow_abbrev=False, print_config=None
    )
    parser.add_argument("--config", action="config")
    for key in dict.fromkeys(("model", "stream", *components)):
        parser.add_argument(f"--{key}.class_path", required=True)
        parser.add_argument(f"--{key}.dict_kwargs", type=dict)
        if key in components:
            arguments = lookup(given, f"{key}.init_args") or {}
            _add_arguments(parser, f"{key}.init_args", components[key], arguments)
    skip = {*IN_CODE_ONLY, "tracking_uri", *groups(), *components}
    of_group = {key.removeprefix("carbon.") for key in components} | _SET_BY_UPDATES
    for group, kind in [(None, StreamTrainer), *groups().items()]:
        parser.add_class_arguments(
            kind, group, skip=of_group if group else skip, fail_untyped=False, instantiate=False
        )
    parser.add_argument("--loader.sampler", type=Callable)  # of each update's dataset: no Sampler
    parser.add_argument("--limit", type=PositiveInt | None)
    for name in ("tracking_uri", "report"):
        parser.add_argument(f"--{name}", type=str | None)
    return parser


def groups() -> dict[str, type]:
    """Return the class of each argument of ``StreamTrainer`` that has keys below it."""
    from pytorch_lightning import Trainer
    from torch.utils.data import DataLoader

    from greentrain.training import CarbonConfig, EvaluationConfig, ModeConfig

    return {
        "trainer": Trainer,
        "loader": DataLoader,
        "carbon": CarbonConfig,
        "evaluation": EvaluationConfig,
        "modes": ModeConfig,
    }


def keys(parser: ArgumentParser) -> list[str]:
    """Return every key that a parser accepts, with dots."""
    found = vars(parser.get_defaults(skip_validation=True).as_flat())
    return [key for key in found if key != "config"]


def _take_class_paths(config: dict[str, Any], arguments: Sequence[str]) -> list[str]:
    """Move class paths from the options into the configuration: other options depend on them."""
    scan = argparse.ArgumentParser(
        add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    for key in COMPONENTS:
        names = (f"--{key}", f"--{key}.class_path")
        scan.add_argument(*names, dest=key, nargs="?")
    found, others = scan.parse_known_args(_joined(arguments))
    for key, text in vars(found).items():
        _put(config, key, None if text is None else load(text, f"--{key}"))
    return others


def _joined(arguments: Sequence[str]) -> list[str]:
    """Write ``--key value`` as ``--key=value``: to argparse, ``-1e-3`` alone is an option."""
    joined: list[str] = []
    for word in arguments:
        before = joined[-1] if joined else ""
        if before.startswith("--") and "=" not in before and not word.startswith("--"):
            joined[-1] = f"{before}={word}"
        else:
            joined.append(word)
    return joined


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    *groups_above, name = key.split(".")
    for group in groups_above:
        config[group] = config.get(group) or {}
        config = config[group]
    config[name] = value


def _find_components(config: dict[str, Any]) -> dict[str, Component]:
    """Import the classes and functions that are named, and write each by its class_path."""
    found = {}
    for key in COMPONENTS:
        value = lookup(config, key)
        if isinstance(value, str) and key == "carbon.intensity" and is_intensity_name(value):
            value = {
                "class_path": "greentrain.carbon.named_intensity",
                "init_args": {"text": value},
            }
            _put(config, key, value)
        elif isinstance(value, str) and (key != "buffer" or "." in value):
            value = {"class_path": value}
            _put(config, key, value)
        if isinstance(value, dict) and (path := value.get("class_path")) is not None:
            found[key] = Component(
                path=path,
                function=find(f"{key}.class_path", path),
                further=value.get("dict_kwargs") or {},
            )
    for key in (*groups(), "model", "stream", *(f"{key}.init_args" for key in found)):
        group = lookup(config, key)
        if group is None:
            config.pop(key, None)
        elif not isinstance(group, dict):
            raise ConfigurationError(f"{key} is {group!r}; it holds lines of 'key: value'")
    return found


def _add_arguments(
    parser: ArgumentParser, key: str, component: Component, given: Mapping[str, Any]
) -> None:
    """Add the parameters of a class or function, without those that ``dict_kwargs`` gives."""
    functions = [
        name
        for name, parameter in inspect.signature(component.function).parameters.items()
        if name not in component.further
        and not isinstance(given.get(name), dict)
        and _is_function(str(parameter.annotation))
    ]
    options: dict[str, Any] = {"skip": {*component.further, *functions}, "fail_untyped": False}
    if inspect.isclass(component.function):
        parser.add_class_arguments(component.function, key, instantiate=False, **options)
    else:
        parser.add_function_arguments(component.function, key, **options)
    for name in functions:
        parser.add_argument(f"--{key}.{name}", type=Callable | None)


def _is_function(annotation: str) -> bool:
    # jsonargparse refuses a function without the annotated return type, and many have none.
    others = re.sub(r"Callable\[\[.*?\],[^\]]*\]", "", annotation)
    return "Callable" in annotation and re.search(r"\bstr\b", others) is None
