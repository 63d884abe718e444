"""``greentrain record`` and ``greentrain simulate``, as they are called."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner, Result

from greentrain.cli.app import app
from greentrain.cli.simulate_command import budget_of, simulate_all
from greentrain.control import RCCDA, SKIP, Action, Always, CaraThreshold, PricedPolicy, UpdateMode
from greentrain.errors import ConfigurationError
from greentrain.report.policy_chart import comparison_chart
from greentrain.simulation import Oracle, RecordedTable, best_schedule, read_table
from greentrain.simulation.named_policies import named_policy
from greentrain.simulation.recorded_table import UNTRAINED, to_line
from tests.simulation.tables import FULL, by_hand, merged


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments], catch_exceptions=True)


def refusal(*arguments: str) -> str:
    result = ask(*arguments)
    assert isinstance(result.exception, ConfigurationError)
    return str(result.exception)


def written(table: RecordedTable, path: Path) -> str:
    rows = [row for rows in table.rows.values() for row in rows]
    parts = [table.header, *table.probes.values(), *rows]
    path.write_text("".join(f"{to_line(part)}\n" for part in parts), encoding="utf-8")
    return str(path)


def answer(path: str, *arguments: str) -> list[dict[str, Any]]:
    result = ask("simulate", path, "--json", *arguments)
    assert result.exit_code == 0, result.output
    return list(json.loads(result.output)["cells"])


def test_a_cell_is_what_a_policy_reaches(tmp_path: Path) -> None:
    path = written(by_hand(), tmp_path / "table.jsonl")
    # 30 % of 60 J buy the best schedule of all: full, warm, warm, for 18 J and 0.8, 0.7, 0.7.
    (cell,) = answer(path, "--policies", "oracle", "--budgets", "30%")
    once, full = 0.6, 0.8
    assert cell["anytime"] == pytest.approx(2.2 / 3)
    assert cell["share"] == pytest.approx((2.2 / 3 - once) / (full - once))
    assert cell["spent"] == pytest.approx(1.0)
    assert (cell["policy"], cell["budget"], cell["violations"]) == ("oracle", "30%", 0)


def test_every_policy_is_judged_at_every_budget(tmp_path: Path) -> None:
    path = written(by_hand(), tmp_path / "table.jsonl")
    policies = "priced,periodic-2,cara-threshold-0.05-warm,greentrain.control:Greedy()"
    result = ask("simulate", path, "--policies", policies, "--budgets", "20%, 0.005Wh")
    assert result.exit_code == 0
    for name in policies.split(","):
        assert name in result.output
    assert "20% (12 J)" in result.output  # of 60 J
    assert "8 simulations in" in result.output
    assert "The gap is between training once (mean val_acc 0.6000)" in result.output
    assert "always retraining (0.8000 for 60 J)" in result.output


def test_a_table_has_a_row_for_each_policy_and_no_absurd_share(tmp_path: Path) -> None:
    """Where training once is nearly as good as always retraining, shares of the gap explode."""
    once = {SKIP: (0.0, 0.5), FULL: (1.0, 0.51)}
    spoiled = Action(mode=UpdateMode.REPLAY)
    near = merged(
        {
            (0, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (1.0, 0.5)},
            (1, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (1.0, 0.5)},
            (1, "updated-0"): {**once, spoiled: (0.1, 0.3)},
        }
    )
    path = written(near, tmp_path / "table.jsonl")
    (cell,) = answer(path, "--policies", "always-replay", "--budgets", "200%")
    assert cell["share"] == pytest.approx(-20.0)  # 0.1 worse on average, of a gap of 0.005
    output = ask("simulate", path).output
    assert "< -50 %" in output
    assert not re.search(r"-\d{3,}[\d.]* %", output)
    assert len(output.splitlines()) < 20  # 30 cells in 6 rows
    assert f"Next: greentrain simulate {path} --plot policies.svg" in output


def test_a_chart_shows_every_policy_and_budget(tmp_path: Path) -> None:
    path = written(by_hand(), tmp_path / "table.jsonl")
    chart = tmp_path / "cells.svg"
    result = ask("simulate", path, "--policies", "priced,oracle", "--plot", str(chart))
    assert result.exit_code == 0
    root = ElementTree.parse(chart).getroot()
    texts = {each.text for each in root.iter() if each.tag.endswith("text")}
    assert {"priced", "oracle", "2%", "5%", "10%", "20%", "50%", "100"} <= texts


def test_a_chart_leaves_out_what_is_not_known_and_escapes_names() -> None:
    chart = comparison_chart(["a", "b"], {"<one>": [0.5, None], "far": [-9.0, 1.2]})
    root = ElementTree.fromstring(chart)
    assert sum(each.tag.endswith("circle") for each in root.iter()) == 3
    assert "&lt;one&gt;" in chart
    assert "-900" not in chart  # what is far below is drawn at the floor


def test_several_tables_have_a_mean_and_a_standard_error(tmp_path: Path) -> None:
    better = merged(
        {
            place: {
                row.action: (row.energy_j, row.metric_after + (0.1 if row.action != SKIP else 0.0))
                for row in rows
            }
            for place, rows in by_hand().rows.items()
        }
    )
    (cell,) = simulate_all([by_hand(), better], ["always-full"], ["200%"])
    # The first is 0.8 all the time, the second 0.9: both close all of their gap.
    assert cell.anytime == pytest.approx(0.85)
    assert (cell.share, cell.share_se) == (1.0, 0.0)


def test_a_gap_that_scatter_makes_is_none() -> None:
    gains = (0.5, -0.3)
    tables = [
        merged(
            {
                (0, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (1.0, 0.5)},
                (1, UNTRAINED): {SKIP: (0.0, 0.1), FULL: (1.0, 0.5)},
                (1, "updated-0"): {SKIP: (0.0, 0.5), FULL: (1.0, 0.5 + gain)},
            }
        )
        for gain in gains
    ]
    assert simulate_all(tables, ["always-full"], ["200%"])[0].share is None
    assert simulate_all(tables[:1], ["always-full"], ["200%"])[0].share == 1.0
    assert simulate_all(tables[1:], ["always-full"], ["200%"])[0].share is None


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("priced", PricedPolicy()),
        ("always-warm", Always(mode=UpdateMode.WARM_START)),
        ("cara-threshold-0.02-replay", CaraThreshold(threshold=0.02, mode=UpdateMode.REPLAY)),
        ("rccda-5", RCCDA(weight=5)),
        ("greentrain.control:CaraThreshold(threshold=0.1)", CaraThreshold(threshold=0.1)),
        ("greentrain.control:PricedPolicy", PricedPolicy()),
    ],
)
def test_policies_have_names(name: str, policy: object) -> None:
    assert named_policy(name, by_hand()) == policy


def test_the_oracle_is_of_the_table() -> None:
    table = by_hand()
    assert named_policy("oracle", table) == Oracle(table)
    assert named_policy("oracle-full", table) == Oracle(table, frozenset({UpdateMode.FULL_RETRAIN}))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nope", "there is no policy 'nope'. Choose from always, cara-cumulative"),
        ("greedy-3", "there is no policy 'greedy-3'"),
        ("periodic-0", "every"),
        ("always", "cannot create the policy"),
        ("priced-warm", "cannot create the policy"),
        ("nowhere:Policy", "cannot import the policy"),
        ("greentrain.control:Nothing", "cannot import the policy"),
        ("greentrain.control:Greedy(", "write it as module:Class"),
        ("greentrain.control:Always('full')", "write it as module:Class"),
        ("greentrain.control:CostModel", "add a method decide"),
    ],
)
def test_what_is_no_policy_is_refused(name: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(said)):
        named_policy(name, by_hand())


def test_budgets_are_shares_or_energies() -> None:
    assert budget_of("50%", by_hand()) == 30.0
    assert budget_of("0.5Wh", by_hand()) == 1800.0
    for text, said in (("x%", "cannot read the budget"), ("0%", "not above 0"), ("-1J", "above 0")):
        with pytest.raises(ConfigurationError, match=said):
            budget_of(text, by_hand())


def test_what_cannot_be_used_is_refused(tmp_path: Path) -> None:
    path = written(by_hand(), tmp_path / "table.jsonl")
    assert "charts are SVG" in refusal("simulate", path, "--plot", "a.png")
    assert "names with commas between" in refusal("simulate", path, "--policies", "priced,,")
    assert "cannot read the table" in refusal("simulate", str(tmp_path / "missing.jsonl"))
    told = refusal("record", str(tmp_path / "missing.yaml"), "--budget", "1 Wh")
    assert "missing.yaml" in told


@pytest.mark.slow
def test_a_table_is_recorded_as_a_configuration_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ask("init").exit_code == 0
    given = ("record", "stream.yaml", "--budget", "2 Wh", "--joules-per-sample", "0.01")
    more = ("--step-fractions", "0.5,1", "--limit", "2", "--trainer.max_epochs", "2")
    result = ask(*given, *more)
    assert result.exit_code == 0, result.output
    assert "wrote table.jsonl: 13 rows of 2 experiences" in result.output
    assert "modelled: 0 J and 0.01 J per sample" in result.output
    table = read_table("table.jsonl")
    assert (table.num_experiences, table.header.stream) == (2, "digits-seed-0")
    assert best_schedule(table, table.full_j).spent_j <= table.full_j
    assert "cannot read the step fractions 'x'" in refusal(*given, "--step-fractions", "x")
    assert "give an energy, such as" in refusal("record", "stream.yaml", "--budget", "9 % of full")
