"""Name the boundary of a figure: cards, CPU and RAM, the whole node, or the building."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable

from greentrain.errors import ConfigurationError
from greentrain.units import is_number

NODE = "node"
"""Name of the source for the whole node, measured at the wall."""
FACILITY = "facility"

_ORDER = ("gpu", "cpu", "ram")


def boundary(names: Iterable[str], pue: float | None = None) -> str | None:
    """Name the boundary of sources, such as ``"gpu+cpu+ram"``.

    A node's figure includes its cards, CPU and RAM, so they are not named in addition to ``node``;
    those of another host are. A PUE turns the joules of whole nodes into those of the building,
    ``"facility"``. Joules within a smaller boundary are only scaled by it: they keep their name,
    and :func:`boundary_note` says so.

    Args:
        names: Names of the measured sources: ``"gpu:0"``, ``"cpu"``, ``"node"``, or with
            a host prefix, ``"node1/gpu:0"``.
        pue: Power usage effectiveness that multiplied the joules; ``None`` if there was none.

    Returns:
        The boundary; ``None`` if there is no source.

    Raises:
        ConfigurationError: If the PUE is less than 1 or not finite.

    Example:
        >>> boundary(["ram", "gpu:1", "gpu:0", "cpu"])
        'gpu+cpu+ram'
        >>> boundary(["gpu:0", "node"]), boundary(["node"], pue=1.2), boundary([])
        ('node', 'facility', None)
    """
    if pue is not None and not (is_number(pue) and math.isfinite(pue) and pue >= 1.0):
        raise ConfigurationError(f"pue is {pue!r}; it must be a factor of 1 or more, or None")
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
    """Describe the effect of a PUE on joules within a boundary; empty if none was applied.

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
