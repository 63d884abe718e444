"""Assign each device of each host to one process, and combine what processes measure."""

from __future__ import annotations

import dataclasses
import functools
import operator
import socket
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import distributed

from greentrain.energy import NOTHING, Meter, Reading, Source

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessDevices:
    """Devices that one process can measure, and the host on which it runs.

    Args:
        host: Identifier of the host.
        devices: Identifier of each device on the host, by source name. It is the UUID of a GPU, or
            the source's name for a device that a host has once, such as ``"cpu"``.
    """

    host: str
    devices: Mapping[str, str]


def assign_devices(processes: Sequence[ProcessDevices]) -> list[dict[str, str]]:
    """Assign each device of each host to the first process that can measure it.

    Args:
        processes: The devices of each process, by rank.

    Returns:
        For each rank, the sources to measure: the name in the whole run, by the process's own name.
        GPUs that several processes call by one name are renumbered on their host. With several
        hosts, the name includes the host, as in ``"node1/gpu:0"``.

    Example:
        >>> one_gpu_each = [
        ...     ProcessDevices(host="a", devices={"gpu:0": uuid}) for uuid in ("U1", "U2")
        ... ]
        >>> assign_devices(one_gpu_each)
        [{'gpu:0': 'gpu:0'}, {'gpu:0': 'gpu:1'}]
        >>> assign_devices([ProcessDevices(host=host, devices={"cpu": "cpu"}) for host in "aab"])
        [{'cpu': 'node0/cpu'}, {}, {'cpu': 'node1/cpu'}]
    """
    hosts = list(dict.fromkeys(process.host for process in processes))
    # For each host, the name in the run by the identifier of the device.
    named: dict[str, dict[str, str]] = {host: {} for host in hosts}
    assigned: list[dict[str, str]] = []
    for process in processes:
        taken = named[process.host]
        prefix = f"node{hosts.index(process.host)}/" if len(hosts) > 1 else ""
        assigned.append({})
        for name, device in process.devices.items():
            if device not in taken:
                taken[device] = _unused(name, taken.values())
                assigned[-1][name] = prefix + taken[device]
    return assigned


def _unused(name: str, used: Collection[str]) -> str:
    part, number = name.split(":", 1)[0], 0
    while name in used:
        name, number = f"{part}:{number}", number + 1
    return name


class AssignedMeter:
    """The sources of a meter that are assigned to this process, by their names in the whole run.

    Args:
        meter: The meter; started.
        names: The name in the whole run, by the meter's own name; other sources are left out.
    """

    def __init__(self, meter: Meter, names: Mapping[str, str]) -> None:
        self._meter = meter
        self._names = names

    @property
    def sources(self) -> tuple[Source, ...]:
        """The assigned sources."""
        return tuple(
            dataclasses.replace(source, name=self._names[source.name])
            for source in self._meter.sources
            if source.name in self._names
        )

    def start(self) -> None:
        """Start to measure."""
        self._meter.start()

    def read(self) -> Reading:
        """Return the energy used since the start."""
        return self.part_of(self._meter.read())

    def part_of(self, reading: Reading) -> Reading:
        """Return the assigned part of a reading of the meter."""
        energy_j = {name: reading.energy_j.get(own) for own, name in self._names.items()}
        return Reading(duration_s=reading.duration_s, energy_j=energy_j)

    def close(self) -> None:
        """Stop measuring."""
        self._meter.close()


def gather(value: Any) -> list[Any]:
    """Return the value of every process, by rank; every process has to call it."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(values, value)
    return values


def merge_readings(readings: Sequence[Reading]) -> Reading:
    """Merge the readings of several processes over the same period.

    Example:
        >>> gpu = Reading(duration_s=2.0, energy_j={"gpu:0": 600.0})
        >>> cpu = Reading(duration_s=1.9, energy_j={"cpu": 90.0})
        >>> merge_readings([gpu, cpu]).total_j, merge_readings([gpu, cpu]).duration_s
        (690.0, 2.0)
    """
    merged = functools.reduce(operator.add, readings, NOTHING)
    longest_s = max((reading.duration_s for reading in readings), default=0.0)
    return dataclasses.replace(merged, duration_s=longest_s)


def host_id() -> str:
    """Return an identifier of this host; containers on one host have the same."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:  # not Linux
        return socket.gethostname()
