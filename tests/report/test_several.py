"""A report on several ledgers: the sum of the reports on each."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentrain.budget import Budget
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger
from greentrain.ledger.multi import verify_all
from greentrain.report import build, write
from tests.ledger.test_verify import alter, tell


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[Ledger]]:
    """Three ledgers with a stream each, two of them in files of one name."""
    opened = []
    for place in ("a/x.db", "b/x.db", "c.db"):
        ledger = Ledger(str(tmp_path / place))
        tell(ledger, ledger.open_budget("digits", Budget.parse("1 Wh", num_experiences=2)), place)
        opened.append(ledger)
    yield opened
    for ledger in opened:
        ledger.close()


def test_totals_add_up_and_chains_stay_apart(three: list[Ledger], tmp_path: Path) -> None:
    together, apart = build(three), [build(ledger) for ledger in three]
    assert [run["name"] for run in together["runs"]] == ["a/x.db", "b/x.db", "c.db"]
    assert [run["energy_j"] for run in together["runs"]] == [350.0] * 3
    # All three metered one processor in the same seconds, so it is counted once.
    assert together["totals"]["energy_j"] == apart[0]["totals"]["energy_j"] == 350.0
    assert together["totals"]["overlap_j"] == 700.0
    assert len(together["experiences"]) == 6
    for key in ("budgets", "experiences"):
        assert together[key] == [one for report in apart for one in report[key]]
    found = together["verification"]
    assert (found["ok"], found["failures"]) == (True, [])
    assert found["rows"] == sum(report["verification"]["rows"] for report in apart)
    assert found["command"] == "greentrain verify x.db 'x.db (2)' c.db"
    for name, report in zip(("x.db", "x.db (2)", "c.db"), apart, strict=True):
        for chain, head in report["verification"]["heads"].items():
            assert found["heads"][f"{name} {chain}"] == head
    assert build(three) == together
    one = build(three, run=together["runs"][1]["run_id"])
    assert len(one["runs"]) == 1
    assert len(one["verification"]["heads"]) == 3 * 2 + 1
    assert {path.name for path in write(together, tmp_path)} == {"report.html", "report.json"}


def test_its_heads_can_be_compared_with(three: list[Ledger], tmp_path: Path) -> None:
    (report,) = write(build(three[1:]), tmp_path, ("json",))
    names = [str(tmp_path / "b" / "x.db"), str(tmp_path / "c.db")]
    assert verify_all(names, report)[1] == 0
    assert verify_all(names[1:], report)[1] == 0
    with pytest.raises(ConfigurationError, match="holds no heads of"):
        verify_all([str(shutil.copy(names[0], tmp_path / "d.db"))], report)


def test_what_does_not_follow_is_named_with_its_ledger(three: list[Ledger], tmp_path: Path) -> None:
    alter(tmp_path / "c.db", "UPDATE outcomes SET metric_after = 0.99")
    found = build(three)["verification"]
    assert not found["ok"]
    assert all(failure.startswith("c.db: row ") for failure in found["failures"])


def test_a_ledger_and_its_copy_are_not_added_up(three: list[Ledger], tmp_path: Path) -> None:
    three[2].close()
    copy = Ledger(str(shutil.copy(tmp_path / "c.db", tmp_path / "copy.db")))
    with pytest.raises(
        ConfigurationError, match=r"is in 'c\.db' and in 'copy\.db': one ledger is a copy"
    ):
        build([three[2], copy])
    copy.close()
    with pytest.raises(ConfigurationError, match="none was given"):
        build([])
