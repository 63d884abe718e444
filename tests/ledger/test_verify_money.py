"""The rules of the money, applied to rows whose hashes would all be right."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any

import pytest

from greentrain.ledger import RowReader
from greentrain.ledger.verify_money import MoneyCheck

NOON = "2026-11-30T12:00:00.000000+00:00"
NOVEMBER, DECEMBER = (f"2026-{month}-01T00:00:00.000000+00:00" for month in (11, 12))
KINDS = ("budget", "reservation", "settlement", "window", "heartbeat", "closing")


class Found(RowReader):
    """Rows in memory, as a ledger would find them."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        self.held = rows

    def _rows(self, kind: str, equals: Mapping[str, Any]) -> list[dict[str, Any]]:
        return [row for row in self.held[kind] if all(row[name] == equals[name] for name in equals)]


class Rows:
    """Rows that follow one another, each with what is usual unless told otherwise."""

    def __init__(self) -> None:
        self.count = 0
        self.rows: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, at: str = NOON, **content: Any) -> Rows:
        self.count += 1
        entry = {"entry_id": self.count, "recorded_utc": at, "run_id": "run"}
        self.rows[kind].append({**entry, **content})
        return self

    def budget(self, name: str, at: str = NOON, **terms: Any) -> Rows:
        usual = {
            "parent_id": None,
            "energy_j": 100.0,
            "carbon_g": None,
            "num_experiences": 1,
            "until_utc": None,
            "per": None,
            "carry_over": False,
            "given_as": "",
        }
        return self.add("budget", at, budget_id=name, name=name, **{**usual, **terms})

    def reservation(
        self, name: str, amount: float, sums: tuple[Any, ...], at: str = NOON, **changes: Any
    ) -> Rows:
        usual = {"budget_id": "budget", "period": "", "amount_j": amount, "amount_g": None}
        content = {**usual, "purpose": "an update", **self.sums(sums), **changes}
        return self.add("reservation", at, reservation_id=name, **content)

    def settlement(
        self, name: str, actual: float, sums: tuple[Any, ...], overrun: float = 0.0, **changes: Any
    ) -> Rows:
        usual = {"budget_id": "budget", "period": "", "actual_j": actual, "overrun_j": overrun}
        carbon = {"actual_g": None, "overrun_g": None, "released": None}
        content = {**usual, **carbon, **self.sums(sums), **changes}
        return self.add("settlement", reservation_id=name, **content)

    def drawn(self, kind: str, name: str, energy_j: float, phase: str = "probe") -> Rows:
        content = {"reservation_id": name, "energy_j": energy_j, "complete": True}
        return self.add(kind, phase=phase, started_utc=NOON, emissions_g=None, **content)

    @staticmethod
    def sums(sums: tuple[Any, ...]) -> dict[str, Any]:
        names = ("sum_open", "sum_reserved", "sum_spent", "sum_overrun")
        return dict(zip(names, sums, strict=True))

    def check(self) -> tuple[list[str], list[str]]:
        """Return the failures and the notes."""
        check = MoneyCheck(Found(self.rows))
        every = [(row["entry_id"], kind, row) for kind, held in self.rows.items() for row in held]
        for _, kind, row in sorted(every, key=itemgetter(0)):
            if kind in ("budget", "reservation", "settlement", "window"):
                getattr(check, kind)(row)
        return list(check.failures()), list(check.notes())

    @property
    def failures(self) -> list[str]:
        return self.check()[0]


def told() -> Rows:
    """100 J, of which 60 J were reserved and 70 J drawn, and 30 J are reserved."""
    rows = Rows().budget("budget").reservation("a", 60.0, (1, 60.0, 0.0, 0.0))
    rows.drawn("window", "a", 70.0).settlement("a", 70.0, (0, 0.0, 70.0, 10.0), 10.0)
    return rows.reservation("b", 30.0, (1, 30.0, 70.0, 10.0))


def test_nothing_is_found_where_the_rules_were_kept() -> None:
    rows = told()
    assert rows.failures == []
    assert [note.split(":")[0] for note in rows.check()[1]] == ["overrun", "open"]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        (
            told().reservation("c", 11.0, (2, 41.0, 70.0, 10.0)),
            "after entry 6 the budget budget has 101 J spent, reserved and promised of 100 J",
        ),
        (told().reservation("c", 5.0, (2, 34.0, 70.0, 10.0)), "entry 6: its sums"),
        (told().reservation("c", 5.0, (1, 35.0, 70.0, 10.0)), "entry 6: its sums"),
        (told().settlement("b", 20.0, (0, 0.0, 80.0, 10.0)), "entry 6: its sums"),
        (told().settlement("b", 40.0, (0, 0.0, 110.0, 20.0), 0.0), "the overrun of b is not"),
        (told().settlement("a", 1.0, (0, 0.0, 71.0, 10.0)), "of a has no open reservation"),
        (told().settlement("x", 1.0, (0, 0.0, 71.0, 10.0)), "of x has no open reservation"),
        (
            told().settlement("b", 1.0, (0, 0.0, 71.0, 10.0), run_id="another"),
            "is not of its reservation",
        ),
        (
            told().drawn("window", "b", 25.0).settlement("b", 20.0, (0, 0.0, 90.0, 10.0)),
            "the settlement of b is 20 J and its windows sum to 25 J",
        ),
        (
            told()
            .drawn("heartbeat", "b", 25.0, "validation")
            .settlement("b", 20.0, (0, 0.0, 90.0, 10.0), released="recovered"),
            "the settlement of b is 20 J and its windows sum to 25 J",
        ),
        (Rows().reservation("a", 1.0, (1, 1.0, 0.0, 0.0)), "the budget budget, which was removed"),
        (Rows().budget("budget", per="year"), "entry 1: the budget 'budget' cannot be read"),
        (Rows().budget("budget", energy_j=None), "cannot be read"),
        (
            Rows().budget("budget").reservation("a", 1.0, (1, 1.0, 0.0, 0.0), amount_g=1.0),
            "is of g and its budget budget of J",
        ),
        (
            Rows()
            .budget("budget", per="month")
            .reservation("a", 1.0, (1, 1.0, 0.0, 0.0), period=DECEMBER),
            "was not taken from the period in which it was made",
        ),
        (
            Rows().budget("budget", until_utc=NOVEMBER).reservation("a", 1.0, (1, 1.0, 0.0, 0.0)),
            "was reserved after the end",
        ),
        (Rows().budget("child", parent_id="budget"), "the parent of the budget child was removed"),
        (
            Rows().budget("budget").budget("child", parent_id="budget", energy_j=101.0),
            "after entry 2 the budget budget has",
        ),
        (
            told().budget("child", parent_id="budget", energy_j=11.0),
            "after entry 6 the budget budget has",
        ),
        (
            Rows().budget("budget").budget("child", parent_id="budget", per="day"),
            "entry 2: the budget is renewed per day and its parent 'budget' never is",
        ),
        (
            Rows()
            .budget("budget", NOVEMBER, per="month", carry_over=True)
            .budget("one", DECEMBER, parent_id="budget", per="month", energy_j=60.0)
            .budget("two", DECEMBER, parent_id="budget", per="month", energy_j=60.0),
            "promises more than a period has",
        ),
    ],
)
def test_what_breaks_a_rule_is_found(rows: Rows, complaint: str) -> None:
    failures = rows.failures
    assert len(failures) >= 1
    assert any(complaint in failure for failure in failures)


def test_each_period_and_what_is_carried_over_may_be_spent() -> None:
    monthly = Rows().budget("budget", NOVEMBER, per="month")
    monthly.reservation("a", 100.0, (1, 100.0, 0.0, 0.0), period=NOVEMBER)
    monthly.reservation("b", 100.0, (1, 100.0, 0.0, 0.0), DECEMBER, period=DECEMBER)
    assert monthly.failures == []
    carried = Rows().budget("budget", NOVEMBER, per="month", carry_over=True)
    assert carried.reservation("a", 200.0, (1, 200.0, 0.0, 0.0), DECEMBER).failures == []
    carried.reservation("b", 1.0, (2, 201.0, 0.0, 0.0), DECEMBER)
    assert len(carried.failures) == 1
