"""The `greentrain explain` command."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from greentrain import UpdateMode, candidates_of, open_controller
from greentrain.budget import Budget
from greentrain.cli.app import app
from greentrain.control import Always
from greentrain.energy import ConstantMeter
from greentrain.errors import ConfigurationError
from greentrain.ledger import Ledger, canonical
from tests.report.ledgers import come, decide

EVIL = "[red]monday[/red]\x1b[2J"


@pytest.fixture
def take(tmp_path: Path, seconds: list[float]) -> Callable[..., str]:
    """Take a stream through experiences at 100 W, and return its ledger's file."""
    file = str(tmp_path / "own.db")

    def take_them(*experiences: dict[str, Any], name: str = "churn", **options: Any) -> str:
        meter = ConstantMeter(100.0, clock=lambda: seconds[0])
        settings = {
            "budget": "2 Wh",
            "num_experiences": 8,
            "ledger": file,
            "step_j": 2.0,
            "monitor": "auc",
        }
        with open_controller(name, meter=meter, **{**settings, **options}) as controller:
            for told in experiences:
                known = {"candidates": candidates_of({"WARM_START": 40, "FULL_RETRAIN": 100})}
                known |= {"n_new": 100, **told}
                after, kept = known.pop("after"), known.pop("kept", True)
                with controller.update(known.pop("id"), **known) as update:
                    if update.action.mode is not UpdateMode.SKIP:
                        seconds[0] += 1.5
                        update.done(metric_after=after, kept=kept)
        return file

    return take_them


FIRST = {"id": "monday", "after": 0.75}
SECOND = {"id": "tuesday", "metric_before": 0.5, "metric_new": 0.25, "after": 0.625}
REJECTED = {
    "id": "wednesday",
    "metric_before": 0.5,
    "metric_new": 0.25,
    "after": 0.4,
    "kept": False,
}


def ask(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments], catch_exceptions=False)


def answer(*arguments: str) -> Any:
    result = ask(*arguments, "--json")
    assert result.exit_code == 0
    return json.loads(result.output)


def plain(text: str) -> str:
    """What a table says, without its lines and the breaks in its cells."""
    return " ".join(text.translate(dict.fromkeys(map(ord, "│┃┏┓┡┩┳╇━─┴└┘┼"), " ")).split())


def test_all_decisions_are_on_one_page(take: Callable[..., str]) -> None:
    ledger = take(FIRST, SECOND, REJECTED, policy=Always(mode=UpdateMode.WARM_START))
    page = ask("--ledger", ledger)
    assert page.exit_code == 0
    told = plain(page.output)
    for text in ("Decisions about churn", "monday", "tuesday", "FULL_RETRAIN", "WARM_START"):
        assert text in told
    assert "150 J" in told  # 1.5 s at 100 W
    assert "used: the experience, probe and calibration included" in told
    assert "+0.125" in told  # 0.625 after 0.5
    assert "(not kept)" in told
    # A line of figures and at most two of reasons for each experience, at 80 columns.
    assert len(page.output.splitlines()) <= 3 + 3 * 3 + 1
    *lines, following = page.output.splitlines()
    assert following.startswith("Next: greentrain explain")
    assert max(len(line.removesuffix("  (not kept)")) for line in lines) <= 80
    found = answer("--ledger", ledger)
    assert [one["experience_id"] for one in found] == ["monday", "tuesday", "wednesday"]
    assert [one["gain"] for one in found] == [None, 0.125, 0.0]
    assert [one["update_energy_j"] for one in found] == [pytest.approx(150.0)] * 3
    assert found[1]["predicted_gain"] is not None


def test_one_experience_is_explained_whole(take: Callable[..., str]) -> None:
    ledger = take(FIRST, SECOND)
    page = ask("--ledger", ledger, "--experience", "tuesday")
    told = plain(page.output)
    (one,) = answer("--ledger", ledger, "--experience", "tuesday")
    assert one["sentence"] in told
    assert "metric on its new data, before training on them 0.25" in told
    assert "loss on its new data unknown" in told
    assert "stored samples that an update has seen 100" in told
    assert "a trained model exists yes" in told
    assert re.search(
        r"expected options of later experiences \(--json shows them\) \d+ tables", told
    )
    assert len(one["alternatives"]) == 7  # SKIP, and two modes at three step fractions
    for option in one["alternatives"]:
        net = option["predicted_gain"] - one["min_gain_per_j"] * option["predicted_j"]
        assert f"{net:+.3f}" in told
        assert option["why_lost"] in told
    assert told.count("chosen") == 1
    assert "auc before 0.5" in told
    assert "auc after 0.625" in told
    assert "used by the update alone 150 J" in told
    assert f"{one['predicted_gain']:+.3f} predicted" in told


def test_the_gain_of_a_loss_is_by_how_much_it_fell(take: Callable[..., str]) -> None:
    known = {"metric_before": 0.5, "metric_new": 0.9, "after": 0.25}
    ledger = take({"id": "a", **known}, monitor="loss", mode="min")
    assert [one["gain"] for one in answer("--ledger", ledger)] == [0.25]


def test_what_was_used_elsewhere_is_what_was_given(tmp_path: Path) -> None:
    file = str(tmp_path / "own.db")
    options: dict[str, Any] = {
        "budget": Budget.parse("2 Wh"),
        "ledger": file,
        "step_j": 2.0,
        "elsewhere": True,
    }
    with open_controller("churn", **options) as controller:
        full = candidates_of({"FULL_RETRAIN": 100})
        update = controller.decide("a", candidates=full, n_new=1)
        controller.settle(update, metric_after=0.5, energy_j=360.0)
    assert [one["update_energy_j"] for one in answer("--ledger", file)] == [360.0]
    told = plain(ask("--ledger", file, "--experience", "a").output)
    assert "used by the update alone 360 J" in told


def test_the_newest_stream_is_shown_unless_one_is_named(take: Callable[..., str]) -> None:
    take(FIRST, name="churn")
    ledger = take({"id": "a", "after": 0.5}, name="fraud")
    assert [one["experience_id"] for one in answer("--ledger", ledger)] == ["a"]
    assert [one["experience_id"] for one in answer("--ledger", ledger, "--stream", "churn")] == [
        "monday"
    ]
    with pytest.raises(ConfigurationError, match="no stream 'chrun'; did you mean 'churn'"):
        ask("--ledger", ledger, "--stream", "chrun")


def test_what_a_ledger_holds_is_text(take: Callable[..., str]) -> None:
    page = ask("--ledger", take({"id": EVIL, "after": 0.5})).output
    assert "\x1b" not in page
    assert "[red]" in page


def test_an_experience_that_is_not_there_has_neighbours(take: Callable[..., str]) -> None:
    days = [{"id": f"2026-11-{day:02}", "after": 0.5} for day in range(1, 8)]
    ledger = take(*days)
    with pytest.raises(ConfigurationError, match="did you mean '2026-11-07'"):
        ask("--ledger", ledger, "--experience", "2026-11-09")
    with pytest.raises(ConfigurationError, match="the last of its 7 are '2026-11-03', "):
        ask("--ledger", ledger, "--experience", "yesterday")


def test_a_missing_ledger_and_an_empty_one_say_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="does not exist"):
        ask("--ledger", str(tmp_path / "none.db"))
    assert list(tmp_path.iterdir()) == []
    Ledger(str(tmp_path / "empty.db")).close()
    with pytest.raises(ConfigurationError, match="holds no decision"):
        ask("--ledger", str(tmp_path / "empty.db"))


def decided(ledger: Ledger, state: Any, alternatives: Any) -> None:
    """One decision of a run that is not closed, as another release might have written it."""
    budget = ledger.open_budget("old", Budget.parse("2 Wh"))
    with ledger.open_run("stream", "old") as run:
        run.append(
            "decision",
            budget_id=budget,
            experience_id="first",
            position=0,
            reservation_id=None,
            update_mode="REPLAY",
            step_fraction=0.0625,
            reason="BEST_NET_GAIN",
            sentence="it was worth it",
            predicted_j=None,
            upper_bound_j=None,
            min_gain_per_j=0.001,
            state=canonical(state),
            alternatives=canonical(alternatives),
        )


OLD = {
    "position": 0,
    "num_experiences": 8,
    "has_model": True,
    "metric_before": 0.5,
    "novelty_seen": 2.5,
}


@pytest.mark.parametrize(
    ("state", "alternatives", "expected"),
    [
        (
            OLD,
            [{"update_mode": "REPLAY", "step_fraction": 0.0625, "predicted_j": 3.6}],
            ("novelty seen 2.5", "REPLAY at 6.25%", "3.6 J", "unknown", "chosen"),
        ),
        (
            None,
            [],
            ("not even pay for a probe", "no other option was compared", "no outcome was recorded"),
        ),
    ],
)
def test_rows_of_other_releases_are_shown(
    tmp_path: Path, state: Any, alternatives: Any, expected: tuple[str, ...]
) -> None:
    file = str(tmp_path / "old.db")
    ledger = Ledger(file)
    decided(ledger, state, alternatives)
    ledger.close()
    told = plain(ask("--ledger", file, "--experience", "first").output)
    for text in ("first, number 0", "BEST_NET_GAIN: it was worth it", "interrupted", *expected):
        assert text in told
    assert "it was worth it" in plain(ask("--ledger", file).output)


def test_shadow_decisions_are_shown_as_such(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'advice.db'}"
    ledger = Ledger(url)
    with ledger.open_run("stream", "churn", environment={"settings": {"shadow": True}}) as run:
        budget = ledger.open_budget("churn", Budget.parse("2 Wh"))
        for position, steps in enumerate((0, 50)):
            decide(
                run, budget, position, update_mode="REPLAY", step_fraction=0.5, predicted_j=720.0
            )
            come(run, position, steps=steps, planned_steps=20, energy_j=steps * 36.0)
    ledger.close()
    told = ask("--ledger", url)
    assert told.output.count("(shadow mode)") == 2
    shown = ask("--ledger", url, "--experience", "experience-1").output
    assert "number 1, decided in shadow mode at" in shown
    assert "trained 50 steps" in shown
    assert "1,800 J" in shown  # which the other job reported: 1,800 J
    assert "reserved for it" not in shown
    shown = ask("--ledger", url, "--experience", "experience-0").output
    assert "trained nothing, or reported nothing" in shown
