"""Create policies by name, for the command line."""

from __future__ import annotations

import ast
import contextlib
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from greentrain.control.policies import (
    RCCDA,
    UPF,
    Always,
    CaraCumulative,
    CaraPeriodic,
    CaraThreshold,
    CumulativeRegret,
    DriftTriggered,
    Greedy,
    Periodic,
    RandomFit,
)
from greentrain.control.policies.policy import Policy
from greentrain.control.policies.priced import PricedPolicy
from greentrain.control.update_modes import UPDATE_MODES
from greentrain.errors import ConfigurationError
from greentrain.simulation.oracle import Oracle
from greentrain.simulation.recorded_table import RecordedTable

_MODES = {traits.short_name: mode for mode, traits in UPDATE_MODES.items()}

# The class of the policy, and the argument that is set by a number in the name.
_NAMES: Mapping[str, tuple[Callable[..., Policy], str | None]] = {
    "always": (Always, None),
    "cara-cumulative": (CaraCumulative, "threshold"),
    "cara-periodic": (CaraPeriodic, "period"),
    "cara-threshold": (CaraThreshold, "threshold"),
    "drift": (DriftTriggered, None),
    "greedy": (Greedy, None),
    "periodic": (Periodic, "every"),
    "priced": (PricedPolicy, None),
    "random": (RandomFit, "seed"),
    "rccda": (RCCDA, "weight"),
    "regret": (CumulativeRegret, None),
    "upf": (UPF, "alpha"),
}


def named_policy(name: str, table: RecordedTable) -> Policy:
    """Create the policy of a name.

    A name is the name of a policy, then a number and an update mode if the policy has them, joined
    by hyphens: ``"priced"``, ``"always-warm"``, ``"periodic-3"``, ``"cara-threshold-0.02-warm"``.
    ``"oracle"`` is the best schedule of the table, and ``"oracle-full"`` the best one of full
    retrainings alone. Any other class is ``"module:Class"``, with arguments by name in parentheses.

    Args:
        name: The name.
        table: The table to simulate the policy on.

    Raises:
        ConfigurationError: If there is no such policy, or it refuses its arguments.

    Example:
        >>> named_policy("periodic-3-warm", table=...)
        Periodic(every=3, mode=<UpdateMode.WARM_START: 'WARM_START'>)
        >>> named_policy("greentrain.control:Periodic(every=2)", table=...).every
        2
    """
    if ":" in name:
        return _imported(name)
    words, given = name.split("-"), dict[str, Any]()
    if words[-1] in _MODES:
        given["mode"] = _MODES[words.pop()]
    if words == ["oracle"]:
        return Oracle(table, frozenset(given.values()) or None)
    number = _number(words[-1])
    if number is not None:
        words.pop()
    make, parameter = _NAMES.get("-".join(words), (None, None))
    if make is None or (number is not None and parameter is None):
        raise ConfigurationError(
            f"there is no policy {name!r}. Choose from {', '.join(sorted(_NAMES))} and oracle, "
            f"followed by a number and an update mode ({', '.join(_MODES)}) if the policy has "
            "them, such as periodic-3 or always-warm. Or name a class: module:Class(argument=1)"
        )
    if number is not None and parameter is not None:
        given[parameter] = number
    return _made(name, make, given)


def _imported(name: str) -> Policy:
    """Create the policy of ``module:Class(argument=value)`` with literal values."""
    module, _, call = name.partition(":")
    try:
        parsed = ast.parse(call, mode="eval").body
        if isinstance(parsed, ast.Call):
            function, keywords, positional = parsed.func, parsed.keywords, parsed.args
        else:
            function, keywords, positional = parsed, [], []
        if not isinstance(function, ast.Name) or positional:
            raise ValueError
        given = {str(each.arg): ast.literal_eval(each.value) for each in keywords}
        make = getattr(importlib.import_module(module), function.id)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"cannot import the policy {name!r}: {error}") from None
    except (SyntaxError, ValueError):
        raise ConfigurationError(
            f"cannot read the policy {name!r}; write it as module:Class(argument=1)"
        ) from None
    return _made(name, make, given)


def _made(name: str, make: Callable[..., Policy], given: Mapping[str, Any]) -> Policy:
    try:
        policy = make(**given)
    except TypeError as error:
        raise ConfigurationError(f"cannot create the policy {name!r}: {error}") from None
    if not callable(getattr(policy, "decide", None)):
        raise ConfigurationError(f"{name!r} is not a policy: add a method decide")
    return policy


def _number(word: str) -> float | None:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(word)
    return None
