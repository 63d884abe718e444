"""How much of a host's busy CPU time this process's cgroup had, where the host is shared.

A container, a batch job or a service runs in a cgroup below the root, and the kernel counts its CPU
time. Held against the CPU time of the whole host that is an estimate of its part in what the CPU
drew; it says nothing about clocks, idle power or memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# Busy time is counted in ticks of 10 ms: a share of less than this is a share of noise.
_MIN_BUSY_S = 0.1
# user, nice, system, irq, softirq of /proc/stat; guests are in user, stolen time ran elsewhere.
_BUSY_FIELDS = (0, 1, 2, 5, 6)


class CpuShare:
    """The share of the host's busy CPU time that this process's cgroup had since this was made.

    Args:
        root: Where the file system begins.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._stat = root / "proc/stat"
        self._usage_s = _find_counter(root)
        self._began = self._read_s()

    @property
    def shared(self) -> bool:
        """Whether the process is in a cgroup below the root, so that others may be beside it."""
        return self._usage_s is not None

    def share(self) -> float | None:
        """Return the share, from 0 to 1; ``None`` where it is not known."""
        now = self._read_s()
        if now is None or self._began is None:
            return None
        used_s, busy_s = (end - begin for end, begin in zip(now, self._began, strict=True))
        if busy_s < _MIN_BUSY_S or used_s < 0:
            return None
        return min(used_s / busy_s, 1.0)

    def _read_s(self) -> tuple[float, float] | None:
        """Return the CPU seconds of the cgroup and the busy ones of the host, since the boot."""
        if self._usage_s is None:
            return None
        try:
            with self._stat.open() as file:  # of the long file, the first line
                ticks = [int(field) for field in file.readline().split()[1:]]
            busy_s = sum(ticks[field] for field in _BUSY_FIELDS) / os.sysconf("SC_CLK_TCK")
            return self._usage_s(), busy_s
        except (OSError, ValueError, IndexError):
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mount:
    root: str
    point: str
    kind: str
    options: tuple[str, ...]

    def counts_cpu(self, version: int) -> bool:
        """Whether CPU time is counted in this tree of cgroups."""
        if version == 2:
            return self.kind == "cgroup2"
        return self.kind == "cgroup" and "cpuacct" in self.options


def _find_counter(root: Path) -> Callable[[], float] | None:
    """Return what reads this process's cgroup's CPU seconds; ``None`` in the root cgroup."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        mounts = tuple(_mounts((root / "proc/self/mountinfo").read_text()))
    except OSError:  # no Linux
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpuacct" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        folder = _folder(root, path, [mount for mount in mounts if mount.counts_cpu(version)])
        if folder is None:
            continue
        # Each version has a file that only the root has, or only the root has not.
        if version == 2 and (folder / "cgroup.events").exists():
            return partial(_version_2_s, folder / "cpu.stat")
        if version == 1 and not (folder / "release_agent").exists():
            return partial(_version_1_s, folder / "cpuacct.usage")
    return None


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) >= 5 and len(rest) >= 3:
            options = tuple(rest[-1].split(","))
            yield _Mount(root=fields[3], point=fields[4], kind=rest[0], options=options)


def _folder(root: Path, path: str, mounts: list[_Mount]) -> Path | None:
    """Return where a cgroup's files are; a container may have only its own part mounted."""
    for mount in mounts:
        top = mount.root.rstrip("/")
        if path == mount.root or path.startswith(f"{top}/"):
            folder = root / mount.point.lstrip("/") / path[len(top) :].lstrip("/")
            if folder.is_dir():
                return folder
    return None


def _version_1_s(file: Path) -> float:
    return int(file.read_text()) / 1e9


def _version_2_s(file: Path) -> float:
    for line in file.read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / 1e6
    raise ValueError(f"{file} has no usage_usec")
