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
from greentrain.control.decision import Alternative, Decision, Reason, options_of
from greentrain.control.policy import Always, Policy, PricedPolicy, solve_price
from greentrain.control.utility import UtilityModel

__all__ = [
    "SKIP",
    "Action",
    "Alternative",
    "Always",
    "BudgetController",
    "Candidate",
    "CostModel",
    "Decision",
    "Estimate",
    "Option",
    "Past",
    "Policy",
    "PricedPolicy",
    "Reason",
    "State",
    "Table",
    "UpdateMode",
    "UtilityModel",
    "broke",
    "options_of",
    "solve_price",
]
