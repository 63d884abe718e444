"""Classes and functions named in a configuration, and their arguments, checked but not yet made."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from greentrain.configuration.messages import one_line
from greentrain.errors import ConfigurationError

_PARTS = ("class_path", "init_args", "dict_kwargs")


class Arguments:
    """Some arguments of a class or function, held against its signature.

    What is given by ``class_path`` among them is made by :meth:`make`, anew each time.

    Args:
        key: Where they stand in the configuration.
        function: The class or function.
        given: The arguments by name; ``None`` for none.
        skip: Parameters that a configuration may not give.
        callables: Parameters that are functions, and given by their path.

    Raises:
        ConfigurationError: If an argument is not known, is missing or is of another type.
    """

    def __init__(
        self,
        key: str,
        function: Callable[..., Any],
        given: object,
        *,
        skip: Collection[str] = (),
        callables: Collection[str] = (),
    ) -> None:
        from jsonargparse import ArgumentError, ArgumentParser

        given = mapping(key, given)
        callables = [*callables, *_functions(function, given)]
        skipped: set[str | int] = {*skip, *callables}
        self._given = {name: value for name, value in given.items() if name not in callables}
        self._parser = ArgumentParser(exit_on_error=False, add_help=False)
        if inspect.isclass(function):
            self._parser.add_class_arguments(
                function, skip=skipped, instantiate=False, fail_untyped=False
            )
        else:
            self._parser.add_function_arguments(function, skip=skipped, fail_untyped=False)
        check_names(key, given, [*self._parser.get_defaults().as_dict(), *callables])
        _check_complete(key, function, {*self._given, *skip, *callables})
        try:
            self._parsed = self._parser.parse_object(dict(self._given))
        except (ArgumentError, TypeError, ValueError) as error:
            raise ConfigurationError(one_line(str(error), key, self._given)) from None
        self._callables = {
            name: find(f"{key}.{name}", given[name])
            for name in callables
            if given.get(name) is not None
        }

    def make(self) -> dict[str, Any]:
        """Return the arguments that were given, with all that they name made."""
        made = self._parser.instantiate(self._parsed)
        return {**{name: made[name] for name in self._given}, **self._callables}


class Component:
    """A class or function with its arguments, as LightningCLI has them.

    Args:
        key: Where it stands in the configuration.
        given: A mapping of ``class_path``, ``init_args``, and ``dict_kwargs`` for what goes into
            a ``**kwargs`` and so cannot be checked; or the path alone.

    Raises:
        ConfigurationError: If the path leads nowhere, or an argument cannot be used.

    Attributes:
        path: The path.
        function: What it leads to.

    Example:
        >>> component = Component(
        ...     "memory",
        ...     {"class_path": "greentrain.memory.ReservoirBuffer", "init_args": {"max_size": 9}},
        ... )
        >>> component.make().max_size
        9
    """

    def __init__(self, key: str, given: object) -> None:
        given = {"class_path": given} if isinstance(given, str) else mapping(key, given)
        check_names(key, given, _PARTS)
        self.path = given.get("class_path")
        self.function = find(f"{key}.class_path", self.path)
        self._further = mapping(f"{key}.dict_kwargs", given.get("dict_kwargs"))
        self._arguments = Arguments(
            f"{key}.init_args", self.function, given.get("init_args"), skip=self._further
        )

    def make(self) -> Any:
        """Call the class or function, with arguments that are made anew."""
        return self.function(**self._arguments.make(), **self._further)


def find(key: str, path: object) -> Callable[..., Any]:
    """Import a class or function by its path.

    Args:
        key: Where the path stands in the configuration.
        path: Module and name, such as ``"mymodule.MyClass"``.

    Raises:
        ConfigurationError: If the path leads nowhere, its module cannot be imported, or nothing
            that can be called is there.
    """
    if not isinstance(path, str) or "." not in path or "" in path.split("."):
        raise ConfigurationError(
            f"{key} is {path!r}; it is the path of a class or function, with its module, such as "
            "'mymodule.MyClass'"
        )
    parts = path.split(".")
    for n_parts in range(len(parts) - 1, 0, -1):
        found = _module(key, path, ".".join(parts[:n_parts]))
        if found is not None:
            return _callable(key, path, found, parts[n_parts:])
    raise ConfigurationError(
        f"{key} is {path!r}, and there is no module {parts[0]!r} in the current folder or among "
        "what is installed"
    )


def mapping(key: str, given: object) -> dict[str, Any]:
    """Return a mapping of names as it is, and nothing as an empty one.

    Raises:
        ConfigurationError: If it is something else.
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ConfigurationError(f"{key} is {given!r}; it holds lines of 'key: value'")
    return given


def check_names(key: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Refuse a key that is not known, and say which one may have been meant.

    Raises:
        ConfigurationError: If there is one.
    """
    for name in given:
        if name not in known:
            where = f"{key} has no key" if key else "there is no key"
            raise ConfigurationError(f"{where} {name!r}; {_meant(str(name), known)}")


def _meant(name: str, known: Collection[str]) -> str:
    close = get_close_matches(name, known, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"allowed are {', '.join(known)}" if known else "none is allowed"


def _functions(function: Callable[..., Any], given: Mapping[str, Any]) -> list[str]:
    # jsonargparse refuses a function that does not say what it returns, as many do not.
    found = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, value = str(parameter.annotation), given.get(name)
        besides = re.sub(r"Callable\[\[.*?\],[^\]]*\]", "", kind)
        may_be_text = re.search(r"\bstr\b", besides) is not None
        if "Callable" in kind and not may_be_text and isinstance(value, str):
            found.append(name)
    return found


def _check_complete(key: str, function: Callable[..., Any], given: Collection[str]) -> None:
    # By the plain signature: jsonargparse takes an argument without a type as one with a default.
    lacking = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in given
    ]
    if lacking:
        raise ConfigurationError(f"{key} lacks {' and '.join(lacking)}")


def _module(key: str, path: str, name: str) -> Any:
    try:
        return import_module(name)
    except Exception as error:  # a module of the user's may fail in any way
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            return None
        reason = " ".join(str(error).split())
        raise ConfigurationError(
            f"{key} is {path!r}, and importing {name} failed: {type(error).__name__}: {reason}"
        ) from error


def _callable(key: str, path: str, found: Any, rest: list[str]) -> Callable[..., Any]:
    for name in rest:
        inside = found
        found = getattr(inside, name, None)
        if found is None:
            public = [each for each in dir(inside) if not each.startswith("_")]
            close = get_close_matches(name, public, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigurationError(
                f"{key} is {path!r}, and {inside.__name__} has no {name!r}{hint}"
            )
    if not callable(found):
        raise ConfigurationError(
            f"{key} is {path!r}, which cannot be called: {found!r}; it is the path of a class "
            "or function"
        )
    return found  # type: ignore[no-any-return]
