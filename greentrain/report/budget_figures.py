"""Types of the budgets in the report document."""

from __future__ import annotations

from typing import Any, TypedDict

from greentrain.budget import Period, Unit


class Amounts(TypedDict):
    """Amounts of a budget; those that are not in its unit are ``None``."""

    total_j: float | None
    total_wh: float | None
    total_g: float | None
    spent_j: float | None
    spent_wh: float | None
    spent_g: float | None
    reserved_j: float | None
    reserved_wh: float | None
    reserved_g: float | None
    promised_j: float | None
    promised_wh: float | None
    promised_g: float | None
    left_j: float | None
    left_wh: float | None
    left_g: float | None
    overrun_j: float | None
    overrun_g: float | None


class BudgetFigures(Amounts):
    """A budget with its payments."""

    budget_id: str
    name: str
    given_as: str
    unit: Unit
    num_experiences: int
    per: Period | None
    carry_over: bool
    periods: int
    until_utc: str | None
    parent: str | None
    opened_utc: str
    pays_for_updates: bool
    kept: bool
    charged_unmeasured_j: float
    overruns: list[dict[str, Any]]
    open_reservations: list[dict[str, Any]]
    released: list[dict[str, Any]]
    spending: list[dict[str, Any]]
