"""Baseline policies: rules of the literature and simple schedules."""

from greentrain.control.policies.cara import (
    CaraCumulative,
    CaraPeriodic,
    CaraThreshold,
    fit_cara,
)
from greentrain.control.policies.drift_triggered import DriftTriggered
from greentrain.control.policies.fixed import Always, Greedy, Periodic, RandomFit
from greentrain.control.policies.rccda import RCCDA
from greentrain.control.policies.regret import CumulativeRegret
from greentrain.control.policies.upf import UPF

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
