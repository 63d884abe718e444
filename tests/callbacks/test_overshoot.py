"""No random fit uses more than its cap, and a cap that is large enough is used."""

from __future__ import annotations

import pytest

from tests.callbacks import overshoot

FITS = 20
"""Of each meter; the benchmark ``examples/benchmarks/ledger.py`` has 200."""


@pytest.mark.slow
@pytest.mark.parametrize("simulated", [False, True])
def test_no_cap_is_overshot_and_large_ones_are_used(simulated, request, tmp_path):
    outcomes = [
        overshoot.run(
            overshoot.case(seed, simulated=simulated),
            tmp_path,
            request.getfixturevalue("nvml_node") if simulated else None,
        )
        for seed in range(FITS)
    ]
    assert [each for each in outcomes if each.share > 1.0] == []
    large = [each for each in outcomes if each.case.enough and each.case.end == overshoot.SMALL_END]
    assert [each for each in large if each.share < 0.97] == []
    assert len(large) >= FITS // 5
    assert all(each.validations > 1 for each in large)
