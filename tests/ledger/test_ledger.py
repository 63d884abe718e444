from __future__ import annotations

import getpass
import json
import multiprocessing
import os
import socket
import threading
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

from greentrain._about import DISTRIBUTION, VERSION
from greentrain.budget import Budget
from greentrain.carbon import Emissions
from greentrain.errors import ConfigurationError, GreentrainError, LedgerError
from greentrain.ledger import SCHEMA_VERSION, Ledger, RunLog, canonical, environment, verify
from tests.ledger.events import CPU, window

OUTCOME = {
    "experience_id": "0-first",
    "position": 0,
    "reservation_id": None,
    "metric": "val_acc",
    "metric_before": 0.5,
    "metric_after": 0.75,
    "steps": 10,
    "planned_steps": 12,
    "energy_j": 360.0,
    "kept": True,
}


def draw(run: RunLog, epoch: int) -> None:
    run.record(window(by_source={"cpu": 1.0}, epoch=epoch))


def test_a_run_says_what_it_was(ledger: Ledger) -> None:
    run = ledger.open_run("stream", "digits", environment={"cpus": 2}, sources=[CPU])
    (row,) = ledger.rows("run")
    assert (row["run_id"], row["kind"], row["name"]) == (run.run_id, "stream", "digits")
    assert json.loads(row["environment"]) == {"schema": SCHEMA_VERSION, "cpus": 2}
    (source,) = ledger.rows("source", run_id=run.run_id)
    assert (source["name"], source["method"], source["note"]) == ("cpu", "estimated", "a model")
    assert source["relative_uncertainty"] == 0.2
    assert {source[key] for key in ("device", "uuid", "power_limit_w", "reference")} == {None}
    assert datetime.fromisoformat(row["recorded_utc"]).utcoffset() is not None


@pytest.mark.parametrize(
    ("by_source", "energy_j", "complete"),
    [
        ({"cpu": 3000.0, "ram": 600.0}, 3600.0, True),
        ({"cpu": 3000.0, "ram": None}, 3000.0, False),
        ({"cpu": None}, None, False),
        ({"cpu": 0.0}, 0.0, True),
        ({}, None, False),
    ],
)
def test_a_window_sums_what_is_known(
    ledger: Ledger, by_source: dict[str, Any], energy_j: float | None, complete: bool
) -> None:
    with ledger.open_run("fit", "model") as run:
        run.record(window(by_source=by_source, duration_s=36.0, epoch=3))
    (row,) = ledger.rows("window")
    assert (row["energy_j"], row["complete"]) == (energy_j, complete)
    assert (row["phase"], row["epoch"], row["duration_s"]) == ("train_epoch", 3, 36.0)
    assert row["started_utc"] == "2026-01-01T00:00:00.000000+00:00"
    assert json.loads(row["by_source"]) == by_source
    assert verify(ledger).ok


@pytest.mark.parametrize(("error", "status"), [(None, "completed"), (ValueError, "failed")])
def test_a_run_is_closed_with_how_it_ended(
    ledger: Ledger, error: type[Exception] | None, status: str
) -> None:
    try:
        with ledger.open_run("fit", "model"):
            if error is not None:
                raise error
    except ValueError:
        pass
    assert [row["status"] for row in ledger.rows("closing")] == [status]


def test_closing_twice_writes_one_row(ledger: Ledger) -> None:
    run = ledger.open_run("fit", "model")
    run.close("failed")
    run.close()
    assert [row["status"] for row in ledger.rows("closing")] == ["failed"]


def test_a_closed_run_takes_no_more_windows_and_starts_no_thread(ledger: Ledger) -> None:
    run = ledger.open_run("fit", "model")
    run.close()
    with pytest.raises(LedgerError, match="is closed and accepts no more rows"):
        draw(run, 0)
    assert ledger.rows("window") == []


def test_rows_come_in_the_order_recorded_and_by_what_they_equal(ledger: Ledger) -> None:
    one, two = ledger.open_run("fit", "one"), ledger.open_run("fit", "two")
    for run, phase in ((one, "a"), (two, "b"), (one, "c")):
        run.record(window(phase, by_source={"cpu": 1.0}))
        run.flush()
    one.close()
    two.close()
    assert [row["phase"] for row in ledger.rows("window")] == ["a", "b", "c"]
    assert [row["phase"] for row in ledger.rows("window", run_id=one.run_id)] == ["a", "c"]


def test_windows_are_written_before_the_rows_that_come_after_them(ledger: Ledger) -> None:
    with ledger.open_run("fit", "model") as run:
        for epoch in range(20):
            draw(run, epoch)
        run.append("outcome", **OUTCOME)
    assert [row["epoch"] for row in ledger.rows("window")] == list(range(20))
    (outcome,) = ledger.rows("outcome")
    assert outcome["entry_id"] > max(row["entry_id"] for row in ledger.rows("window"))
    assert verify(ledger).ok


def test_windows_that_cannot_be_written_now_are_written_later(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = ledger.open_run("fit", "model")

    def refuse(*arguments: Any) -> str:
        raise LedgerError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.store, "append", refuse)
        for epoch in range(3):
            draw(run, epoch)
            run.flush()
        assert ledger.rows("window") == []
    draw(run, 3)
    run.close()
    assert [row["epoch"] for row in ledger.rows("window")] == [0, 1, 2, 3]
    assert caplog.messages == ["rows of the ledger wait in a local file, because the disk is full"]
    assert verify(ledger).ok


def test_whoever_waits_for_windows_is_not_kept_by_an_unforeseen_error(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ledger.open_run("fit", "model")

    def break_down(*arguments: Any) -> str:
        raise RuntimeError("nobody thought of this")

    with monkeypatch.context() as patch:
        patch.setattr(ledger.store, "append", break_down)
        draw(run, 0)
        waiting = threading.Thread(target=run.flush, daemon=True)
        waiting.start()
        waiting.join(timeout=5.0)  # reached only if it never returns
        assert not waiting.is_alive()
    run.close()
    assert verify(ledger).ok


def test_a_budget_is_opened_once_for_its_name(tmp_path: Path) -> None:
    budget = Budget.parse("20 Wh", num_experiences=8)
    ids = []
    for _ in range(2):
        ledger = Ledger(f"sqlite:///{tmp_path / 'again.db'}")
        ids.append(ledger.open_budget("digits", budget))
        found = ledger.find_budget("digits")
        assert ledger.find_budget("letters") is None
        ledger.close()
    assert ids[0] == ids[1]
    assert found is not None
    assert (found["energy_j"], found["num_experiences"]) == (72e3, 8)
    assert found["given_as"] == "20 Wh for 8 experiences"


@pytest.mark.parametrize(("text", "num_experiences"), [("21 Wh", 8), ("20 Wh", 9)])
def test_a_budget_cannot_be_changed_under_its_name(
    ledger: Ledger, text: str, num_experiences: int
) -> None:
    ledger.open_budget("digits", Budget.parse("20 Wh", num_experiences=8))
    with pytest.raises(ConfigurationError, match="'digits' of 20 Wh for 8 experiences"):
        ledger.open_budget("digits", Budget.parse(text, num_experiences=num_experiences))
    assert len(ledger.rows("budget")) == 1


def test_a_share_has_to_be_measured_first(ledger: Ledger) -> None:
    with pytest.raises(ConfigurationError, match="has no amount yet"):
        ledger.open_budget("digits", Budget.parse("40 % of full"))


def test_a_budget_that_is_not_there_is_named(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="no budget 'nowhere'"):
        ledger.balance("nowhere")


def test_a_run_of_another_ledger_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    other = Ledger(str(tmp_path / "other.db"))
    run = other.open_run("fit", "model")
    account = ledger.account(ledger.open_budget("digits", Budget(energy_j=1.0)), run)
    with pytest.raises(LedgerError, match=f"no run '{run.run_id}'"):
        account.reserve(1.0, "probe")
    assert account.balance().reserved_j == 0.0
    other.close()


def test_heads_count_and_close_every_chain(ledger: Ledger) -> None:
    assert ledger.heads() == {}
    ledger.open_budget("digits", Budget(energy_j=1.0))
    run = ledger.open_run("fit", "model")
    hashes = [run.append("outcome", **OUTCOME) for _ in range(3)]
    heads = ledger.heads()
    assert {chain: head["count"] for chain, head in heads.items()} == {
        "budgets": 1,
        "runs": 1,
        run.chain: 3,
    }
    assert heads[run.chain]["head"] == hashes[-1]
    assert len({head["head"] for head in heads.values()}) == 3


def test_whole_numbers_are_recorded_as_any_others(ledger: Ledger) -> None:
    budget = ledger.open_budget("digits", Budget(energy_j=3600))
    with ledger.open_run("fit", "model") as run:
        account = ledger.account(budget, run)
        reservation = account.reserve(600, "probe")
        run.record(
            window("probe", duration_s=1, by_source={"cpu": 100}, reservation_id=reservation)
        )
        account.settle(reservation, 100)
        run.append("outcome", **{**OUTCOME, "metric_before": 0, "metric_after": 1})
    assert verify(ledger).failures == ()


def test_a_negative_zero_is_recorded_as_any_other(ledger: Ledger) -> None:
    with ledger.open_run("fit", "model") as run:
        run.record(window(duration_s=-0.0, by_source={"cpu": -0.0}))
    assert verify(ledger).failures == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused_by_name(ledger: Ledger, value: float) -> None:
    run = ledger.open_run("fit", "model")
    with pytest.raises(GreentrainError, match="metric_after"):
        run.append("outcome", **{**OUTCOME, "metric_after": value})
    with pytest.raises(GreentrainError, match="cpu"):
        run.record(window(by_source={"cpu": value}))
    with pytest.raises(GreentrainError, match="duration_s"):
        run.record(window(duration_s=value, by_source={"cpu": 1.0}))
    with pytest.raises(GreentrainError, match="grams"):
        run.record(window(by_source={"cpu": 1.0}), Emissions(grams=value))
    assert ledger.rows("outcome") == ledger.rows("window") == []
    assert verify(ledger).ok


def test_an_environment_names_no_person_host_or_path() -> None:
    described = environment()
    text = canonical(described)
    assert described["versions"][DISTRIBUTION] == VERSION  # type: ignore[index]
    assert f'"{getpass.getuser()}"' not in text
    assert f'"{socket.gethostname()}"' not in text
    assert str(Path.home()) not in text or str(Path.home()) == "/"
    assert "/" not in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": [1.0, None, True]}, '{"a":[1.0,null,true],"b":1}'),
        (0.1 + 0.2, "0.30000000000000004"),
        ("µ", '"\\u00b5"'),
    ],
)
def test_a_value_is_written_in_one_way_only(value: Any, text: str) -> None:
    assert canonical(value) == text


def test_the_url_shows_where_it_lies(ledger: Ledger, url: str) -> None:
    assert make_url(ledger.url) == make_url(url)._replace(username=None)  # only the place is shown


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot fork here")
def test_a_forked_child_does_not_close_the_run_of_its_parent(url: str) -> None:
    ledger = Ledger(url, keep_open=False)
    with ledger.open_run("fit", "one") as run:
        child = multiprocessing.get_context("fork").Process(target=run.close)
        child.start()
        child.join()
        assert child.exitcode == 0
        assert ledger.rows("closing") == []
        run.record(window(by_source={"cpu": 1.0}))
    assert [row["status"] for row in ledger.rows("closing")] == ["completed"]
    assert verify(ledger).notes == ()
    ledger.close()


def test_rows_after_a_closing_row_are_named(ledger: Ledger) -> None:
    with ledger.open_run("fit", "one") as run:
        pass
    run.append("outcome", **OUTCOME)
    assert verify(ledger).notes == (f"late: run:{run.run_id} has 1 row(s) after its closing row",)
