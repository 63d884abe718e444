"""The quick form of the pauses: none costs more than it saves, and no deadline is missed."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_pauses_cost_nothing_and_deadlines_are_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "benchmarks"))
    from _carbon.pausing import pausing

    rows = {row.id: row for row in pausing(tmp_path, quick=True)}
    assert set(rows) == {"callback_pause_cost", "pause_deadlines"}
    assert rows["pause_deadlines"].value == 0.0
    assert rows["pause_deadlines"].seeds > 500
    assert (
        rows["callback_pause_cost"].value < 0.1
    )  # % of the grams; a wrong forecast may cost a little
