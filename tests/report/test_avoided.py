"""Energy avoided, against ledgers whose counterfactual can be worked out by hand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.ledger import Ledger, RunLog, canonical
from greentrain.report import build
from greentrain.report.avoided import (
    DEFAULT_INTENSITY,
    LESS,
    MORE,
    NO_DECISION,
    NO_INTENSITY,
    NONE_KNOWN,
    NOT_SIGNIFICANT,
    TOO_FEW,
    interval_j,
)
from greentrain.report.baseline_retrainings import NOTHING_TO_COMPARE
from greentrain.report.baseline_retrainings import TOO_FEW as TOO_FEW_CONTROLS
from greentrain.report.write import render_json
from tests.report.ledgers import come, decide, window


def offers(full_j: float | None, sd_j: float = 0.0) -> str:
    """Alternatives, with a full retraining at half and, where it is known, at all of its steps."""
    listed = [offer("SKIP", 0.0, 0.0, 0.0), offer("FULL_RETRAIN", 0.5, 1.0, 0.0)]
    if full_j is not None:
        listed.append(offer("FULL_RETRAIN", 1.0, full_j, sd_j))
    return canonical(listed)


def offer(mode: str, step_fraction: float, predicted_j: float, sd_j: float) -> dict[str, object]:
    return {
        "update_mode": mode,
        "step_fraction": step_fraction,
        "predicted_j": predicted_j,
        "cost_sd_j": sd_j,
        "steps": 1,
    }


def opened(ledger: Ledger, **environment: object) -> tuple[RunLog, str]:
    run = ledger.open_run("stream", "digits", environment=environment)
    return run, ledger.open_budget("digits", Budget.parse("10 Wh"))


def lived(
    run: RunLog,
    budget: str,
    position: int,
    *,
    full_j: float | None,
    drawn_j: float,
    sd_j: float = 0.0,
    emissions: Emissions | None = None,
) -> None:
    """An experience that was skipped after a look of so many joules."""
    decide(run, budget, position, alternatives=offers(full_j, sd_j))
    window(run, drawn_j, 0.0, phase="probe", emissions=emissions)
    come(run, position, energy_j=drawn_j)


def energy(ledger: Ledger) -> dict[str, object]:
    return build(ledger)["avoided"]["energy"]


def test_it_is_what_full_retraining_would_have_used_less_what_was(ledger):
    run, budget = opened(ledger)
    for position in range(5):
        lived(run, budget, position, full_j=1000.0, drawn_j=100.0)
    run.close()
    found = energy(ledger)
    assert (found["avoided_j"], found["avoided_wh"]) == (4500.0, 1.25)
    assert (found["modelled_full_j"], found["used_j"]) == (5000.0, 500.0)
    assert (found["method"], found["experiences"]) == ("modelled", 5)
    # All experiences are alike and the model is sure: there is nothing to be unsure of.
    assert (found["interval"]["low_j"], found["interval"]["high_j"]) == (4500.0, 4500.0)
    assert (found["significant"], found["sentence"]) == (True, LESS)


def test_the_models_error_is_shared_by_all_predictions(ledger):
    run, budget = opened(ledger)
    for position in range(5):
        lived(run, budget, position, full_j=1000.0, drawn_j=100.0, sd_j=100.0)
    run.close()
    found = energy(ledger)
    assert found["model_sd_j"] == 500.0  # added up, not in quadrature
    # 1.96 standard deviations of 500 J to either side, up to the sampling of 2,000 replicates.
    assert found["interval"]["low_j"] == pytest.approx(4500 - 980, abs=80)
    assert found["interval"]["high_j"] == pytest.approx(4500 + 980, abs=80)


def test_an_interval_with_zero_in_it_is_not_significant(ledger):
    run, budget = opened(ledger)
    for position, full_j in enumerate((0.0, 900.0, 0.0, 0.0, 0.0, 0.0)):
        lived(run, budget, position, full_j=full_j, drawn_j=100.0)
    run.close()
    found = energy(ledger)
    assert found["avoided_j"] == 300.0
    assert (found["significant"], found["sentence"]) == (False, NOT_SIGNIFICANT)


def test_more_than_full_retraining_is_said_as_such(ledger):
    run, budget = opened(ledger)
    for position in range(5):
        lived(run, budget, position, full_j=10.0, drawn_j=100.0)
    run.close()
    found = energy(ledger)
    assert (found["avoided_j"], found["sentence"]) == (-450.0, MORE)


def test_few_experiences_have_no_interval(ledger):
    run, budget = opened(ledger)
    lived(run, budget, 0, full_j=1000.0, drawn_j=100.0)
    run.close()
    found = energy(ledger)
    assert (found["avoided_j"], found["interval"]) == (900.0, None)
    assert (found["significant"], found["sentence"]) == (False, TOO_FEW)


def test_what_no_decision_predicted_is_counted_and_left_out_on_both_sides(ledger):
    run, budget = opened(ledger)
    lived(run, budget, 0, full_j=1000.0, drawn_j=100.0)
    lived(run, budget, 1, full_j=None, drawn_j=40.0)
    decide(run, budget, 2, reason="BUDGET_EXHAUSTED", alternatives=canonical([]))
    come(run, 2)
    run.close()
    found = energy(ledger)
    assert found["avoided_j"] == 900.0
    assert found["without_prediction"] == {"BUDGET_EXHAUSTED": 1, "NO_GAIN": 1}
    assert found["left_out_j"] == 40.0


def test_a_full_retraining_avoids_nothing_and_its_probes_are_charged(ledger):
    run, budget = opened(ledger)
    reservation = ledger.account(budget, run).reserve(4000.0, "all")
    decide(
        run,
        budget,
        0,
        update_mode="FULL_RETRAIN",
        step_fraction=1.0,
        reservation_id=reservation,
        alternatives=offers(9999.0, 500.0),  # what it drew is known better than that
    )
    window(run, 70.0, 0.0, phase="calibration")
    window(run, 3000.0, 0.0, reservation_id=reservation)
    come(run, 0, steps=10, planned_steps=10, energy_j=3070.0)
    run.close()
    found = energy(ledger)
    assert (found["avoided_j"], found["model_sd_j"]) == (-70.0, 0.0)


def test_interrupted_updates_and_probes_without_an_end_are_charged(ledger):
    run, budget = opened(ledger)
    lived(run, budget, 0, full_j=1000.0, drawn_j=100.0)
    window(run, 30.0, 0.0, phase="probe")  # a look at what came next
    reservation = ledger.account(budget, run).reserve(4000.0, "update")
    decide(
        run,
        budget,
        1,
        update_mode="REPLAY",
        step_fraction=1.0,
        reservation_id=reservation,
        alternatives=offers(1000.0),
    )
    window(run, 200.0, 0.0, reservation_id=reservation)
    window(run, 5000.0, 0.0, phase="idle")
    run.close("failed")
    found = energy(ledger)
    assert found["interrupted"] == 1
    assert found["overhead_j"] == 230.0
    assert found["avoided_j"] == 1000.0 - 100.0 - 230.0


def test_without_decisions_or_predictions_nothing_is_claimed(ledger):
    found = build(ledger)["avoided"]
    assert (found["energy"]["avoided_j"], found["energy"]["sentence"]) == (None, NO_DECISION)
    assert found["carbon"]["avoided_g"] is None
    run, budget = opened(ledger)
    decide(run, budget, 0)
    come(run, 0)
    run.close()
    assert (energy(ledger)["avoided_j"], energy(ledger)["sentence"]) == (None, NONE_KNOWN)


SERIES = {"intensity": {"source": "a grid", "data_year": None}, "pue": None}
YEARLY = {"intensity": {"source": "a table", "data_year": 2023}, "pue": None}


@pytest.mark.parametrize(
    ("carbon", "grams", "sentence"),
    [(SERIES, 0.01, None), (SERIES, None, NO_INTENSITY), (YEARLY, 0.01, DEFAULT_INTENSITY)],
)
def test_grams_only_at_an_intensity_that_was_measured(ledger, carbon, grams, sentence):
    run, budget = opened(ledger, carbon=carbon)
    emissions = None if grams is None else Emissions(grams=grams, intensity_g_per_kwh=360.0)
    for position in range(5):
        lived(run, budget, position, full_j=1000.0, drawn_j=100.0, emissions=emissions)
    run.close()
    report = build(ledger)
    found = report["avoided"]["carbon"]
    if sentence is None:
        # 0.01 g for 100 J are 360 g/kWh, and 4,500 J at that are 0.45 g.
        assert found["avoided_g"] == pytest.approx(0.45)
        assert found["g_per_kwh"] == pytest.approx(360.0)
        assert found["low_g"] == pytest.approx(0.45)
    else:
        assert (found["avoided_g"], found["sentence"]) == (None, sentence)
    assert report["avoided"]["shifted"]["shifted_g"] is None


def test_it_is_taken_off_nothing_and_is_the_same_each_time(ledger):
    run, budget = opened(ledger)
    for position in range(7):
        lived(run, budget, position, full_j=900.0 + position, drawn_j=100.0, sd_j=33.0)
    run.close()
    report = build(ledger)
    assert report["totals"]["energy_j"] == 700.0
    assert render_json(report) == render_json(build(ledger))
    assert json.loads(render_json(report))["avoided"]["energy"]["significant"] is True


def controlled(
    ledger: Ledger,
    run: RunLog,
    budget: str,
    position: int,
    *,
    drawn_j: float,
    metrics: tuple[float, float] = (0.5, 0.5),
    steps: int = 10,
    complete: bool = True,
) -> None:
    """A control of so many joules besides a look of 7 J at the stream's own model."""
    reservation = ledger.account(budget, run).reserve(1000.0, "control")
    decide(
        run,
        budget,
        position,
        update_mode="FULL_RETRAIN",
        step_fraction=1.0,
        reason="BASELINE",
        reservation_id=reservation,
    )
    window(run, 7.0, 0.0, phase="probe", reservation_id=reservation)
    window(run, drawn_j if complete else None, 0.0, phase="control", reservation_id=reservation)
    come(
        run,
        position,
        reservation_id=reservation,
        metric_before=metrics[0],
        metric_after=metrics[1],
        steps=steps,
        planned_steps=10,
        energy_j=drawn_j + 7.0,
    )


def with_controls(
    ledger: Ledger, metrics: list[tuple[float, float]], mode: str = "max"
) -> dict[str, object]:
    run, budget = opened(ledger, settings={"mode": mode})
    for position, pair in enumerate(metrics):
        lived(run, budget, position, full_j=1000.0, drawn_j=100.0 + 10.0 * position)
        controlled(ledger, run, budget, position, drawn_j=600.0, metrics=pair)
    run.close()
    return build(ledger)["avoided"]


def test_without_controls_nothing_is_measured(ledger):
    run, budget = opened(ledger)
    lived(run, budget, 0, full_j=1000.0, drawn_j=100.0)
    run.close()
    report = build(ledger)
    assert report["avoided"]["measured"] is None
    assert "as good as" not in render_json(report)


def test_controls_are_compared_with_what_the_stream_did(ledger):
    found = with_controls(ledger, [(0.8, 0.9), (0.9, 0.9), (1.0, 0.9)])
    measured = found["measured"]
    assert measured["method"] == "measured (3 baseline retrainings)"
    assert (measured["baseline_j"], measured["stream_j"]) == (600.0, 110.0)  # 100, 110, 120
    assert measured["avoided_j"] == 490.0
    assert measured["avoided_se_j"] == pytest.approx(10 / 3**0.5)
    assert measured["difference"] == pytest.approx(0.0)  # -0.1, 0 and 0.1
    assert measured["difference_se"] == pytest.approx(0.1 / 3**0.5)
    assert (measured["as_good"], measured["sentence"]) == (None, TOO_FEW_CONTROLS)
    # What is modelled stays modelled, with the controls' own joules charged: 3 * 607 J.
    modelled = found["energy"]
    assert (modelled["method"], modelled["experiences"]) == ("modelled", 3)
    assert modelled["overhead_j"] == pytest.approx(3 * 607.0)
    assert modelled["avoided_j"] == pytest.approx(3000.0 - 330.0 - 1821.0)


@pytest.mark.parametrize(
    ("pairs", "mode", "good"),
    [
        ([(0.9, 0.9)] * 5, "max", True),
        ([(0.8, 0.9), (0.8, 0.9), (0.8, 0.9), (0.8, 0.9), (0.9, 0.9)], "max", False),
        ([(0.8, 0.9), (0.8, 0.9), (0.8, 0.9), (0.8, 0.9), (0.9, 0.9)], "min", True),
        ([(0.8, 0.9), (1.0, 0.9), (0.8, 0.9), (1.0, 0.9), (0.9, 0.9)], "max", True),
        ([(0.9, 0.9)] * 4, "max", None),
    ],
)
def test_as_good_is_not_lower_by_a_standard_error(ledger, pairs, mode, good):
    measured = with_controls(ledger, pairs, mode)["measured"]
    assert measured["as_good"] is good
    assert measured["sentence"].startswith("as good as") == (good is True)


def test_controls_that_did_not_come_to_an_end_are_counted_apart(ledger):
    run, budget = opened(ledger, settings={"mode": "max"})
    for position in range(4):
        lived(run, budget, position, full_j=1000.0, drawn_j=100.0)
    controlled(ledger, run, budget, 1, drawn_j=300.0, steps=4)  # stopped at its cap
    controlled(ledger, run, budget, 2, drawn_j=300.0, complete=False)
    reservation = ledger.account(budget, run).reserve(500.0, "control")
    decide(run, budget, 3, reason="BASELINE", reservation_id=reservation)  # killed
    run.close("failed")
    report = build(ledger)
    measured = report["avoided"]["measured"]
    assert (measured["baseline_retrainings"], measured["unfinished"]) == (0, 3)
    assert (measured["method"], measured["sentence"]) == (None, NOTHING_TO_COMPARE)
    assert [one["status"] for one in report["experiences"]] == ["done"] * 4


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e5)), min_size=1, max_size=30),
    st.floats(0, 1e6),
)
def test_the_interval_is_ordered_and_what_is_charged_moves_it(pairs, charged_j):
    differences, sds = [one for one, _ in pairs], [sd for _, sd in pairs]
    low, high = interval_j(differences, sds, 0.0)
    assert low <= high
    moved = interval_j(differences, sds, charged_j)
    size = max(abs(low), abs(high), charged_j, 1.0)
    assert moved == pytest.approx((low - charged_j, high - charged_j), abs=2e-5 * size)
