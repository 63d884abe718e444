"""The line of an experience: figures in one unit, in 80 columns, and faults at its end."""

from __future__ import annotations

from typing import Any

import pytest

from greentrain.budget import Budget
from greentrain.cli.experience_lines import ExperienceLines, most_instructive
from greentrain.control import Action, Decision, Reason, UpdateMode
from greentrain.control.action import Estimate
from greentrain.training import UpdateResult


def result(**changes: Any) -> UpdateResult:
    action = changes.pop("action", Action(mode=UpdateMode.FULL_RETRAIN, step_fraction=0.5))
    cost_j = Estimate(mean=15.0, sd=1.0, upper=17.0)
    decision = Decision(
        action=action, reason=Reason.NO_GAIN, sentence="", cost_j=cost_j, gain=cost_j
    )
    fields: dict[str, Any] = {
        "experience_id": "3-new-classes",
        "position": 2,
        "decision": decision,
        "energy_j": 10.0,
        "update_j": 9.0,
        "metric_before": 0.716,
        "metric_after": 0.962,
        "steps": 10,
        "kept": True,
        "left_j": 101.0,
    }
    return UpdateResult(**{**fields, **changes})


def lines(amount_j: float, *, percent: bool = True) -> ExperienceLines:
    budget = Budget(energy_j=amount_j, num_experiences=8)
    return ExperienceLines("val_acc", budget, percent=percent)


def test_a_line_has_the_columns_of_the_header() -> None:
    shown = lines(150.0)
    assert shown.header.split() == ["#", "experience", "action", "pred.", "used", "val_acc", "left"]
    line = shown.line(result())
    assert line.split("  ")[0] == " 2"
    assert "3-new-classes full retrain 50 %" in line
    assert "71.6 -> 96.2 %" in line
    assert line.endswith("101 J")
    assert len(line) <= 80
    assert (line.index("71.6"), len(line)) == (shown.header.index("val_acc"), len(shown.header))


def test_what_is_not_known_is_a_dash_and_a_loss_is_no_percentage() -> None:
    assert "- -> 96.2 %" in lines(150.0).line(result(metric_before=None))
    line = lines(150.0, percent=False).line(result(metric_before=None, metric_after=2.25))
    assert "- -> 2.25 " in line


@pytest.mark.parametrize(("amount_j", "left"), [(3599.0, "0.5 J"), (3600.0, "0.00 Wh")])
def test_a_budget_below_a_watt_hour_is_shown_in_joules(amount_j: float, left: str) -> None:
    line = lines(amount_j).line(result(left_j=0.5))
    assert line.endswith(left)
    assert len(line) <= 80


def test_what_went_wrong_is_at_the_end() -> None:
    line = lines(150.0).line(result(kept=False, overrun_j=3.3))
    assert line.endswith("101 J  not kept  3.3 J over its reservation")


def test_the_explanation_to_read_is_that_of_the_largest_change() -> None:
    worse = result(experience_id="worse", metric_before=0.9, metric_after=0.5)
    first = result(experience_id="first", metric_before=None)
    assert most_instructive([first, result(), worse]).experience_id == "worse"
    assert most_instructive([first]).experience_id == "first"
