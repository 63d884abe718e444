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
    assert all(row["value"] == 50.0 and row["seeds"] == 2 for row in rows)
    assert {row["reach"] for row in rows} <= {50.0, 70.0, None}


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        (
            (0.004, 0.006),
            "-0.50 points against the full net (standard error 0.10), within",
        ),
        ((0.009, 0.011), "-1.00 points against the full net (standard error 0.10), NOT within 0.5"),
    ],
)
def test_a_row_says_whether_the_accuracy_held(parts, lost, words: str) -> None:
    found = [{"it": (share, each)} for share, each in zip((0.3, 0.5), lost, strict=True)]
    row = parts["nets"].row("exit", "it", found, reach=50.0)
    assert (row["value"], row["interval"]) == (40.0, (30.0, 50.0))
    assert words in row["note"]


def test_the_cheapest_setting_is_chosen_that_is_accurate_enough(parts) -> None:
    found = {"a": (0.8, 1.0), "b": (0.9, 3.0), "c": (0.91, 2.0)}
    cheapest = parts["nets"].cheapest
    assert cheapest("abc", found.__getitem__, 0.85) == "c"
    assert cheapest("abc", found.__getitem__, 0.75) == "a"
    assert cheapest("ab", found.__getitem__, 0.99) == "b"
