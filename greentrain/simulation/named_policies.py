"""Policies by name, for the command line and for tables of many of them."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from greentrain.control.action import UpdateMode
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
from greentrain.control.policies.priced import Policy, PricedPolicy
from greentrain.errors import ConfigurationError
from greentrain.simulation.oracle import Oracle
from greentrain.simulation.recorded_table import RecordedTable

MODES: Mapping[str, UpdateMode] = {
    "skip": UpdateMode.SKIP,
    "replay": UpdateMode.REPLAY,
    "warm": UpdateMode.WARM_START,
    "full": UpdateMode.FULL_RETRAIN,
}
"""Update modes, as they are called in names of policies."""

# What makes the policy, and the argument that a number in the name is for.
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
    """Return the policy of a name.

    A name is one of ours, then a number where the policy has one, then the update mode where it has
    one, all with hyphens between: ``"priced"``, ``"always-warm"``, ``"periodic-3"``,
    ``"cara-threshold-0.02-warm"``. ``"oracle"`` is the best that the table has, and
    ``"oracle-full"`` the best of what only retrains in full or skips. Any other class is named as
    ``"module:Class"``, with arguments by name in parentheses if it takes any.

    Args:
        name: The name.
        table: What the policy is judged on.

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
    if words[-1] in MODES:
        given["mode"] = MODES[words.pop()]
    if words == ["oracle"]:
        return Oracle(table, frozenset(given.values()) or None)
    number = _number(words[-1])
    if number is not None:
        words.pop()
    make, parameter = _NAMES.get("-".join(words), (None, None))
    if make is None or (number is not None and parameter is None):
        raise ConfigurationError(
            f"there is no policy {name!r}; there are {', '.join(sorted(_NAMES))} and oracle, with "
            "a number and an update mode (skip, replay, warm, full) where they take them, such as "
            "periodic-3 or always-warm, and any class as module:Class(argument=1)"
        )
    if number is not None and parameter is not None:
        given[parameter] = number
    return _made(name, make, given)


def _imported(name: str) -> Policy:
    """Return the policy of ``module:Class(argument=value)``, whose values are plain."""
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
        raise ConfigurationError(f"cannot find the policy {name!r}: {error}") from None
    except (SyntaxError, ValueError):
        raise ConfigurationError(
            f"cannot read the policy {name!r}; write it as module:Class(argument=1)"
        ) from None
    return _made(name, make, given)


def _made(name: str, make: Callable[..., Policy], given: Mapping[str, Any]) -> Policy:
    try:
        policy = make(**given)
    except TypeError as error:
        raise ConfigurationError(f"the policy {name!r} cannot be made: {error}") from None
    if not callable(getattr(policy, "decide", None)):
        raise ConfigurationError(f"{name!r} is no policy: it has no method decide")
    return policy


def _number(word: str) -> float | None:
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        return None
