"""Streams that pay from one budget in the simulator."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentrain.control import SKIP
from greentrain.errors import ConfigurationError
from greentrain.simulation import simulate, simulate_shared
from greentrain.simulation.recorded_table import UNTRAINED
from tests.simulation.tables import FULL, by_hand, merged, tables


@settings(max_examples=20)
@given(table=tables(most=3), budget_j=st.floats(1.0, 40.0))
def test_one_stream_alone_is_simulated_as_by_itself(table, budget_j: float) -> None:
    [found] = simulate_shared([table], budget_j)
    alone = simulate(table, None, budget_j)
    assert found.actions == alone.actions
    assert found.metrics == alone.metrics
    assert found.energy_j == alone.energy_j
    assert (found.violations, found.overrun_j) == (alone.violations, alone.overrun_j)


def test_what_one_stream_leaves_pays_for_another() -> None:
    # All full retrainings use 10 J, and 10 + 20 + 30 J.
    short = merged({(0, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (10.0, 0.8)}})
    results = simulate_shared([short, by_hand()], 120.0)
    assert [len(found.actions) for found in results] == [1, 3]
    assert results[0].energy_j == (10.0,)
    assert math.fsum(found.spent_j for found in results) <= 120.0
    assert sum(found.violations for found in results) == 0
    poor = simulate_shared([short, by_hand()], 10.0)
    assert math.fsum(found.spent_j for found in poor) <= 10.0
    assert sum(found.violations for found in poor) == 0


@pytest.mark.parametrize(("given_tables", "budget_j"), [(0, 10.0), (1, 0.0), (1, math.nan)])
def test_nothing_to_simulate_is_refused(given_tables: int, budget_j: float) -> None:
    with pytest.raises(ConfigurationError, match="give at least one table, and joules above 0"):
        simulate_shared([by_hand()] * given_tables, budget_j)
