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
from greentrain.control.baselines import (
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
from greentrain.control.controller import BudgetController, broke
from greentrain.control.cost import CostModel
from greentrain.control.decision import Alternative, Decision, Reason, decided, options_of
from greentrain.control.floor import LeastEnergy
from greentrain.control.oracle import Oracle, best_schedule
from greentrain.control.policy import Policy, PricedPolicy, solve_price
from greentrain.control.sharing import Prospect
from greentrain.control.simulation import (
    Simulated,
    always_full,
    follow,
    share_of_gap,
    simulate,
    train_once,
)
from greentrain.control.table import RecordedTable, read_table
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
    "Oracle",
    "Past",
    "Periodic",
    "Policy",
    "PricedPolicy",
    "Prospect",
    "RandomFit",
    "Reason",
    "RecordedTable",
    "Simulated",
    "State",
    "Table",
    "UpdateMode",
    "UtilityModel",
    "always_full",
    "best_schedule",
    "broke",
    "decided",
    "fit_cara",
    "follow",
    "options_of",
    "read_table",
    "share_of_gap",
    "simulate",
    "solve_price",
    "train_once",
]
