"""Estimate this job's share of an NVIDIA card from the driver's samples of each process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import psutil

from greentrain.energy.job_share import JobShare, share_of_times

_EVERY_S = 1.0
_BASIS = "time in which the card was busy for this process, by NVML's samples"


class CardShare:
    """Add up the utilisation of each process on a card.

    NVML keeps samples for some seconds only, so :meth:`update` has to be called all along. Each
    sample is the share of its period in which a kernel of the process ran
    (``nvmlDeviceGetProcessUtilization``). Memory on the card is no measure of energy, and not used.

    Args:
        samples: Returns the samples that are later than a time in microseconds.
        pids: Returns the process numbers of this job.
    """

    def __init__(
        self,
        samples: Callable[[int], Iterable[Any]],
        pids: Callable[[], frozenset[int]],
    ) -> None:
        self._samples, self._pids = samples, pids
        self._seen_us = 0
        self._read_s: float | None = None
        self._own = self._all = 0.0
        self._others = False
        self._periods = 0

    def update(self, now_s: float) -> None:
        """Read the samples, unless that was done within the last second.

        The first call only finds the latest sample: earlier ones are of the time before the start.
        """
        if self._read_s is not None and now_s - self._read_s < _EVERY_S:
            return
        first, self._read_s = self._read_s is None, now_s
        found = [each for each in self._samples(self._seen_us) if each.timeStamp > self._seen_us]
        self._seen_us = max((each.timeStamp for each in found), default=self._seen_us)
        if first or not found:
            return
        own = self._pids()
        self._periods += max(_counts(found).values())
        for each in found:
            busy = min(each.smUtil, 100) / 100
            self._all += busy
            self._own += busy if each.pid in own else 0.0
            self._others |= each.pid not in own and busy > 0

    @property
    def share(self) -> JobShare | None:
        """The share; ``None`` unless another process was seen, and this one too."""
        if not self._others or self._own == 0:
            return None
        return share_of_times(self._own, self._all, max(self._all, self._periods), _BASIS)


def own_processes() -> frozenset[int]:
    """Return the numbers of this process and of all that it has started."""
    try:
        children = psutil.Process().children(recursive=True)
    except psutil.Error:  # not permitted
        children = []
    return frozenset([os.getpid(), *(child.pid for child in children)])


def _counts(samples: Iterable[Any]) -> Mapping[int, int]:
    found: dict[int, int] = {}
    for each in samples:
        found[each.pid] = found.get(each.pid, 0) + 1
    return found
