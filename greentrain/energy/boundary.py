"""Naming what a figure covers: cards, CPU and RAM, the whole node, or the building."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from greentrain.errors import ConfigurationError

NODE = "node"
"""Name of the source that is the whole node, as the wall sees it."""
FACILITY = "facility"

_ORDER = ("gpu", "cpu", "ram")


def boundary(names: Iterable[str], pue: float | None = None) -> str | None:
    """Name what sources cover, such as ``"gpu+cpu+ram"``.

    A node's figure holds its cards, CPU and RAM already, so beside ``node`` they are not named;
    those of another host are. A PUE makes the whole nodes' joules those of the building,
    ``"facility"``. Joules below that are only scaled by it: they keep their name, and
    :func:`boundary_note` says so.

    Args:
        names: Names of the sources that gave a figure: ``"gpu:0"``, ``"cpu"``, ``"node"``, or with
            a host before it, ``"node1/gpu:0"``.
        pue: Power usage effectiveness that the joules were multiplied by; ``None`` if they were
            not.

    Returns:
        The boundary; ``None`` where there is no source.

    Raises:
        ConfigurationError: If the PUE is less than 1 or not finite.

    Example:
        >>> boundary(["ram", "gpu:1", "gpu:0", "cpu"])
        'gpu+cpu+ram'
        >>> boundary(["gpu:0", "node"]), boundary(["node"], pue=1.2), boundary([])
        ('node', 'facility', None)
    """
    if pue is not None and not (math.isfinite(pue) and pue >= 1.0):
        raise ConfigurationError(f"pue is {pue!r}; it is a factor of 1 or more, or None")
    hosts: dict[str, set[str]] = defaultdict(set)
    for name in names:
        host, _, device = name.rpartition("/")
        hosts[host].add(device.split(":", 1)[0])
    parts = {part for of in hosts.values() for part in ({NODE} if NODE in of else of)}
    if parts == {NODE}:
        return NODE if pue is None else FACILITY
    known = [part for part in _ORDER if part in parts]
    return "+".join([*known, *sorted(parts - set(known))]) or None


def boundary_note(names: Iterable[str], pue: float | None = None) -> str:
    """Say what a PUE made of joules within a boundary; empty where none was applied.

    Example:
        >>> boundary_note(["gpu:0", "cpu"], pue=1.2)
        'multiplied by a PUE of 1.2; what gpu+cpu leaves out of the node is in neither'
    """
    names = tuple(names)
    within = boundary(names, pue)
    if pue is None or within is None:
        return ""
    if within == FACILITY:
        return f"the node's joules multiplied by a PUE of {pue:g}"
    return f"multiplied by a PUE of {pue:g}; what {within} leaves out of the node is in neither"
