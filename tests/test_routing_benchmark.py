"""The rows of routing say what was saved, and whether the accuracy held."""

from __future__ import annotations

from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "examples" / "benchmarks"


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from _reuse import exits, frugal, nets, routing

    return {"exits": exits, "frugal": frugal, "nets": nets, "routing": routing}


@pytest.mark.parametrize(
    ("name", "ids"), [("exits", {"exit"}), ("routing", {"routing"}), ("frugal", {"frugal"})]
)
def test_each_part_has_its_rows(parts, name: str, ids: set[str]) -> None:
    class Same(dict[str, tuple[float, float]]):
        def __missing__(self, what: str) -> tuple[float, float]:
            return 0.5, 0.002

    rows = parts[name].table([Same(), Same()])
    assert {row["id"] for row in rows} == ids
    assert len({row["what"] for row in rows}) == len(rows)
    assert [row["value"] for row in rows] == pytest.approx([50.0, 0.2] * (len(rows) // 2))
    assert {(row["reach"], row["unit"]) for row in rows if row["reach"]} <= {
        *((50.0, "% of the full net's"), (70.0, "% of the full net's"), (0.5, "points"))
    }


def test_rows_say_what_was_saved_and_what_it_costs(parts) -> None:
    found = [{"a way: steps": (0.3, 0.009)}, {"a way: steps": (0.5, 0.011)}]
    saved, lost = parts["nets"].pair_of_rows("exit", "a way: steps", found, reach=50.0)
    assert (saved["value"], saved["interval"]) == (40.0, (30.0, 50.0))
    assert lost["what"] == "a way: test accuracy lost against the full net"
    assert (lost["value"], lost["reach"]) == (pytest.approx(1.0), 0.5)
    assert lost["note"].startswith("Standard error 0.10; each seed: 0.90, 1.10.")


def test_the_cheapest_setting_is_chosen_that_is_accurate_enough(parts) -> None:
    found = {"a": (0.8, 1.0), "b": (0.9, 3.0), "c": (0.91, 2.0)}
    cheapest = parts["nets"].cheapest
    assert cheapest("abc", found.__getitem__, 0.85) == "c"
    assert cheapest("abc", found.__getitem__, 0.75) == "a"
    assert cheapest("ab", found.__getitem__, 0.99) == "b"
