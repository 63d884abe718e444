"""Rules of the literature and simple schedules, as policies to compare with."""

from greentrain.control.baselines.cara import (
    CaraCumulative,
    CaraPeriodic,
    CaraThreshold,
    fit_cara,
)
from greentrain.control.baselines.drift import DriftTriggered
from greentrain.control.baselines.fixed import Always, Greedy, Periodic, RandomFit
from greentrain.control.baselines.rccda import RCCDA
from greentrain.control.baselines.regret import CumulativeRegret
from greentrain.control.baselines.upf import UPF

__all__ = [
    "RCCDA",
    "UPF",
    "Always",
    "CaraCumulative",
    "CaraPeriodic",
    "CaraThreshold",
    "CumulativeRegret",
    "DriftTriggered",
    "Greedy",
    "Periodic",
    "RandomFit",
    "fit_cara",
]
