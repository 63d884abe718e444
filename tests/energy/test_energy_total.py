"""Every result has its energy in J, Wh and kWh, and a table for notebooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from greentrain.callbacks import BudgetGuard, EnergyMonitor
from greentrain.carbon import Emissions
from greentrain.control import SKIP, Decision, Reason
from greentrain.control.action import NOTHING as NO_COST
from greentrain.decisions import UpdateOutcome
from greentrain.energy import NOTHING, ConstantMeter, EnergyTotal, Reading, Source, Window
from greentrain.measuring import Measurement
from greentrain.training import UpdateResult

MOMENT = datetime(2026, 11, 1, tzinfo=UTC)
READING = Reading(duration_s=36.0, energy_j={"cpu": 2000.0, "<gpu>": 1600.0})  # 100 W


def measurement() -> Measurement:
    made = Measurement("prepare <data>")
    made.reading = READING
    made.emissions = Emissions(grams=0.4)
    made.sources = (Source(name="cpu", method="estimated", relative_uncertainty=0.2),)
    return made


def update_result(energy_j: float) -> UpdateResult:
    decision = Decision(
        action=SKIP, reason=Reason.NO_GAIN, sentence="No gain", cost_j=NO_COST, gain=NO_COST
    )
    return UpdateResult(
        experience_id="a",
        position=0,
        decision=decision,
        energy_j=energy_j,
        update_j=0.0,
        metric_before=None,
        metric_after=None,
        steps=0,
        kept=True,
        left_j=0.0,
        emissions_g=0.4,
    )


RESULTS: list[Any] = [
    READING,
    Window(phase="fit", started=MOMENT, ended=MOMENT, reading=READING),
    measurement(),
    update_result(3600.0),
    UpdateOutcome(steps=1, energy_j=3600.0),
]


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_a_result_has_its_energy_in_three_units(result: EnergyTotal) -> None:
    assert (result.total_j, result.total_wh, result.total_kwh) == (3600.0, 1.0, 0.001)


@pytest.mark.parametrize(
    "result", [NOTHING, UpdateOutcome(steps=0)], ids=lambda result: type(result).__name__
)
def test_what_is_unknown_is_unknown_in_every_unit(result: EnergyTotal) -> None:
    assert (result.total_wh, result.total_kwh) == (None, None)


@pytest.mark.parametrize("result", RESULTS[:4], ids=lambda result: type(result).__name__)
def test_a_notebook_shows_a_table_in_which_names_are_text(result: Any) -> None:
    page = result._repr_html_()
    assert page.startswith("<table><caption>")
    assert page.endswith("</table>")
    assert "<gpu>" not in page
    assert "<data>" not in page


def test_the_table_of_a_measurement_has_method_and_grams() -> None:
    page = measurement()._repr_html_()
    assert "<tr><td>cpu</td><td>2,000 J</td><td>estimated</td></tr>" in page
    assert "<tr><td>emissions</td><td>0.4 g CO2e</td><td></td></tr>" in page
    assert measurement().emissions_g == 0.4


def test_a_result_of_a_stream_is_one_line() -> None:
    assert (
        str(update_result(3600.0))
        == "a: SKIP, nothing trained: metric unknown -> unknown, 0 steps, 1 Wh"
    )


def test_a_guard_shows_what_it_used_of_its_cap() -> None:
    page = BudgetGuard("2 Wh")._repr_html_()
    assert "<caption>BudgetGuard: 0 Wh of 2 Wh used</caption>" in page


def test_a_monitor_shows_its_total() -> None:
    page = EnergyMonitor(ConstantMeter(100.0))._repr_html_()
    assert "EnergyMonitor: unknown in 0.0 s" in page


def test_a_reading_says_where_it_is_incomplete() -> None:
    partly = Reading(duration_s=2.0, energy_j={"cpu": 60.0, "gpu:0": None})
    assert str(partly) == "at least 60 J in 2.0 s"
    assert str(READING) == "1 Wh in 36.0 s"
