"""Import the classes and functions that a configuration names by their path."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import resolve_name
from typing import Any

from greentrain.configuration.error_messages import explain_import
from greentrain.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A class or function that a configuration names.

    Args:
        path: Its path.
        function: The class or function itself.
        further: Arguments for its ``**kwargs``, which cannot be checked.
    """

    path: str
    function: Callable[..., Any]
    further: Mapping[str, Any]

    def check_complete(self, key: str, given: Collection[str]) -> None:
        """Refuse to leave out a required argument, one without a type annotation included.

        Args:
            key: The key of the arguments in the configuration.
            given: Names of the arguments.

        Raises:
            ConfigurationError: If one is missing.
        """
        # By the plain signature: to jsonargparse, a parameter without a type has a default.
        lacking = [
            name
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and name not in {*given, *self.further}
        ]
        if lacking:
            raise ConfigurationError(f"{key} lacks {' and '.join(lacking)}")


def find(key: str, path: object) -> Callable[..., Any]:
    """Import a class or function by its path.

    Args:
        key: The path's key in the configuration.
        path: Module and name, such as ``"mymodule.MyClass"``.

    Raises:
        ConfigurationError: If nothing callable has this path, or its module cannot be imported.
    """
    if not isinstance(path, str) or "." not in path or "" in path.split("."):
        raise ConfigurationError(
            f"{key} is {path!r}; it must be the path of a class or function, with its module, such "
            "as 'mymodule.MyClass'"
        )
    module = path.rpartition(".")[0]
    try:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            if not f"{path}.".startswith(f"{error.name}."):  # an import in the module failed
                raise
        found = resolve_name(path)
    except Exception as error:  # the user's modules may fail in any way
        failed = (
            f"importing {module} failed: {type(error).__name__}: {' '.join(str(error).split())}"
        )
        ours = not isinstance(error, ModuleNotFoundError) or f"{path}.".startswith(f"{error.name}.")
        reason = explain_import(error) if ours else None
        raise ConfigurationError(f"{key} is {path!r}, and {reason or failed}") from error
    if not callable(found):
        raise ConfigurationError(
            f"{key} is {path!r}, which cannot be called: {found!r}; it must be the path of a class "
            "or function"
        )
    return found  # type: ignore[no-any-return]
