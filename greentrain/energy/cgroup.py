"""Estimate the share of a host's CPU time of this process's cgroup, or of the process itself.

A container, a batch job or a service runs in a cgroup below the root, and the kernel counts its CPU
time. Its share of the whole host's CPU time estimates its part of the CPU's energy. The estimate
ignores clocks, idle power and memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import psutil

from greentrain.energy.job_share import JobShare, share_of_times

# Busy time is counted in ticks of 10 ms: below this, the share would be noise.
_MIN_BUSY_S = 0.1
# user, nice, system, irq, softirq of /proc/stat; guests are in user, stolen time ran elsewhere.
_BUSY_FIELDS = (0, 1, 2, 5, 6)
_ALL_FIELDS = 8  # and idle, iowait and steal


class CpuShare:
    """Compare the CPU time of this process's cgroup with the host's, from its creation on.

    Args:
        root: Root of the file system.
        process_s: Returns the CPU seconds of this process and those that it started. Outside of a
            cgroup they are compared with the host's.
    """

    def __init__(
        self, root: Path = Path("/"), *, process_s: Callable[[], float] | None = None
    ) -> None:
        self._stat = root / "proc/stat"
        self._usage_s = _find_counter(root)
        self._own_s = self._usage_s or process_s or process_tree_s
        self._began = self._read_s()

    @property
    def shared(self) -> bool:
        """``True`` if the process is in a cgroup below the root, so others may share the host."""
        return self._usage_s is not None

    def share(self) -> float | None:
        """Return the share of busy CPU time, from 0 to 1; ``None`` if it is unknown."""
        share = self.job_share() if self.shared else None
        return None if share is None else share.high

    def job_share(self) -> JobShare | None:
        """Return the share of this job, also of a process outside of a cgroup."""
        now = self._read_s()
        if now is None or self._began is None:
            return None
        used_s, busy_s, all_s = (now[field] - self._began[field] for field in range(3))
        if busy_s < _MIN_BUSY_S:
            return None
        of = "cgroup" if self.shared else "process and those it started"
        return share_of_times(used_s, busy_s, all_s, f"busy CPU time of this {of}, by the kernel")

    def _read_s(self) -> tuple[float, float, float] | None:
        """Return the CPU seconds of the job, and the busy and all ones of the host."""
        try:
            with self._stat.open() as file:  # only the first line of a long file
                ticks = [int(field) for field in file.readline().split()[1:]]
            hertz = os.sysconf("SC_CLK_TCK")
            busy_s = sum(ticks[field] for field in _BUSY_FIELDS) / hertz
            return self._own_s(), busy_s, sum(ticks[:_ALL_FIELDS]) / hertz
        except (OSError, ValueError, IndexError, psutil.Error):
            return None


def process_tree_s() -> float:
    """Return the CPU seconds of this process, of its ended children, and of its running ones."""
    own = psutil.Process()
    used_s = float(sum(own.cpu_times()[:4]))  # of itself and of ended children
    for child in own.children(recursive=True):
        try:
            used_s += sum(child.cpu_times()[:4])
        except psutil.NoSuchProcess:
            continue  # it ended in between
    return used_s


def _find_counter(root: Path) -> Callable[[], float] | None:
    """Return a function that reads the cgroup's CPU seconds; ``None`` in the root cgroup."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        mountinfo = (root / "proc/self/mountinfo").read_text()
    except OSError:  # not Linux
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpuacct" not in controllers.split(","):
            continue
        version = 1 if controllers else 2
        folder = _folder(root, path, _mounts(mountinfo, version))
        if folder is None:
            continue
        # In version 2 only the root lacks this file; in version 1 only the root has the other.
        if version == 2 and (folder / "cgroup.events").exists():
            return partial(_version_2_s, folder / "cpu.stat")
        if version == 1 and not (folder / "release_agent").exists():
            return partial(_version_1_s, folder / "cpuacct.usage")
    return None


def _mounts(mountinfo: str, version: int) -> Iterator[tuple[str, str]]:
    """Return root and mount point of each tree of cgroups that counts CPU time."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        if len(fields) >= 5 and len(rest) >= 3:
            version_1 = rest[0] == "cgroup" and "cpuacct" in rest[-1].split(",")
            if rest[0] == "cgroup2" if version == 2 else version_1:
                yield fields[3], fields[4]


def _folder(root: Path, path: str, mounts: Iterator[tuple[str, str]]) -> Path | None:
    """Return the folder of a cgroup's files; a container may have only its own part mounted."""
    for top, point in mounts:
        if path == top or path.startswith(f"{top.rstrip('/')}/"):
            folder = root / point.lstrip("/") / path[len(top.rstrip("/")) :].lstrip("/")
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
