"""The hash of a row is that of its canonical JSON, however the text is written."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from greentrain.ledger.hashing import GENESIS, canonical, row_hash

texts = st.text()
values = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)


@given(texts, st.integers(0), st.dictionaries(st.sampled_from("abcdef"), values))
def test_the_text_is_canonical_json(chain: str, seq: int, content: dict[str, Any]) -> None:
    entry = {"kind": "k", "chain": chain, "seq": seq, "recorded_utc": "now", "prev_hash": GENESIS}
    held = {name: value for name, value in content.items() if value is not None}
    expected = hashlib.sha256(canonical([entry, held]).encode()).hexdigest()
    assert row_hash(entry, {"entry_id": 1, **content}) == expected
