"""Which process measures what, so that each device of each host is counted exactly once."""

from __future__ import annotations

import dataclasses
import functools
import operator
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import distributed

from greentrain.energy import NOTHING, Meter, Reading, Source

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What one process can measure, and where it runs.

    Args:
        host: What tells two machines apart.
        devices: By source name, what tells two devices of the host apart: the UUID of a card, or
            the source's own name for what a host has once, such as ``"cpu"``.
    """

    host: str
    devices: Mapping[str, str]


def share(places: Sequence[Place]) -> list[dict[str, str]]:
    """Give each device of each host to the first process that can measure it.

    Args:
        places: One for each process, by rank.

    Returns:
        For each rank, what it measures: its own name of a source, and the name in the whole run.
        Cards that several processes call by one name are numbered anew on their host; with several
        hosts the name says which, as in ``"node1/gpu:0"``.

    Example:
        >>> one_card_each = [Place(host="a", devices={"gpu:0": uuid}) for uuid in ("U1", "U2")]
        >>> share(one_card_each)
        [{'gpu:0': 'gpu:0'}, {'gpu:0': 'gpu:1'}]
        >>> share([Place(host=host, devices={"cpu": "cpu"}) for host in ("a", "a", "b")])
        [{'cpu': 'node0/cpu'}, {}, {'cpu': 'node1/cpu'}]
    """
    hosts = list(dict.fromkeys(place.host for place in places))
    taken: dict[str, set[str]] = {host: set() for host in hosts}
    named: dict[str, set[str]] = {host: set() for host in hosts}
    shares: list[dict[str, str]] = []
    for place in places:
        mine: dict[str, str] = {}
        for name, device in place.devices.items():
            if device in taken[place.host]:
                continue
            taken[place.host].add(device)
            unique = _unused(name, named[place.host])
            named[place.host].add(unique)
            prefix = f"node{hosts.index(place.host)}/" if len(hosts) > 1 else ""
            mine[name] = prefix + unique
        shares.append(mine)
    return shares


def _unused(name: str, used: set[str]) -> str:
    part, number = name.split(":", 1)[0], 0
    while name in used:
        name, number = f"{part}:{number}", number + 1
    return name


class OwnMeter:
    """The part of a meter that this process answers for, under the names of the whole run.

    Args:
        meter: The meter; started.
        names: The name in the whole run, by the meter's own name; other sources are left out.
    """

    def __init__(self, meter: Meter, names: Mapping[str, str]) -> None:
        self._meter = meter
        self._names = names

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources that are this process's."""
        return tuple(
            dataclasses.replace(source, name=self._names[source.name])
            for source in self._meter.sources
            if source.name in self._names
        )

    def start(self) -> None:
        """Begin to measure."""
        self._meter.start()

    def read(self) -> Reading:
        """Return what was drawn since the start."""
        reading = self._meter.read()
        mine = {name: reading.energy_j.get(name) for name in self._names}
        return Reading(
            duration_s=reading.duration_s,
            energy_j={self._names[name]: joules for name, joules in mine.items()},
        )

    def close(self) -> None:
        """Stop measuring."""
        self._meter.close()


def gather(value: Any) -> list[Any]:
    """Return this value of every process, by rank; every process has to call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def summed(reading: Reading) -> Reading:
    """Return what all processes drew; every process has to call it, and each gets the same."""
    return together(gather(reading))


def together(readings: Sequence[Reading]) -> Reading:
    """Put readings of different processes over one stretch of time into one.

    Example:
        >>> gpu = Reading(duration_s=2.0, energy_j={"gpu:0": 600.0})
        >>> cpu = Reading(duration_s=1.9, energy_j={"cpu": 90.0})
        >>> together([gpu, cpu]).total_j, together([gpu, cpu]).duration_s
        (690.0, 2.0)
    """
    every = functools.reduce(operator.add, readings, NOTHING)
    longest_s = max((reading.duration_s for reading in readings), default=0.0)
    return dataclasses.replace(every, duration_s=longest_s)


def host_id() -> str:
    """Return what tells this machine from others: containers on one host agree about it."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # no Linux
        return socket.gethostname()
