"""The text is that of ``json.dumps``, which takes longer."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentrain.errors import LedgerError
from greentrain.report.exports.facts import json_text

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
)


@given(values, st.booleans())
def test_the_text_is_that_of_json(value: Any, sort_keys: bool) -> None:
    expected = json.dumps(value, indent=2, sort_keys=sort_keys) + "\n"
    assert json_text(value, sort_keys=sort_keys) == expected


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_figure_that_is_no_number_is_refused(bad: float) -> None:
    with pytest.raises(LedgerError, match=r"infinite or NaN"):
        json_text({"runs": [{"energy_j": bad}]})
