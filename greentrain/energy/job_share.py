"""Estimate of one job's part of a device that other jobs use too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from greentrain.errors import ConfigurationError


@dataclass(frozen=True, slots=True, kw_only=True)
class JobShare:
    """Part of a source's joules that this job probably used; nothing is divided by it.

    A device also uses power while it is idle, and no meter shows which job that is for. So two
    shares bound the estimate. The lower one is the job's busy time as a share of all time: it
    takes the power as constant, and charges no idle time to the job. The upper one is the job's
    share of the busy time of all jobs: it charges idle power in proportion.

    Args:
        low: The lower share, from 0 to 1.
        high: The upper share, from 0 to 1.
        basis: The quantity that was compared, in one sentence.

    Raises:
        ConfigurationError: If the shares are not in order between 0 and 1.

    Example:
        >>> share = JobShare(low=0.2, high=0.5, basis="busy CPU time")
        >>> share.mean, round(share.standard_uncertainty, 4)
        (0.35, 0.0866)
    """

    low: float
    high: float
    basis: str

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise ConfigurationError(
                f"low and high are {self.low!r} and {self.high!r}; set 0 <= low <= high <= 1"
            )

    @property
    def mean(self) -> float:
        """The middle of both."""
        return (self.low + self.high) / 2

    @property
    def standard_uncertainty(self) -> float:
        """Standard uncertainty of the mean, from a uniform distribution between both.

        See JCGM 100:2008 (GUM), 4.3.7.
        """
        return (self.high - self.low) / math.sqrt(12)

    def as_dict(self) -> Mapping[str, float | str]:
        """Return the fields as plain values."""
        return {"low": self.low, "high": self.high, "basis": self.basis}


def share_of_times(own_s: float, busy_s: float, all_s: float, basis: str) -> JobShare | None:
    """Return the share of a job by times of the same period.

    Args:
        own_s: Time in which the job was busy.
        busy_s: The sum of the times in which each job was busy, this one included.
        all_s: All time of the device, idle or not: of a host, the seconds times its cores.
        basis: As for :class:`JobShare`.

    Returns:
        The share; ``None`` if no job was busy, or a time is negative.

    Example:
        >>> share = share_of_times(2.0, 4.0, 10.0, "busy CPU time")
        >>> share.low, share.high
        (0.2, 0.5)
    """
    if own_s < 0 or busy_s <= 0 or all_s <= 0:
        return None
    high = min(own_s / busy_s, 1.0)
    return JobShare(low=min(own_s / all_s, high), high=high, basis=basis)
