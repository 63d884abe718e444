"""Decides: policies, the cost and utility models, and the controller that joins them."""

from greentrain.control.action import (
    SKIP,
    Action,
    Candidate,
    Estimate,
    Option,
    Past,
    State,
    Table,
    UpdateMode,
)
from greentrain.control.controller import BudgetController, broke
from greentrain.control.cost import CostModel
from greentrain.control.decision import Alternative, Decision, Reason, decided, options_of
from greentrain.control.policies import (
    RCCDA,
    UPF,
    Always,
    CaraCumulative,
    CaraPeriodic,
    CaraThreshold,
    CumulativeRegret,
    DriftTriggered,
    Greedy,
    Periodic,
    RandomFit,
    fit_cara,
)
from greentrain.control.policies.least_energy import LeastEnergy
from greentrain.control.policies.priced import Policy, PricedPolicy, solve_price
from greentrain.control.shared_forecast import Prospect
from greentrain.control.utility import UtilityModel

__all__ = [
    "RCCDA",
    "SKIP",
    "UPF",
    "Action",
    "Alternative",
    "Always",
    "BudgetController",
    "Candidate",
    "CaraCumulative",
    "CaraPeriodic",
    "CaraThreshold",
    "CostModel",
    "CumulativeRegret",
    "Decision",
    "DriftTriggered",
    "Estimate",
    "Greedy",
    "LeastEnergy",
    "Option",
    "Past",
    "Periodic",
    "Policy",
    "PricedPolicy",
    "Prospect",
    "RandomFit",
    "Reason",
    "State",
    "Table",
    "UpdateMode",
    "UtilityModel",
    "broke",
    "decided",
    "fit_cara",
    "options_of",
    "solve_price",
]
