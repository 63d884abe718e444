"""Policies, the cost and utility models, and the controller that combines them."""

from greentrain.control.action import SKIP, Action, Candidate, Estimate, Option
from greentrain.control.controller import BudgetController, broke, no_labels, set_aside
from greentrain.control.cost import CostModel
from greentrain.control.decision import (
    Alternative,
    Decision,
    Reason,
    decided,
    inputs_as_dict,
    inputs_of,
    options_of,
)
from greentrain.control.forecast import OptionForecast, Prospect, Table
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
from greentrain.control.policies.policy import DecisionOutcome, Policy
from greentrain.control.policies.priced import PricedPolicy, solve_price
from greentrain.control.state import Past, State
from greentrain.control.step_plan import StepPlan
from greentrain.control.update_modes import UPDATE_MODES, ModeTraits, UpdateMode
from greentrain.control.utility import UtilityModel

__all__ = [
    "RCCDA",
    "SKIP",
    "UPDATE_MODES",
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
    "DecisionOutcome",
    "DriftTriggered",
    "Estimate",
    "Greedy",
    "LeastEnergy",
    "ModeTraits",
    "Option",
    "OptionForecast",
    "Past",
    "Periodic",
    "Policy",
    "PricedPolicy",
    "Prospect",
    "RandomFit",
    "Reason",
    "State",
    "StepPlan",
    "Table",
    "UpdateMode",
    "UtilityModel",
    "broke",
    "decided",
    "fit_cara",
    "inputs_as_dict",
    "inputs_of",
    "no_labels",
    "options_of",
    "set_aside",
    "solve_price",
]
