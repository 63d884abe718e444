"""Drops that new data may cause, from a probe, from the past, and from labels and copies."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.control import State
from greentrain.control.staleness import drop_cases, staleness_cases

shares = st.floats(0.0, 1.0)


def state(**changes) -> State:
    fields = {
        "position": 3,
        "num_experiences": 8,
        "has_model": True,
        "metric_before": None,
        "metric_last": 0.8,
        "metric_ceiling": 1.0,
        "n_new": 100,
        "n_stored": 300,
    }
    return State(**{**fields, **changes})


def expected(cases) -> float:
    return math.fsum(value * weight for value, weight in cases)


def test_a_probe_leaves_one_drop():
    [(drop, weight)] = drop_cases(state(metric_new=0.4, metric_before=0.7), [0.5])
    assert (drop, weight) == (pytest.approx(0.1), 1.0)  # 0.4 on a quarter of the samples
    assert drop_cases(state(metric_new=0.9), []) == [(0.0, 1.0)]  # it scores better


def test_without_a_probe_the_prior_counts_as_one_experience():
    assert expected(drop_cases(state(), [])) == pytest.approx(0.25 * (0.1 * 0.15 + 0.5 * 0.15))
    past = [0.2] * 3
    assert expected(drop_cases(state(), past)) == pytest.approx(0.25 * (0.09 + 3 * 0.2) / 4)


def test_classes_never_seen_lose_the_metric_and_copies_lose_nothing():
    assert expected(drop_cases(state(unseen=1.0), [0.0] * 9)) == pytest.approx(0.25 * 0.8)
    assert expected(drop_cases(state(copies=1.0), [0.5] * 9)) == 0.0
    loss = state(unseen=1.0, metric_last=-0.4, metric_ceiling=0.0)
    assert expected(drop_cases(loss, [])) == pytest.approx(0.25 * 0.5 * 4.0)  # its unit is 4


@given(unseen=shares, copies=shares, stale=st.lists(st.floats(-1.0, 1.0), max_size=20))
def test_probabilities_add_up_and_no_drop_is_negative(unseen, copies, stale):
    cases = drop_cases(state(unseen=unseen, copies=copies), stale)
    assert math.fsum(weight for _, weight in cases) == pytest.approx(1.0)
    assert all(drop >= 0.0 for drop, _ in cases)


@given(stale=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50), unit=st.floats(0.1, 100.0))
def test_the_past_is_summarised_without_changing_its_mean(stale, unit):
    prior = unit * (0.1 * 0.15 + 0.5 * 0.15)
    mean = (prior + math.fsum(stale)) / (1 + len(stale))
    assert expected(staleness_cases(stale, unit)) == pytest.approx(mean)
